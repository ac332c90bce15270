//! Permit2 and x402's proxies: what is called, and what a settled call says.

use alloy_primitives::{Bytes, U256};
use alloy_sol_types::{SolCall, SolInterface, sol};
use obol_offer::Address;
use obol_x402::{
    AuthorizationKind, MatchedPayment,
    permit2::{EXACT_PROXY, UPTO_PROXY},
};

use crate::erc6492::inner;

sol! {
    struct TokenPermissions { address token; uint256 amount; }
    struct PermitTransferFrom { TokenPermissions permitted; uint256 nonce; uint256 deadline; }
    struct EIP2612Permit { uint256 value; uint256 deadline; bytes32 r; bytes32 s; uint8 v; }
    struct ExactWitness { address to; uint256 validAfter; }
    struct UptoWitness { address to; address facilitator; uint256 validAfter; }

    interface Permit2 {
        event UnorderedNonceInvalidation(address indexed owner, uint256 word, uint256 mask);
        function nonceBitmap(address owner, uint256 word) external view returns (uint256);
    }

    interface ExactProxy {
        function settle(PermitTransferFrom permit, address owner, ExactWitness witness, bytes signature) external;
        function settleWithPermit(
            EIP2612Permit permit2612, PermitTransferFrom permit, address owner, ExactWitness witness, bytes signature
        ) external;
    }

    interface UptoProxy {
        function settle(PermitTransferFrom permit, uint256 amount, address owner, UptoWitness witness, bytes signature) external;
        function settleWithPermit(
            EIP2612Permit permit2612, PermitTransferFrom permit, uint256 amount, address owner, UptoWitness witness, bytes signature
        ) external;
    }

    /// Of Permit2 and of the proxies.
    interface Refusals {
        error SignatureExpired(uint256 signatureDeadline);
        error InvalidAmount(uint256 maxAmount);
        error InvalidNonce();
        error InvalidSignatureLength();
        error InvalidSignature();
        error InvalidSigner();
        error InvalidContractSignature();
        error InvalidDestination();
        error InvalidOwner();
        error PaymentTooEarly();
        error AmountExceedsPermitted();
        error UnauthorizedFacilitator();
    }
}

/// Word and bit of a nonce in Permit2's bitmap.
pub(crate) fn bitmap_place(nonce: U256) -> (U256, U256) {
    (nonce >> 8, U256::ONE << (nonce & U256::from(0xff)))
}

/// The call that moves `amount` of a payment by Permit2; `None` for one that the token itself moves.
pub(crate) fn settle_call(payment: &MatchedPayment, amount: U256) -> Option<(Address, Vec<u8>)> {
    let signed = &payment.authorization;
    let spender = signed.kind.spender()?;
    let permit = PermitTransferFrom {
        permitted: TokenPermissions { token: payment.terms.asset.address, amount: signed.value.0 },
        nonce: U256::from_be_bytes(signed.nonce.0),
        deadline: U256::from(signed.deadline()),
    };
    let (owner, to, valid_after) = (signed.from, signed.to, U256::from(signed.valid_after));
    let signature = Bytes::from(inner(&signed.signature).into_owned());
    let call = match signed.kind {
        AuthorizationKind::Upto { facilitator } => {
            let witness = UptoWitness { to, facilitator, validAfter: valid_after };
            UptoProxy::settleCall { permit, amount, owner, witness, signature }.abi_encode()
        }
        AuthorizationKind::Eip3009 | AuthorizationKind::Permit2 => {
            let witness = ExactWitness { to, validAfter: valid_after };
            ExactProxy::settleCall { permit, owner, witness, signature }.abi_encode()
        }
    };
    Some((spender, call))
}

/// What a call of a proxy moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settlement {
    pub token: Address,
    pub owner: Address,
    pub to: Address,
    pub amount: U256,
    pub nonce: U256,
}

impl Settlement {
    /// Reads the input of a call of one of the proxies; `None` when it is no settlement.
    pub fn read(proxy: Address, input: &[u8]) -> Option<Self> {
        use ExactProxy::ExactProxyCalls as Exact;
        use UptoProxy::UptoProxyCalls as Upto;
        let of = |permit: &PermitTransferFrom, amount, owner, to| {
            let PermitTransferFrom { permitted: TokenPermissions { token, .. }, nonce, .. } = *permit;
            Self { token, owner, to, amount, nonce }
        };
        Some(match proxy {
            EXACT_PROXY => match Exact::abi_decode(input).ok()? {
                Exact::settle(call) => of(&call.permit, call.permit.permitted.amount, call.owner, call.witness.to),
                Exact::settleWithPermit(call) => of(&call.permit, call.permit.permitted.amount, call.owner, call.witness.to),
            },
            UPTO_PROXY => match Upto::abi_decode(input).ok()? {
                Upto::settle(call) => of(&call.permit, call.amount, call.owner, call.witness.to),
                Upto::settleWithPermit(call) => of(&call.permit, call.amount, call.owner, call.witness.to),
            },
            _ => return None,
        })
    }
}

/// A contract's own error as the reason that x402 facilitators give.
pub(crate) fn refusal(data: &[u8]) -> Option<&'static str> {
    Some(match Refusals::RefusalsErrors::abi_decode(data).ok()? {
        Refusals::RefusalsErrors::SignatureExpired(_) => "permit2_deadline_expired",
        Refusals::RefusalsErrors::InvalidAmount(_) => "permit2_invalid_amount",
        Refusals::RefusalsErrors::InvalidNonce(_) => "permit2_invalid_nonce",
        Refusals::RefusalsErrors::InvalidSignatureLength(_)
        | Refusals::RefusalsErrors::InvalidSignature(_)
        | Refusals::RefusalsErrors::InvalidSigner(_)
        | Refusals::RefusalsErrors::InvalidContractSignature(_) => "invalid_permit2_signature",
        Refusals::RefusalsErrors::InvalidDestination(_) => "permit2_invalid_destination",
        Refusals::RefusalsErrors::InvalidOwner(_) => "permit2_invalid_owner",
        Refusals::RefusalsErrors::PaymentTooEarly(_) => "permit2_payment_too_early",
        Refusals::RefusalsErrors::AmountExceedsPermitted(_) => "upto_amount_exceeds_permitted",
        Refusals::RefusalsErrors::UnauthorizedFacilitator(_) => "upto_unauthorized_facilitator",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_has_one_bit() {
        assert_eq!(bitmap_place(U256::from(0x1_05)), (U256::ONE, U256::from(32)));
        assert_eq!(bitmap_place(U256::MAX), (U256::MAX >> 8, U256::ONE << 255));
    }

    /// The numbers are those of the deployed contracts.
    #[test]
    fn contracts_own_errors_become_reasons() {
        assert_eq!(refusal(&[0x75, 0x66, 0x88, 0xfe]), Some("permit2_invalid_nonce"));
        assert_eq!(refusal(&[0x81, 0x5e, 0x1d, 0x64]), Some("invalid_permit2_signature"));
        assert_eq!(refusal(&[1, 2, 3, 4]), None);
    }
}
