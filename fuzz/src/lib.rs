//! What each fuzz target checks: that hostile bytes never panic, hang or grow without bound, and
//! a property that holds for every input. One module per target, named like it.
//!
//! Inputs are raw bytes with as little structure as possible, so that seeds can be written by hand.
#![allow(missing_docs)]

pub mod challenge;
pub mod facilitator;
pub mod framing;
pub mod inference;
pub mod journal;
pub mod offer_edit;
pub mod offer_file;
pub mod path;
pub mod payment;
pub mod price;
pub mod receipt;
pub mod rpc;
pub mod signature;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use obol_offer::{Asset, B256, Network, Scheme, Terms, TransferMethod};
use obol_x402::{MatchedPayment, Payment, PaymentHeaders, Quote, QuoteInfo, decode, eip3009, match_payment};
use secp256k1::SecretKey;
use serde_json::json;

/// Every target by its name, which is also its folder in `corpus/`.
pub const TARGETS: [(&str, fn(&[u8])); 13] = [
    ("challenge", challenge::target),
    ("facilitator", facilitator::target),
    ("framing", framing::target),
    ("inference", inference::target),
    ("journal", journal::target),
    ("offer_edit", offer_edit::target),
    ("offer_file", offer_file::target),
    ("path", path::target),
    ("payment", payment::target),
    ("price", price::target),
    ("receipt", receipt::target),
    ("rpc", rpc::target),
    ("signature", signature::target),
];

/// When everything happens (Unix seconds).
pub const NOW: u64 = 1_800_000_000;
/// What buyers of the seeds were asked for.
pub const URL: &str = "https://shop.example/services/weather";
/// Who is paid in the seeds.
pub const PAYEE: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

/// Who settles what is metered.
pub const FACILITATOR: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

/// Terms of the seeds: 10000 atomic units of USDC on a network.
pub fn terms(network: &str) -> Terms {
    let network = Network::find(network).expect("a built-in network");
    let pay_to = PAYEE.parse().expect("an address");
    Terms { scheme: Scheme::Exact, network, asset: network.default_asset(), pay_to, amount: 10_000.into(), max_timeout_seconds: 300 }
}

/// The quote of the seeds: on two networks, by ERC-3009 and by Permit2, and metered.
pub fn quote() -> Quote {
    let plain = terms("base-sepolia");
    let permit2 = Terms { asset: Asset { transfer_method: TransferMethod::Permit2, ..plain.asset.clone() }, ..plain.clone() };
    let upto = Terms { scheme: Scheme::Upto, ..plain.clone() };
    let mut info = QuoteInfo::default();
    info.facilitators.add(plain.network, FACILITATOR.parse().expect("an address"));
    Quote::new(vec![plain, terms("base"), permit2, upto], info)
}

/// Decodes one payment header.
pub fn one(v2: bool, header: &[u8]) -> Option<Payment> {
    let (v1, v2) = if v2 { (vec![], vec![header]) } else { (vec![header], vec![]) };
    decode(&PaymentHeaders { v2, v1 }).ok().flatten()
}

/// A signed payment of the seeds as JSON, in either version.
pub fn payment_json(v2: bool) -> String {
    let terms = terms("base-sepolia");
    let key = SecretKey::from_byte_array([7; 32]).expect("a key");
    let signed = eip3009::sign(&key, &terms, B256::repeat_byte(9), 0, NOW + 300);
    let hex: String = signed.signature.iter().map(|byte| format!("{byte:02x}")).collect();
    let payload = json!({
        "signature": format!("0x{hex}"),
        "authorization": {
            "from": signed.from.to_string(), "to": signed.to.to_string(), "value": signed.value, "validAfter": "0",
            "validBefore": signed.valid_before.to_string(), "nonce": signed.nonce.to_string(),
        },
    });
    if !v2 {
        return json!({ "x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": payload }).to_string();
    }
    let accepted = json!({
        "scheme": "exact", "network": terms.network.caip2(), "amount": terms.amount, "asset": terms.asset.address.to_string(),
        "payTo": terms.pay_to.to_string(), "maxTimeoutSeconds": terms.max_timeout_seconds,
        "extra": { "name": terms.asset.domain_name, "version": terms.asset.domain_version },
    });
    json!({ "x402Version": 2, "resource": { "url": URL }, "accepted": accepted, "payload": payload, "extensions": {} }).to_string()
}

/// A payment of the seeds, matched.
pub fn matched() -> MatchedPayment {
    let payment = one(true, STANDARD.encode(payment_json(true)).as_bytes()).expect("a payment");
    match_payment(&payment, &quote(), URL, NOW, |_| true).expect("it matches")
}
