//! Two implementations of x402, one wire format.

use alloy_primitives::{U256, address};
use obol_offer::{Amount, Network, Scheme, Terms};
use obol_x402::{PaymentHeaders, Quote, QuoteInfo, Receipt, Version, decode, eip3009, match_payment, wire};
use serde_json::{Value, json};
use x402_chain_eip155::{KnownNetworkEip155, V1Eip155Exact, V2Eip155Exact, v1_eip155_exact, v2_eip155_exact};
use x402_types::{
    networks::USDC,
    proto::{self, v1, v2},
    util::Base64Bytes,
};

const URL: &str = "https://shop.example/services/weather";
const NOW: u64 = 1_800_000_000;

fn terms() -> Terms {
    let network = Network::find("base-sepolia").unwrap();
    let pay_to = address!("209693Bc6afc0C5328bA36FaF03C514EF312287C");
    Terms {
        scheme: Scheme::Exact,
        network,
        asset: network.default_asset(),
        pay_to,
        amount: Amount(U256::from(1_000)),
        max_timeout_seconds: 300,
    }
}

fn quote() -> Quote {
    let info = QuoteInfo {
        description: "Weather".into(),
        mime_type: "application/json".into(),
        service_name: "weather".into(),
        ..QuoteInfo::default()
    };
    Quote::new(vec![terms()], info)
}

#[test]
fn our_challenge_is_theirs_in_both_versions() {
    let challenge = quote().challenge(URL, "payment required");
    let header = Base64Bytes::from(challenge.header.as_bytes()).decode().unwrap();
    let second: v2::PaymentRequired = serde_json::from_slice(&header).unwrap();
    assert_eq!(second.resource.as_ref().unwrap().url, URL);
    let accepted = &second.accepts[0];
    let theirs = V2Eip155Exact::price_tag(terms().pay_to, USDC::base_sepolia().parse("0.001").unwrap()).requirements;
    assert_eq!(accepted.scheme, theirs.scheme);
    assert_eq!(accepted.network, theirs.network);
    assert_eq!(accepted.amount, theirs.amount);
    assert_eq!(accepted.asset, theirs.asset);
    assert_eq!(accepted.pay_to, theirs.pay_to);
    assert_eq!(accepted.max_timeout_seconds, theirs.max_timeout_seconds);
    for name in ["name", "version"] {
        assert_eq!(accepted.extra.as_ref().unwrap()[name], theirs.extra.as_ref().unwrap()[name], "{name}");
    }

    let first: v1::PaymentRequired = serde_json::from_str(&challenge.body).unwrap();
    let theirs = V1Eip155Exact::price_tag(terms().pay_to, USDC::base_sepolia().parse("0.001").unwrap());
    let ours = &first.accepts[0];
    assert_eq!(ours.scheme, theirs.scheme);
    assert_eq!(ours.network, theirs.network);
    assert_eq!(ours.asset, theirs.asset);
    assert_eq!(ours.pay_to, theirs.pay_to);
    assert_eq!(ours.max_amount_required, theirs.amount);
    assert_eq!(ours.max_timeout_seconds, theirs.max_timeout_seconds);
    assert_eq!(ours.resource, URL);
}

fn payment(version: Version) -> (Value, PaymentHeaderOwned) {
    let key = obol_x402_key();
    let signed = eip3009::sign(&key, &terms(), alloy_primitives::B256::repeat_byte(7), 0, NOW + 200);
    let payload = json!({
        "signature": alloy_primitives::hex::encode_prefixed(&signed.signature),
        "authorization": {
            "from": signed.from.to_checksum(None), "to": signed.to.to_checksum(None), "value": signed.value.0.to_string(),
            "validAfter": "0", "validBefore": (NOW + 200).to_string(), "nonce": signed.nonce.to_string(),
        },
    });
    let header = Base64Bytes::from(quote().challenge(URL, "").header.as_bytes()).decode().unwrap();
    let challenge: Value = serde_json::from_slice(&header).unwrap();
    let json = match version {
        Version::V1 => json!({ "x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": payload }),
        Version::V2 => {
            json!({ "x402Version": 2, "accepted": challenge["accepts"][0], "resource": challenge["resource"], "payload": payload })
        }
    };
    let header = Base64Bytes::encode(json.to_string()).to_string();
    (json, PaymentHeaderOwned { version, header })
}

struct PaymentHeaderOwned {
    version: Version,
    header: String,
}

impl PaymentHeaderOwned {
    fn headers(&self) -> PaymentHeaders<'_> {
        let value = vec![self.header.as_bytes()];
        match self.version {
            Version::V1 => PaymentHeaders { v1: value, v2: Vec::new() },
            Version::V2 => PaymentHeaders { v1: Vec::new(), v2: value },
        }
    }
}

fn obol_x402_key() -> secp256k1::SecretKey {
    secp256k1::SecretKey::from_byte_array([1; 32]).unwrap()
}

#[test]
fn what_we_send_to_a_facilitator_is_what_theirs_reads() {
    for version in [Version::V1, Version::V2] {
        let (_, header) = payment(version);
        let payment = decode(&header.headers()).unwrap().unwrap();
        let matched = match_payment(&payment, &quote(), URL, NOW, |_| true).unwrap();
        let request: proto::VerifyRequest = serde_json::from_slice(&matched.facilitator_body).unwrap();
        match version {
            Version::V1 => {
                let read = v1_eip155_exact::types::VerifyRequest::try_from(&request).unwrap();
                assert_eq!(read.payment_payload.payload.authorization.from, matched.authorization.from);
            }
            Version::V2 => {
                let read = v2_eip155_exact::types::FacilitatorVerifyRequest::try_from(request).unwrap();
                assert!(matches!(read, v2_eip155_exact::types::FacilitatorVerifyRequest::Eip3009 { .. }));
            }
        }
    }
}

#[test]
fn their_settlement_is_read_by_us_and_our_receipt_by_them() {
    let payer = "0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1";
    let transaction = "0x1111111111111111111111111111111111111111111111111111111111111111";
    let theirs = v1::SettleResponse::Success { payer: payer.into(), transaction: transaction.into(), network: "base-sepolia".into() };
    let read: wire::SettleResponse = serde_json::from_value(serde_json::to_value(&theirs).unwrap()).unwrap();
    assert!(read.success);
    assert_eq!(read.payer.as_deref(), Some(payer));
    assert_eq!(read.transaction, transaction);

    let receipt = Receipt::new(&read, Network::find("base-sepolia").unwrap());
    for (header, network) in [(receipt.v1, "base-sepolia"), (receipt.v2, "eip155:84532")] {
        let json = Base64Bytes::from(header.as_bytes()).decode().unwrap();
        let v1::SettleResponse::Success { payer: told, transaction: hash, network: at } = serde_json::from_slice(&json).unwrap() else {
            panic!("our receipt is no success to them");
        };
        assert_eq!((told.as_str(), hash.as_str(), at.as_str()), (payer, transaction, network));
    }
}

#[test]
fn their_refusals_are_read_by_us() {
    let theirs = v1::SettleResponse::Error { reason: "insufficient_funds".into(), network: "base-sepolia".into() };
    let read: wire::SettleResponse = serde_json::from_value(serde_json::to_value(&theirs).unwrap()).unwrap();
    assert!(!read.success);
    assert_eq!(read.error_reason.as_deref(), Some("insufficient_funds"));
}
