//! EIP-1559 transactions: encoded, signed, named by their hash.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rlp::{Encodable, Header};

use crate::key::SigningKey;

/// Prices of gas, in wei.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fees {
    /// Most paid to the block's maker, per unit of gas.
    pub tip: u128,
    /// Most paid in all, per unit of gas.
    pub max: u128,
}

impl Fees {
    /// Enough to replace a transaction that has these (nodes want 10 or 12.5 % more of both), and
    /// not less than what the market asks now.
    pub fn bumped(self, market: Self) -> Self {
        let more = |fee: u128| fee.saturating_add(fee / 4).saturating_add(1);
        let tip = more(self.tip).max(market.tip);
        Self { tip, max: more(self.max).max(market.max).max(tip) }
    }
}

/// A call of a contract, not signed yet.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub chain_id: u64,
    pub nonce: u64,
    pub fees: Fees,
    pub gas: u64,
    pub to: Address,
    pub data: Bytes,
}

/// A transaction as nodes take it.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    pub hash: B256,
    pub raw: Bytes,
}

impl Call {
    pub fn sign(&self, key: &SigningKey) -> Signed {
        let (odd, rs) = key.sign(keccak256(self.encode(None)));
        let (r, s) = rs.split_at(32);
        let raw = self.encode(Some((u8::from(odd), U256::from_be_slice(r), U256::from_be_slice(s))));
        Signed { hash: keccak256(&raw), raw: raw.into() }
    }

    /// EIP-2718 type 2: the fields, and the signature when there is one.
    fn encode(&self, signature: Option<(u8, U256, U256)>) -> Vec<u8> {
        let Self { chain_id, nonce, fees, gas, to, data } = self;
        let access_list = Header { list: true, payload_length: 0 };
        let mut fields: Vec<&dyn Encodable> = vec![chain_id, nonce, &fees.tip, &fees.max, gas, to, &U256::ZERO, data];
        let tail = signature.as_ref().map(|(parity, r, s)| [parity as &dyn Encodable, r, s]);
        let access = EmptyList(access_list);
        fields.push(&access);
        fields.extend(tail.into_iter().flatten());
        let mut bytes = vec![2];
        Header { list: true, payload_length: fields.iter().map(|f| f.length()).sum() }.encode(&mut bytes);
        fields.iter().for_each(|field| field.encode(&mut bytes));
        bytes
    }
}

struct EmptyList(Header);

impl Encodable for EmptyList {
    fn encode(&self, out: &mut dyn alloy_rlp::BufMut) {
        self.0.encode(out);
    }
    fn length(&self) -> usize {
        self.0.length()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_pays_an_eighth_more_of_both_and_never_less_than_the_market() {
        let (old, calm, busy) = (Fees { tip: 0, max: 80 }, Fees { tip: 0, max: 10 }, Fees { tip: 50, max: 900 });
        assert_eq!(old.bumped(calm), Fees { tip: 1, max: 101 });
        assert_eq!(old.bumped(busy), Fees { tip: 50, max: 900 });
        assert_eq!(Fees { tip: u128::MAX, max: u128::MAX }.bumped(calm).max, u128::MAX);
    }
}
