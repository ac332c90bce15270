//! Payments made by hand, right ones and wrong ones.

use std::ops::Range;

use alloy_primitives::{Address, B256, U256, hex};
use base64::{Engine, prelude::BASE64_STANDARD};
use obol_offer::{Amount, Network, Scheme, Terms};
use obol_x402::{AuthorizationKind, Quote, QuoteInfo, Received, eip3009, signing};
use secp256k1::SecretKey;
use serde_json::Value;

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
    payment_to(key, terms, None, valid_after..valid_before)
}

/// As [`payment`], for terms of any scheme; `facilitator` settles those of `upto`.
///
/// # Panics
/// When such terms have none.
pub fn payment_to(key: &str, terms: &Terms, facilitator: Option<Address>, valid: Range<u64>) -> Value {
    let mut info = QuoteInfo::default();
    facilitator.into_iter().for_each(|address| info.facilitators.add(terms.network, address));
    let challenge = Quote::new(vec![terms.clone()], info).challenge("", "");
    let received = Received::parse(Some(challenge.header.as_bytes()), b"").expect("our own challenge");
    let offered = received.offers.first().expect("one offer");
    let kind = AuthorizationKind::of(terms, facilitator).expect("somebody settles");
    let signed = signing::sign(&secret(key), terms, kind, B256::from(rand::random::<[u8; 32]>()), valid);
    let mut payment = decode(&offered.payment(&signed).1);
    payment.as_object_mut().expect("an object").remove("resource");
    payment
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
