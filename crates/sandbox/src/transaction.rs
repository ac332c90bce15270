//! Transactions as an Ethereum node knows them: signed, RLP-encoded and named by their hash.

use alloy_primitives::{Address, B256, Bytes, Log, U256, keccak256};
use alloy_rlp::{Encodable, Header};
use secp256k1::{Message, Secp256k1, SecretKey, SignOnly};

use crate::SandboxError;

/// Bound on what one transaction may burn; a payment takes about 100,000.
pub(crate) const GAS_LIMIT: u64 = 1_000_000;

/// A transaction that is on the sandbox's chain, with its receipt.
///
/// `raw` is a complete legacy transaction (EIP-155) signed by the sandbox's relayer and `hash` is
/// its keccak-256, exactly as on a public chain; the chain id in it belongs to no public chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Keccak-256 of `raw`.
    pub hash: B256,
    /// The signed transaction, RLP-encoded.
    pub raw: Bytes,
    /// Number of the block that holds this transaction and no other.
    pub block: u64,
    /// Time of that block in Unix seconds.
    pub timestamp: u64,
    /// Who sent it: the relayer.
    pub from: Address,
    /// Call data.
    pub input: Bytes,
    /// Events, in order.
    pub logs: Vec<Log>,
}

/// The account that sends every transaction. Its key is public: it holds nothing.
pub struct Relayer {
    secp: Secp256k1<SignOnly>,
    key: SecretKey,
    pub address: Address,
}

impl Relayer {
    pub fn new() -> Result<Self, SandboxError> {
        let seed = keccak256("obol sandbox relayer");
        let key = SecretKey::from_byte_array(seed.0).map_err(|cause| SandboxError::Evm { cause: cause.to_string() })?;
        let secp = Secp256k1::signing_only();
        let public = key.public_key(&secp).serialize_uncompressed();
        let address = Address::from_raw_public_key(public.get(1..).unwrap_or_default());
        Ok(Self { secp, key, address })
    }

    /// A signed call of `to`. The signature is deterministic (RFC 6979), and so is the hash.
    pub fn sign(&self, chain_id: u64, nonce: u64, to: Address, input: &Bytes) -> (B256, Bytes) {
        let gas_price = 0_u64;
        let call: [&dyn Encodable; 6] = [&nonce, &gas_price, &GAS_LIMIT, &to, &U256::ZERO, input];
        let unsigned = rlp_list(&call, [&chain_id, &0_u64, &0_u64]);
        let digest = Message::from_digest(keccak256(unsigned).0);
        let (recovery_id, compact) = self.secp.sign_ecdsa_recoverable(digest, &self.key).serialize_compact();
        let (r, s) = compact.split_at(32);
        let v = chain_id * 2 + 35 + u64::from(i32::from(recovery_id).unsigned_abs());
        let raw = rlp_list(&call, [&v, &U256::from_be_slice(r), &U256::from_be_slice(s)]);
        (keccak256(&raw), raw.into())
    }
}

fn rlp_list(call: &[&dyn Encodable; 6], tail: [&dyn Encodable; 3]) -> Vec<u8> {
    let fields = || call.iter().chain(&tail);
    let mut bytes = Vec::new();
    Header { list: true, payload_length: fields().map(|f| f.length()).sum() }.encode(&mut bytes);
    fields().for_each(|field| field.encode(&mut bytes));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of EIP-155, with its own key.
    #[test]
    fn encoding_and_signature_are_those_of_eip_155() {
        let key = SecretKey::from_byte_array([0x46; 32]).unwrap();
        let relayer = Relayer { secp: Secp256k1::signing_only(), key, address: Address::ZERO };
        let (_, raw) = relayer.sign(1, 9, Address::repeat_byte(0x35), &Bytes::new());
        let mut fields = alloy_rlp::Rlp::new(&raw).unwrap();
        assert_eq!(fields.get_next::<u64>().unwrap(), Some(9));
        assert_eq!(fields.get_next::<u64>().unwrap(), Some(0));
        assert_eq!(fields.get_next::<u64>().unwrap(), Some(GAS_LIMIT));
        assert_eq!(fields.get_next::<Address>().unwrap(), Some(Address::repeat_byte(0x35)));
        assert_eq!(fields.get_next::<U256>().unwrap(), Some(U256::ZERO));
        assert_eq!(fields.get_next::<Bytes>().unwrap(), Some(Bytes::new()));
        let v = fields.get_next::<u64>().unwrap().unwrap();
        assert!(v == 37 || v == 38, "{v}");
    }
}
