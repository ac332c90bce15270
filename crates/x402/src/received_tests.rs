use obol_offer::B256;
use secp256k1::SecretKey;

use super::*;
use crate::{LocalCheck, PaymentHeaders, Quote, QuoteInfo, decode, eip3009, match_payment};

fn golden() -> Value {
    serde_json::from_str(include_str!("../tests/golden.json")).unwrap()
}

fn header(challenge: &Value) -> String {
    STANDARD.encode(challenge.to_string())
}

#[test]
fn recorded_challenges_are_read() {
    let golden = golden();
    let v2 = Received::parse(Some(header(&golden["v2_bazaar_4_accepts_402"]["challenge"]).as_bytes()), b"{}").unwrap();
    assert_eq!((v2.version, v2.offers.len(), v2.error.as_deref()), (Version::V2, 4, Some("Payment required")));
    assert_eq!(v2.offers[2].terms().unwrap().amount, Amount::from(30_000));
    let in_body = Received::parse(None, golden["v2_exact_eip3009_unpaid_402"]["challenge"].to_string().as_bytes()).unwrap();
    assert_eq!((in_body.version, in_body.offers.len()), (Version::V2, 1));
    let v1 = Received::parse(None, golden["v1_exact_unpaid_402"]["body"].to_string().as_bytes()).unwrap();
    let terms = v1.offers[0].terms().unwrap();
    assert_eq!((terms.network.chain_id, terms.amount, terms.max_timeout_seconds), (84532, Amount::from(10_000), 60));
}

/// Our buyer pays our seller, in both versions, and what must be repeated is.
#[test]
fn a_payment_for_a_challenge_matches_it() {
    let golden = golden();
    let offered = Received::parse(Some(header(&golden["v2_bazaar_4_accepts_402"]["challenge"]).as_bytes()), b"").unwrap();
    let terms = offered.offers[1].terms().unwrap();
    let quote = Quote::new(vec![terms.clone()], QuoteInfo::default());
    let challenge = quote.challenge("https://a.example/x", "");
    let key = SecretKey::from_byte_array([7; 32]).unwrap();
    let authorization = eip3009::sign(&key, &terms, B256::repeat_byte(1), 0, 1_000_000);
    let v1 = Received::parse(None, challenge.body.as_bytes()).unwrap();
    for (offer, expected) in [(&offered.offers[1], PAYMENT_SIGNATURE), (&v1.offers[0], X_PAYMENT)] {
        let (name, value) = offer.payment(&authorization);
        assert_eq!(name, expected);
        let headers = match offer.version {
            Version::V1 => PaymentHeaders { v1: vec![value.as_bytes()], v2: vec![] },
            Version::V2 => PaymentHeaders { v2: vec![value.as_bytes()], v1: vec![] },
        };
        let payment = decode(&headers).unwrap().unwrap();
        let matched = match_payment(&payment, &quote, "https://a.example/x", 999_000, |_| true).unwrap();
        assert_eq!(matched.local_check, LocalCheck::SignedByPayer);
        assert_eq!(matched.authorization, authorization);
        if offer.version == Version::V2 {
            let sent: Value = serde_json::from_str(payment.raw.get()).unwrap();
            let challenge = &golden["v2_bazaar_4_accepts_402"]["challenge"];
            assert_eq!(sent["extensions"], challenge["extensions"]);
            assert_eq!(sent["resource"], challenge["resource"]);
            assert_eq!(sent["accepted"], challenge["accepts"][1]);
        }
    }
}

#[test]
fn what_cannot_be_paid_says_why() {
    let challenge = &golden()["v2_exact_eip3009_unpaid_402"]["challenge"];
    for (field, value, why) in [
        ("scheme", "deferred", "scheme"),
        ("network", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "network"),
        ("asset", "0x0000000000000000000000000000000000000001", "token"),
        ("payTo", "merchant", "payee"),
    ] {
        let mut challenge = challenge.clone();
        challenge["accepts"][0][field] = value.into();
        let received = Received::parse(Some(header(&challenge).as_bytes()), b"").unwrap();
        let error = received.offers[0].terms().unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(value), "{error}");
    }
    let first = |challenge: &Value| Received::parse(Some(header(challenge).as_bytes()), b"").unwrap().offers[0].terms();
    let mut other = challenge.clone();
    other["accepts"][0]["extra"]["assetTransferMethod"] = "erc7710".into();
    assert_eq!(first(&other), Err(NotPayable::TransferMethod("erc7710".into())));
    let mut upto = golden()["v2_upto_unpaid_402"]["challenge"].clone();
    assert!(first(&upto).is_ok());
    for nobody in [serde_json::json!(null), "0x12".into(), "0x0000000000000000000000000000000000000000".into()] {
        upto["accepts"][0]["extra"]["facilitatorAddress"] = nobody;
        assert_eq!(first(&upto), Err(NotPayable::Facilitator));
    }
    // v1 knows neither.
    let mut v1 = golden()["v1_exact_unpaid_402"]["body"].clone();
    v1["accepts"][0]["scheme"] = "upto".into();
    let received = Received::parse(None, v1.to_string().as_bytes()).unwrap();
    assert_eq!(received.offers[0].terms(), Err(NotPayable::Scheme("upto".into())));
    v1["accepts"][0]["scheme"] = "exact".into();
    v1["accepts"][0]["extra"]["assetTransferMethod"] = "permit2".into();
    let received = Received::parse(None, v1.to_string().as_bytes()).unwrap();
    assert_eq!(received.offers[0].terms(), Err(NotPayable::TransferMethod("permit2".into())));
}

#[test]
fn a_sellers_signing_domain_is_not_believed() {
    let mut challenge = golden()["v2_exact_eip3009_unpaid_402"]["challenge"].clone();
    challenge["accepts"][0]["extra"]["name"] = "Something Else".into();
    let received = Received::parse(Some(header(&challenge).as_bytes()), b"").unwrap();
    assert_eq!(received.offers[0].terms().unwrap().asset.domain_name, "USDC");
}

#[test]
fn an_entry_of_unknown_shape_hides_no_other() {
    let mut challenge = golden()["v2_exact_eip3009_unpaid_402"]["challenge"].clone();
    challenge["accepts"].as_array_mut().unwrap().insert(0, serde_json::json!({"scheme": "new", "price": 1}));
    assert_eq!(Received::parse(Some(header(&challenge).as_bytes()), b"").unwrap().offers.len(), 1);
}

#[test]
fn what_is_no_challenge_is_an_error() {
    assert_eq!(Received::parse(None, b"<html>").unwrap_err(), ReceivedError::NoTerms);
    assert_eq!(Received::parse(Some(b"!"), b"").unwrap_err(), ReceivedError::Header);
    assert_eq!(Received::parse(Some(&[b'A'; 70_000]), b"").unwrap_err(), ReceivedError::Header);
    assert!(matches!(Received::parse(Some(b"e30="), b""), Err(ReceivedError::Malformed(_))));
    let v1_in_header = header(&golden()["v1_exact_unpaid_402"]["body"]);
    assert!(matches!(Received::parse(Some(v1_in_header.as_bytes()), b""), Err(ReceivedError::Malformed(_))));
}
