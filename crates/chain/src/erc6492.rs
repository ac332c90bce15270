//! Signatures of smart wallets that are not deployed yet (ERC-6492): what they hold, and the one
//! transaction that has the wallet deployed and moves its money.
//!
//! The signature names the contract that deploys the wallet, so a payer chooses whom we call with what. Our
//! key must never be the caller: a "factory" could be a token that we own, or x402's proxy, which lets only
//! its named facilitator settle. Multicall3 makes the call, which owns nothing and may do nothing.

use std::borrow::Cow;

use alloy_primitives::{Bytes, address};
use alloy_sol_types::{SolCall, SolValue, sol};
use obol_offer::Address;

/// The Multicall3 contract, the same on every chain that has it.
pub(crate) const MULTICALL3: Address = address!("cA11bde05977b3631167028862bE2a173976CA11");

/// How such a signature ends.
pub(crate) const MAGIC: [u8; 32] = alloy_primitives::hex!("6492649264926492649264926492649264926492649264926492649264926492");

sol! {
    interface Multicall3 {
        struct Call3 { address target; bool allowFailure; bytes callData; }
        struct Outcome { bool success; bytes returnData; }

        function aggregate3(Call3[] calls) external payable returns (Outcome[] returnData);
    }
}

/// What a signature with the magic end holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrapped {
    /// Deploys the wallet.
    pub factory: Address,
    /// What it is called with.
    pub calldata: Bytes,
    /// What the wallet is shown, once it is there.
    pub signature: Bytes,
}

/// A signature that ends like one of ERC-6492 and holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Wrapped {
    /// Reads a signature; `None` when it is a plain one.
    pub fn read(signature: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(body) = signature.strip_suffix(&MAGIC) else { return Ok(None) };
        let (factory, calldata, signature) = <(Address, Bytes, Bytes)>::abi_decode_params(body).map_err(|_| Malformed)?;
        Ok(Some(Self { factory, calldata, signature }))
    }

    /// The call of Multicall3 that deploys the wallet and then makes `call`, which alone decides: somebody
    /// else may deploy the wallet before us, and its factory then fail.
    pub fn deploying(&self, target: Address, call: &[u8]) -> Vec<u8> {
        self.aggregate(target, call, false)
    }

    /// The same call, as one that does not revert but tells what became of both parts ([`Parts::read`]).
    pub fn in_parts(&self, target: Address, call: &[u8]) -> Vec<u8> {
        self.aggregate(target, call, true)
    }

    fn aggregate(&self, target: Address, call: &[u8], lenient: bool) -> Vec<u8> {
        let deploy = Multicall3::Call3 { target: self.factory, allowFailure: true, callData: self.calldata.clone() };
        let transfer = Multicall3::Call3 { target, allowFailure: lenient, callData: call.to_vec().into() };
        Multicall3::aggregate3Call { calls: vec![deploy, transfer] }.abi_encode()
    }
}

/// The signature that a wallet or a token is shown.
pub(crate) fn inner(signature: &[u8]) -> Cow<'_, [u8]> {
    match Wrapped::read(signature) {
        Ok(Some(wrapped)) => Cow::Owned(wrapped.signature.to_vec()),
        Ok(None) | Err(Malformed) => Cow::Borrowed(signature),
    }
}

/// What became of a call [in parts](Wrapped::in_parts).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    /// The factory reverted, or ran out of gas.
    NoWallet,
    /// The transfer reverted with this.
    NoTransfer(Bytes),
    /// Both succeeded.
    Done,
}

impl Parts {
    /// Reads what Multicall3 returned; `None` when it is not that.
    pub fn read(returned: &[u8]) -> Option<Self> {
        let outcomes = Multicall3::aggregate3Call::abi_decode_returns(returned).ok()?;
        let [deploy, transfer] = <[Multicall3::Outcome; 2]>::try_from(outcomes).ok()?;
        Some(match (deploy.success, transfer.success) {
            (false, _) => Self::NoWallet,
            (true, false) => Self::NoTransfer(transfer.returnData),
            (true, true) => Self::Done,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap(factory: Address, calldata: &[u8], signature: &[u8]) -> Vec<u8> {
        let body = (factory, Bytes::copy_from_slice(calldata), Bytes::copy_from_slice(signature)).abi_encode_params();
        [body.as_slice(), &MAGIC].concat()
    }

    #[test]
    fn a_wrapped_signature_is_read_and_any_other_is_left_alone() {
        let factory = Address::repeat_byte(7);
        let wrapped = wrap(factory, &[1, 2, 3], &[9; 65]);
        let read = Wrapped { factory, calldata: vec![1, 2, 3].into(), signature: vec![9; 65].into() };
        assert_eq!(Wrapped::read(&wrapped), Ok(Some(read)));
        assert_eq!(*inner(&wrapped), [9; 65]);
        for plain in [&[][..], &[9; 65], &MAGIC[1..]] {
            assert_eq!(Wrapped::read(plain), Ok(None));
            assert_eq!(*inner(plain), *plain);
        }
    }

    #[test]
    fn hostile_a_wrapped_signature_cut_anywhere_is_malformed() {
        let whole = wrap(Address::repeat_byte(7), &[1; 40], &[9; 65]);
        let body = whole.strip_suffix(&MAGIC).unwrap();
        // The last part is 65 bytes, and 31 of padding that nobody needs.
        for end in 0..body.len() - 31 {
            let cut = [&body[..end], &MAGIC].concat();
            assert_eq!(Wrapped::read(&cut), Err(Malformed), "after {end} of {} bytes", body.len());
            assert_eq!(*inner(&cut), cut);
        }
        // Lengths and offsets of more than there is.
        for word in 1..3 {
            for byte in [word * 32, word * 32 + 24, word * 32 + 30] {
                let mut bent = whole.clone();
                bent[byte] = 0xff;
                assert_eq!(Wrapped::read(&bent), Err(Malformed), "byte {byte}");
            }
        }
    }

    #[test]
    fn only_the_transfer_may_not_fail_and_nothing_else_is_called() {
        let wrapped = Wrapped { factory: Address::repeat_byte(7), calldata: vec![1].into(), signature: Bytes::new() };
        let token = Address::repeat_byte(8);
        let sent = Multicall3::aggregate3Call::abi_decode(&wrapped.deploying(token, &[2])).unwrap().calls;
        let seen: Vec<_> = sent.iter().map(|call| (call.target, call.allowFailure, call.callData.as_ref())).collect();
        assert_eq!(seen, [(wrapped.factory, true, &[1][..]), (token, false, &[2])]);
    }

    #[test]
    fn what_became_of_both_parts_is_told() {
        let told = |parts: &[(bool, &[u8])]| {
            let outcome =
                |(success, data): &(bool, &[u8])| Multicall3::Outcome { success: *success, returnData: Bytes::copy_from_slice(data) };
            Parts::read(&parts.iter().map(outcome).collect::<Vec<_>>().abi_encode())
        };
        assert_eq!(told(&[(false, &[]), (false, &[1])]), Some(Parts::NoWallet));
        assert_eq!(told(&[(true, &[]), (false, &[1])]), Some(Parts::NoTransfer(vec![1].into())));
        assert_eq!(told(&[(true, &[]), (true, &[])]), Some(Parts::Done));
        assert_eq!(told(&[(true, &[])]), None);
        assert_eq!(Parts::read(&[]), None);
    }
}
