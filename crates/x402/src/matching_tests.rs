use base64::{Engine as _, engine::general_purpose::STANDARD};
use obol_offer::{Address, Network, U256};
use secp256k1::SecretKey;
use serde_json::{Value, json};

use super::*;
use crate::{PaymentHeaders, QuoteInfo, decode, eip3009};

const NOW: u64 = 1_795_431_000;
const URL: &str = "http://127.0.0.1:5031/weather";

fn golden(exchange: &str, part: &str) -> Value {
    let mut all: Value = serde_json::from_str(include_str!("../tests/golden.json")).unwrap();
    all[exchange][part].take()
}

fn payment_v2() -> Value {
    golden("v2_exact_eip3009_paid_200", "payment")
}

fn payment_v1() -> Value {
    golden("v1_exact_paid_200", "payment")
}

fn terms(network: &str, amount: u64) -> Terms {
    let network = Network::find(network).unwrap();
    let pay_to = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse().unwrap();
    Terms { scheme: Scheme::Exact, network, asset: network.default_asset(), pay_to, amount: Amount::from(amount), max_timeout_seconds: 300 }
}

fn quote_of(terms: Vec<Terms>) -> Quote {
    Quote::new(terms, QuoteInfo { description: "Weather".into(), mime_type: "application/json".into(), ..QuoteInfo::default() })
}

fn quote() -> Quote {
    quote_of(vec![terms("base-sepolia", 10_000)])
}

fn decoded(text: &str) -> Payment {
    let value = STANDARD.encode(text);
    // The old name carries either version.
    decode(&PaymentHeaders { v1: vec![value.as_bytes()], v2: vec![] }).unwrap().unwrap()
}

fn matched_at(payment: &Value, quote: &Quote, now: u64) -> Result<MatchedPayment, Mismatch> {
    match_payment(&decoded(&payment.to_string()), quote, URL, now, |_| true)
}

fn matched(payment: &Value, quote: &Quote) -> Result<MatchedPayment, Mismatch> {
    matched_at(payment, quote, NOW)
}

fn body(matched: &MatchedPayment) -> Value {
    serde_json::from_slice(&matched.facilitator_body).unwrap()
}

#[test]
fn recorded_payments_are_signed_by_their_payer() {
    for payment in [payment_v2(), payment_v1()] {
        let matched = matched(&payment, &quote()).unwrap();
        assert_eq!(matched.local_check, LocalCheck::SignedByPayer);
        let payer = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".parse::<Address>().unwrap();
        assert_eq!(eip3009::recover(&matched.terms, &matched.authorization), Some(payer));
        assert_eq!(matched.replay_key().payer, payer);
        assert_eq!(matched.replay_key().chain_id, 84532);
    }
}

/// What real facilitators were sent for these payments, they are sent by us too.
#[test]
fn facilitator_bodies_equal_the_recorded_ones() {
    let v2 = matched(&payment_v2(), &quote()).unwrap();
    assert_eq!(body(&v2), golden("facilitator_v2_settle", "request"));
    assert!(String::from_utf8(v2.facilitator_body).unwrap().contains(&payment_v2().to_string()), "the buyer's bytes are kept");

    let mut recorded = golden("facilitator_v1_settle", "request");
    recorded["paymentRequirements"].as_object_mut().unwrap().remove("outputSchema");
    let mut short_lived = terms("base-sepolia", 10_000);
    short_lived.max_timeout_seconds = 60;
    assert_eq!(body(&matched(&payment_v1(), &quote_of(vec![short_lived])).unwrap()), recorded);
}

#[test]
fn requirements_for_the_facilitator_are_the_advertised_ones() {
    let quote = quote_of(vec![terms("base", 1), terms("base-sepolia", 10_000)]);
    let challenge = STANDARD.decode(quote.challenge(URL, "").header).unwrap();
    let challenge: Value = serde_json::from_slice(&challenge).unwrap();
    assert_eq!(body(&matched(&payment_v2(), &quote).unwrap())["paymentRequirements"], challenge["accepts"][1]);
    let challenge: Value = serde_json::from_str(&quote.challenge(URL, "").body).unwrap();
    assert_eq!(body(&matched(&payment_v1(), &quote).unwrap())["paymentRequirements"], challenge["accepts"][1]);
}

#[test]
fn spelling_is_normalised_and_all_else_kept() {
    let mut payment = payment_v2();
    let lower = |value: &mut Value| *value = value.as_str().unwrap().to_lowercase().into();
    for field in ["/payload/authorization/from", "/payload/authorization/to", "/accepted/asset", "/accepted/payTo"] {
        lower(payment.pointer_mut(field).unwrap());
    }
    payment["accepted"]["network"] = "base-sepolia".into();
    let signature = payment["payload"]["signature"].as_str().unwrap().strip_suffix("1c").unwrap().to_owned();
    payment["payload"]["signature"] = format!("{signature}01").into();
    payment["note"] = json!({"unknown": [1.0, null]});
    // White space, key order and number spelling are the buyer's.
    let text = payment.to_string().replacen("1.0", "1.00e0", 1).replacen("{", "{ \n", 1);
    let matched = match_payment(&decoded(&text), &quote(), URL, NOW, |_| true).unwrap();
    assert_eq!(matched.local_check, LocalCheck::SignedByPayer);
    assert_eq!(matched.authorization.signature.last(), Some(&28));
    let sent = String::from_utf8(matched.facilitator_body.clone()).unwrap();
    assert!(sent.contains("1.00e0") && sent.contains("{ \n"), "{sent}");
    let mut expected = payment_v2();
    expected["note"] = json!({"unknown": [1.0, null]});
    assert_eq!(body(&matched)["paymentPayload"], expected);
}

#[test]
fn a_smart_wallets_signature_is_passed_on_untouched() {
    for signature in [format!("0x{}", "ab".repeat(300)), format!("0x{}01", "11".repeat(64)), "0x".to_owned()] {
        let mut payment = payment_v2();
        payment["payload"]["signature"] = signature.clone().into();
        let matched = matched(&payment, &quote()).unwrap();
        assert_eq!(matched.local_check, LocalCheck::Undecided);
        assert_eq!(body(&matched)["paymentPayload"]["payload"]["signature"], signature);
    }
}

/// OpenZeppelin and USDC refuse the mirrored signature, so we may not take it for the payer's.
#[test]
fn a_high_s_is_undecided() {
    let order = U256::from_be_slice(&hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap());
    let mut payment = payment_v2();
    let mut signature = hex::decode(payment["payload"]["signature"].as_str().unwrap()).unwrap();
    let mirrored = order - U256::from_be_slice(&signature[32..64]);
    signature[32..64].copy_from_slice(&mirrored.to_be_bytes::<32>());
    signature[64] = 27 + 28 - signature[64];
    payment["payload"]["signature"] = hex::encode_prefixed(signature).into();
    assert_eq!(matched(&payment, &quote()).unwrap().local_check, LocalCheck::Undecided);
}

#[test]
fn other_terms_are_not_ours() {
    for (field, value) in [
        ("scheme", "upto"),
        ("network", "eip155:8453"),
        ("network", "solana:mainnet"),
        ("amount", "9999"),
        ("amount", "ten"),
        ("asset", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"),
        ("payTo", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
        ("payTo", "merchant"),
    ] {
        let mut payment = payment_v2();
        payment["accepted"][field] = value.into();
        assert_eq!(matched(&payment, &quote()).unwrap_err(), Mismatch::NoSuchTerms, "{field} {value}");
    }
    for (field, value) in [("scheme", "upto"), ("network", "base"), ("network", "eip155:84532")] {
        let mut payment = payment_v1();
        payment[field] = value.into();
        assert_eq!(matched(&payment, &quote()).unwrap_err(), Mismatch::NoSuchTerms, "{field} {value}");
    }
    assert_eq!(matched(&payment_v2(), &quote_of(vec![])).unwrap_err(), Mismatch::NoSuchTerms);
}

#[test]
fn the_echoed_extra_may_be_more_than_ours_or_absent_but_not_other() {
    for (extra, fits) in [
        (json!({"name": "USDC", "version": "2", "more": {"a": 1}}), true),
        (json!(null), true),
        (json!({"name": "USD Coin", "version": "2"}), false),
        (json!({"version": "2"}), false),
    ] {
        let mut payment = payment_v2();
        payment["accepted"]["extra"] = extra.clone();
        assert_eq!(matched(&payment, &quote()).is_ok(), fits, "{extra}");
    }
}

#[test]
fn an_authorization_over_something_else_is_refused() {
    for (field, value) in [
        ("value", "9999"),
        ("value", "10001"),
        ("value", "115792089237316195423570985008687907853269984665640564039457584007913129639935"),
        ("to", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
    ] {
        for mut payment in [payment_v2(), payment_v1()] {
            payment["payload"]["authorization"][field] = value.into();
            assert_eq!(matched(&payment, &quote()).unwrap_err(), Mismatch::Authorization(field));
        }
    }
}

#[test]
fn other_transfer_methods_are_refused_alone_or_beside() {
    let permit2 = golden("v2_exact_permit2_paid_200", "payment");
    assert_eq!(matched(&permit2, &quote()).unwrap_err(), Mismatch::NoSuchTerms);
    let mut payment = payment_v2();
    payment["payload"] = permit2["payload"].clone();
    assert_eq!(matched(&payment, &quote()).unwrap_err(), Mismatch::Authorization("assetTransferMethod"));
    let mut payment = payment_v2();
    payment["payload"]["permit2Authorization"] = permit2["payload"]["permit2Authorization"].clone();
    assert_eq!(matched(&payment, &quote()).unwrap_err(), Mismatch::Authorization("payload"));
}

#[test]
fn the_time_window_holds_at_its_edges() {
    let (after, before) = (1_795_430_927, 1_795_431_587);
    for (now, expected) in [
        (after - 1, Err(Mismatch::NotYetValid)),
        (after, Ok(())),
        (before - MIN_VALIDITY_LEFT, Ok(())),
        (before - MIN_VALIDITY_LEFT + 1, Err(Mismatch::Expired)),
        (before + 1, Err(Mismatch::Expired)),
        (u64::MAX, Err(Mismatch::Expired)),
    ] {
        assert_eq!(matched_at(&payment_v1(), &quote(), now).map(|_| ()), expected, "{now}");
    }
    for far in [NOW + MAX_VALIDITY + 1, u64::MAX] {
        let mut payment = payment_v2();
        payment["payload"]["authorization"]["validBefore"] = far.to_string().into();
        assert_eq!(matched(&payment, &quote()).unwrap_err(), Mismatch::Authorization("validBefore"));
    }
}

#[test]
fn the_named_resource_is_asked_for() {
    let ask = |payment: &Value, ours: bool| {
        let asked = std::cell::RefCell::new(Vec::new());
        let result = match_payment(&decoded(&payment.to_string()), &quote(), URL, NOW, |url| {
            asked.borrow_mut().push(url.to_owned());
            ours
        });
        (result.map(|_| ()), asked.into_inner())
    };
    let named = vec!["http://127.0.0.1:5021/weather".to_owned()];
    assert_eq!(ask(&payment_v2(), true), (Ok(()), named.clone()));
    assert_eq!(ask(&payment_v2(), false), (Err(Mismatch::OtherResource), named));
    let mut nameless = payment_v2();
    for absent in [json!(null), json!({"description": "x"}), json!({"url": ""})] {
        nameless["resource"] = absent;
        assert_eq!(ask(&nameless, false), (Ok(()), vec![]));
    }
    assert_eq!(ask(&payment_v1(), false), (Ok(()), vec![]), "v1 names none");
}

/// v1 does not say which of several terms on a network is meant; the signature does.
#[test]
fn v1_terms_on_one_network_are_told_apart_by_what_was_signed() {
    let quote = quote_of(vec![terms("base-sepolia", 5), terms("base-sepolia", 10_000), terms("base", 10_000)]);
    assert_eq!(matched(&payment_v1(), &quote).unwrap().terms, terms("base-sepolia", 10_000));
    let mut other_token = terms("base-sepolia", 10_000);
    other_token.asset.address = Address::repeat_byte(1);
    let quote = quote_of(vec![other_token, terms("base-sepolia", 10_000)]);
    let matched = matched(&payment_v1(), &quote).unwrap();
    assert_eq!((matched.terms, matched.local_check), (terms("base-sepolia", 10_000), LocalCheck::SignedByPayer));
}

#[test]
fn the_same_payload_has_the_same_digest_and_another_another() {
    let one = matched(&payment_v2(), &quote()).unwrap();
    assert_eq!(one.payload_digest, matched(&payment_v2(), &quote()).unwrap().payload_digest);
    assert_ne!(one.payload_digest, matched(&payment_v1(), &quote()).unwrap().payload_digest);
}

proptest::proptest! {
    #[test]
    fn what_is_signed_is_recovered(key in 1_u8..255, amount: u64, nonce: [u8; 32], after: u64, before: u64) {
        let key = SecretKey::from_byte_array([key; 32]).unwrap();
        let terms = terms("base", amount);
        let signed = eip3009::sign(&key, &terms, nonce.into(), after, before);
        assert_eq!(eip3009::recover(&terms, &signed), Some(eip3009::address_of(&key)));
    }

    /// No byte of what was signed, nor of the signature, can change and still count as the payer's.
    #[test]
    fn tampering_is_never_taken_for_the_payers(field in 0..8_usize, byte in 0_usize..1000, bit in 0_u8..8) {
        let flip = |bytes: &mut [u8]| { let at = byte % bytes.len(); bytes[at] ^= 1 << bit; };
        let flip_hex = |value: &mut Value| {
            let mut bytes = hex::decode(value.as_str().unwrap()).unwrap();
            flip(&mut bytes);
            *value = hex::encode_prefixed(bytes).into();
        };
        let flip_number = |value: &mut Value| {
            let number: u64 = value.as_str().unwrap().parse().unwrap();
            *value = (number ^ (1 << (byte % 30))).to_string().into();
        };
        let mut payment = payment_v2();
        match field {
            0 => flip_hex(&mut payment["payload"]["signature"]),
            1 => flip_hex(&mut payment["payload"]["authorization"]["nonce"]),
            2 => flip_hex(&mut payment["payload"]["authorization"]["from"]),
            3 => flip_hex(&mut payment["payload"]["authorization"]["to"]),
            4 => flip_hex(&mut payment["accepted"]["payTo"]),
            5 => flip_number(&mut payment["payload"]["authorization"]["value"]),
            6 => flip_number(&mut payment["payload"]["authorization"]["validAfter"]),
            _ => flip_number(&mut payment["payload"]["authorization"]["validBefore"]),
        }
        if let Ok(matched) = matched(&payment, &quote()) {
            // Flipping `v` by 27 is a spelling, not a change.
            let spelling = field == 0 && matched.authorization.signature == hex::decode(payment_v2()["payload"]["signature"].as_str().unwrap()).unwrap();
            assert!(matched.local_check == LocalCheck::Undecided || spelling, "{payment}");
        }
    }
}
