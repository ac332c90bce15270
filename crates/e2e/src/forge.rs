//! Payments made by hand, right ones and wrong ones.

use alloy_primitives::{Address, B256, U256, hex};
use base64::{Engine, prelude::BASE64_STANDARD};
use obol_offer::{Amount, Network, Scheme, Terms};
use obol_x402::eip3009;
use secp256k1::SecretKey;
use serde_json::{Value, json};

/// The secret key behind 0x and 64 hex digits.
///
/// # Panics
/// When it is none.
pub fn secret(key: &str) -> SecretKey {
    let bytes: [u8; 32] = hex::decode_to_array(key).expect("a key is 32 bytes");
    SecretKey::from_byte_array(bytes).expect("a key is on the curve")
}

/// The account of a key.
pub fn address(key: &str) -> Address {
    eip3009::address_of(&secret(key))
}

/// An account that nobody has used.
pub fn fresh_address() -> Address {
    Address::from(rand::random::<[u8; 20]>())
}

/// Terms in USDC on Base Sepolia, `amount` in atomic units.
///
/// # Panics
/// Never: the network is built in.
pub fn terms(pay_to: Address, amount: u64) -> Terms {
    let network = Network::find("base-sepolia").expect("a built-in network");
    Terms {
        scheme: Scheme::Exact,
        network,
        asset: network.default_asset(),
        pay_to,
        amount: Amount(U256::from(amount)),
        max_timeout_seconds: 300,
    }
}

/// A signed v2 payment for `terms`, valid from `valid_after` to `valid_before` (Unix seconds), as
/// JSON to be bent before [`header`].
pub fn payment(key: &str, terms: &Terms, valid_after: u64, valid_before: u64) -> Value {
    let signed = eip3009::sign(&secret(key), terms, B256::from(rand::random::<[u8; 32]>()), valid_after, valid_before);
    json!({
        "x402Version": 2,
        "accepted": {
            "scheme": "exact",
            "network": terms.network.caip2(),
            "amount": terms.amount.0.to_string(),
            "asset": terms.asset.address.to_checksum(None),
            "payTo": terms.pay_to.to_checksum(None),
            "maxTimeoutSeconds": terms.max_timeout_seconds,
            "extra": { "name": terms.asset.domain_name, "version": terms.asset.domain_version },
        },
        "payload": {
            "signature": hex::encode_prefixed(&signed.signature),
            "authorization": {
                "from": signed.from.to_checksum(None),
                "to": signed.to.to_checksum(None),
                "value": signed.value.0.to_string(),
                "validAfter": signed.valid_after.to_string(),
                "validBefore": signed.valid_before.to_string(),
                "nonce": signed.nonce.to_string(),
            },
        },
    })
}

/// A payment as a header's value.
pub fn header(payment: &Value) -> String {
    BASE64_STANDARD.encode(payment.to_string())
}

/// A header's value as JSON.
///
/// # Panics
/// When it is not base64 of JSON.
pub fn decode(header: &str) -> Value {
    serde_json::from_slice(&BASE64_STANDARD.decode(header).expect("base64")).expect("JSON")
}
