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
        Ok(Self { secp: Secp256k1::signing_only(), key, address: obol_x402::eip3009::address_of(&key) })
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

/// Who signed a legacy EIP-155 transaction: the other direction, written for tests.
#[cfg(test)]
pub fn recover_sender(raw: &[u8]) -> Option<Address> {
    use secp256k1::ecdsa::RecoverableSignature;

    let mut fields = alloy_rlp::Rlp::new(raw).ok()?;
    let call = (fields.get_next::<u64>().ok()??, fields.get_next::<u64>().ok()??, fields.get_next::<u64>().ok()??);
    let (to, value, input) = (fields.get_next::<Address>().ok()??, fields.get_next::<U256>().ok()??, fields.get_next::<Bytes>().ok()??);
    let v = fields.get_next::<u64>().ok()??;
    let (r, s) = (fields.get_next::<U256>().ok()??, fields.get_next::<U256>().ok()??);
    let chain_id = (v - 35) / 2;
    let unsigned = rlp_list(&[&call.0, &call.1, &call.2, &to, &value, &input], [&chain_id, &0_u64, &0_u64]);
    let compact = [r.to_be_bytes::<32>(), s.to_be_bytes::<32>()].concat();
    let id = i32::try_from((v - 35) % 2).ok()?.try_into().ok()?;
    let signature = RecoverableSignature::from_compact(&compact, id).ok()?;
    let public = Secp256k1::new().recover_ecdsa(Message::from_digest(keccak256(unsigned).0), &signature).ok()?;
    Some(Address::from_raw_public_key(&public.serialize_uncompressed()[1..]))
}
