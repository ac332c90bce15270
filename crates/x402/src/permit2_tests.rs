//! Payments by Permit2, `exact` and `upto`: the recorded ones, and what is not one of ours.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use obol_offer::{Address, B256, Network, TransferMethod, U256};
use proptest::prelude::*;
use secp256k1::SecretKey;
use serde_json::{Value, json};

use super::*;
use crate::{DecodeError, PaymentHeaders, QuoteInfo, Receipt, Received, decode, permit2::PERMIT2, signing};

const NOW: u64 = 1_795_431_600;
const URL: &str = "http://127.0.0.1:5021/meter";
const FACILITATOR: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
const PERMIT: &str = "/payload/permit2Authorization";

fn golden(exchange: &str, part: &str) -> Value {
    let mut all: Value = serde_json::from_str(include_str!("../tests/golden.json")).unwrap();
    all[exchange][part].take()
}

fn exact() -> Value {
    golden("v2_exact_permit2_paid_200", "payment")
}

fn upto() -> Value {
    golden("v2_upto_paid_200_settled_1858_of_100000", "payment")
}

fn terms(scheme: Scheme) -> Terms {
    let network = Network::find("base-sepolia").unwrap();
    let pay_to = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse().unwrap();
    let (mut asset, amount) = (network.default_asset(), if scheme == Scheme::Upto { 100_000 } else { 10_000 });
    if scheme == Scheme::Exact {
        asset.transfer_method = TransferMethod::Permit2;
        asset.address = "0x5FbDB2315678afecb367f032d93F642f64180aa3".parse().unwrap();
    }
    Terms { scheme, network, asset, pay_to, amount: Amount::from(amount), max_timeout_seconds: 300 }
}

fn info() -> QuoteInfo {
    let mut info = QuoteInfo { description: "metered".into(), ..QuoteInfo::default() };
    info.facilitators.add(Network::find("base-sepolia").unwrap(), FACILITATOR.parse().unwrap());
    info
}

fn quote() -> Quote {
    Quote::new(vec![terms(Scheme::Upto), terms(Scheme::Exact)], info())
}

fn decoded(payment: &Value) -> Result<Payment, DecodeError> {
    let value = STANDARD.encode(payment.to_string());
    decode(&PaymentHeaders { v2: vec![value.as_bytes()], v1: vec![] }).map(Option::unwrap)
}

fn matched(payment: &Value) -> Result<MatchedPayment, Mismatch> {
    match_payment(&decoded(payment).unwrap(), &quote(), URL, NOW, |_| true)
}

fn body(matched: &MatchedPayment) -> Value {
    serde_json::from_slice(&matched.facilitator_body).unwrap()
}

#[test]
fn recorded_payments_are_signed_by_their_payer() {
    let payer: Address = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".parse().unwrap();
    let facilitator = FACILITATOR.parse().unwrap();
    for (payment, kind) in [(exact(), AuthorizationKind::Permit2), (upto(), AuthorizationKind::Upto { facilitator })] {
        let decoded = decoded(&payment).unwrap();
        let matched = matched(&payment).unwrap();
        assert_eq!((matched.local_check, matched.authorization.kind), (LocalCheck::SignedByPayer, kind));
        let key = matched.replay_key();
        let nonce: U256 = payment["payload"]["permit2Authorization"]["nonce"].as_str().unwrap().parse().unwrap();
        assert_eq!((key.contract, key.payer, key.nonce), (PERMIT2, payer, B256::from(nonce)), "the nonce is Permit2's");
        assert_eq!(decoded.replay_keys(&quote()), [key]);
        let deadline: u64 = payment["payload"]["permit2Authorization"]["deadline"].as_str().unwrap().parse().unwrap();
        assert_eq!((matched.authorization.deadline(), matched.authorization.valid_before), (deadline, deadline + 1));
    }
}

/// The challenge that the reference server makes of such terms is ours too.
#[test]
fn the_recorded_upto_challenge_is_ours() {
    let recorded = golden("v2_upto_unpaid_402", "challenge");
    let challenge = Quote::new(vec![terms(Scheme::Upto)], info()).challenge(URL, "Payment required");
    let ours: Value = serde_json::from_slice(&STANDARD.decode(&challenge.header).unwrap()).unwrap();
    assert_eq!(ours["accepts"], recorded["accepts"]);
    assert_eq!(serde_json::from_str::<Value>(&challenge.body).unwrap()["accepts"], json!([]), "v1 knows no upto");
}

#[test]
fn upto_is_left_out_while_nobody_is_known_who_settles() {
    let unknown = Quote::new(vec![terms(Scheme::Upto), terms(Scheme::Exact)], QuoteInfo::default());
    assert_eq!(unknown.terms(), [terms(Scheme::Exact)]);
    let decoded = decoded(&upto()).unwrap();
    assert_eq!(match_payment(&decoded, &unknown, URL, NOW, |_| true).unwrap_err(), Mismatch::NoSuchTerms);
    assert!(!unknown.asks_for_the_same(&quote()) && quote().asks_for_the_same(&quote()));
}

/// What a real facilitator was sent at verify and at settle, it is sent by us too.
#[test]
fn facilitator_bodies_equal_the_recorded_ones() {
    let payment = golden("facilitator_v2_upto_verify", "request")["paymentPayload"].take();
    let verify = matched(&payment).unwrap();
    assert_eq!(body(&verify), golden("facilitator_v2_upto_verify", "request"));
    assert_eq!(verify.charge, Amount::from(100_000));
    let text = String::from_utf8(verify.facilitator_body.clone()).unwrap();
    let settle = verify.charging(Amount::from(1858)).unwrap();
    assert_eq!(body(&settle), golden("facilitator_v2_upto_settle", "request"));
    assert_eq!(settle.charge, Amount::from(1858));
    let changed = String::from_utf8(settle.facilitator_body).unwrap();
    assert_eq!(
        changed,
        text.replace(
            r#""paymentRequirements":{"scheme":"upto","network":"eip155:84532","amount":"100000""#,
            r#""paymentRequirements":{"scheme":"upto","network":"eip155:84532","amount":"1858""#
        ),
        "one number is another"
    );
}

#[test]
fn a_charge_is_at_most_the_ceiling_and_an_exact_payment_has_one_price() {
    let (exact, upto) = (matched(&exact()).unwrap(), matched(&upto()).unwrap());
    let above = upto.clone().charging(Amount::from(100_001)).unwrap_err();
    assert_eq!(above, ChargeError::AboveCeiling { charge: Amount::from(100_001), ceiling: Amount::from(100_000) });
    assert!(exact.clone().charging(Amount::from(9_999)).is_err() && exact.charging(Amount::from(10_000)).is_ok());
    let twice = upto.charging(Amount::from(5)).unwrap().charging(Amount::ZERO).unwrap();
    assert_eq!(body(&twice)["paymentRequirements"]["amount"], "0");
}

/// The buyer's text may hold what stands before our requirements; only ours are changed.
#[test]
fn hostile_text_in_a_payload_is_not_taken_for_our_requirements() {
    let mut payment = upto();
    payment["note"] = json!(["\",\"paymentRequirements\":{\"amount\":\"100000\"}}"]);
    payment["more"] = json!({"paymentRequirements": {"amount": "100000"}, "z": 1});
    payment["extensions"] = json!({"a": 1, "paymentRequirements": {"amount": "7"}});
    let changed = matched(&payment).unwrap().charging(Amount::from(3)).unwrap();
    assert_eq!(body(&changed)["paymentRequirements"]["amount"], "3");
    assert_eq!(body(&changed)["paymentPayload"], payment);
}

#[test]
fn every_signed_field_that_differs_is_named() {
    let other = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
    for (pointer, value, named) in [
        ("/permitted/token", other, "permitted.token"),
        ("/permitted/amount", "9999", "value"),
        ("/permitted/amount", "100001", "value"),
        ("/spender", other, "spender"),
        ("/witness/to", other, "to"),
    ] {
        for mut payment in [exact(), upto()] {
            *payment.pointer_mut(&format!("{PERMIT}{pointer}")).unwrap() = value.into();
            assert_eq!(matched(&payment).unwrap_err(), Mismatch::Authorization(named), "{pointer} {value}");
        }
    }
    let mut payment = upto();
    payment["payload"]["permit2Authorization"]["witness"]["facilitator"] = other.into();
    assert_eq!(matched(&payment).unwrap_err(), Mismatch::Authorization("witness.facilitator"));
    let mut payment = exact();
    payment["payload"]["permit2Authorization"]["witness"]["facilitator"] = FACILITATOR.into();
    assert_eq!(matched(&payment).unwrap_err(), Mismatch::Authorization("witness.facilitator"), "exact names none");
    let mut payment = upto();
    payment["payload"]["permit2Authorization"]["witness"].as_object_mut().unwrap().remove("facilitator");
    assert_eq!(matched(&payment).unwrap_err(), Mismatch::Authorization("witness.facilitator"));
    let mut payment = upto();
    payment["payload"]["permit2Authorization"]["spender"] = "0x402085c248EeA27D92E8b30b2C58ed07f9E20001".into();
    assert_eq!(matched(&payment).unwrap_err(), Mismatch::Authorization("spender"), "the proxy of exact moves all of it");
}

#[test]
fn hostile_payloads_with_two_authorizations_are_refused() {
    let eip3009 = golden("v2_exact_eip3009_paid_200", "payment");
    for mut payment in [exact(), upto()] {
        payment["payload"]["authorization"] = eip3009["payload"]["authorization"].clone();
        assert!(matched(&payment).is_err());
        payment["payload"].as_object_mut().unwrap().remove("authorization");
        payment["payload"]["permissionContext"] = "0x".into();
        assert_eq!(matched(&payment).unwrap_err(), Mismatch::Authorization("payload"));
    }
}

#[test]
fn the_offered_facilitator_and_method_must_be_echoed() {
    for (field, value) in [("facilitatorAddress", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"), ("assetTransferMethod", "eip3009")] {
        let mut payment = upto();
        payment["accepted"]["extra"][field] = value.into();
        assert_eq!(matched(&payment).unwrap_err(), Mismatch::NoSuchTerms, "{field}");
    }
    let mut payment = upto();
    payment["accepted"]["scheme"] = "exact".into();
    assert_eq!(matched(&payment).unwrap_err(), Mismatch::NoSuchTerms);
    // A word for Permit2 beside terms of ERC-3009 contradicts them.
    let eip3009 = Terms { asset: Network::find("base-sepolia").unwrap().default_asset(), ..terms(Scheme::Exact) };
    let quote = Quote::new(vec![eip3009], QuoteInfo::default());
    let mut payment = golden("v2_exact_eip3009_paid_200", "payment");
    payment["accepted"]["extra"]["assetTransferMethod"] = "permit2".into();
    assert_eq!(match_payment(&decoded(&payment).unwrap(), &quote, URL, NOW, |_| true).unwrap_err(), Mismatch::NoSuchTerms);
    payment["accepted"]["extra"]["assetTransferMethod"] = "eip3009".into();
    assert!(match_payment(&decoded(&payment).unwrap(), &quote, URL, NOW - 600, |_| true).is_ok());
}

#[test]
fn fields_of_a_wrong_shape_are_named() {
    for (pointer, bad, named) in [
        ("/nonce", json!("0x01"), "permit2Authorization.nonce"),
        ("/nonce", json!("-1"), "permit2Authorization.nonce"),
        ("/nonce", json!("9".repeat(79)), "permit2Authorization.nonce"),
        ("/deadline", json!(u64::MAX.to_string()), "permit2Authorization.deadline"),
        ("/deadline", json!("+1"), "permit2Authorization.deadline"),
        ("/permitted/token", json!("0x12"), "permit2Authorization.permitted.token"),
        ("/permitted/amount", json!("1e3"), "permit2Authorization.permitted.amount"),
        ("/spender", json!(7), "permit2Authorization.spender"),
        ("/witness/to", json!("merchant"), "permit2Authorization.witness.to"),
        ("/witness/facilitator", json!("0x0"), "permit2Authorization.witness.facilitator"),
        ("/witness/validAfter", json!(""), "permit2Authorization.witness.validAfter"),
    ] {
        let mut payment = upto();
        *payment.pointer_mut(&format!("{PERMIT}{pointer}")).unwrap() = bad;
        let error = decoded(&payment).unwrap_err().to_string();
        assert!(error.contains(named), "{pointer}: {error}");
    }
}

#[test]
fn the_time_window_is_that_of_permit2() {
    let payment = upto();
    let deadline: u64 = payment["payload"]["permit2Authorization"]["deadline"].as_str().unwrap().parse().unwrap();
    let at = |now| match_payment(&decoded(&payment).unwrap(), &quote(), URL, now, |_| true).map(|_| ());
    assert_eq!(at(deadline + 1 - MIN_VALIDITY_LEFT), Ok(()));
    assert_eq!(at(deadline + 2 - MIN_VALIDITY_LEFT), Err(Mismatch::Expired));
    let mut early = upto();
    early["payload"]["permit2Authorization"]["witness"]["validAfter"] = (NOW + 1).to_string().into();
    assert_eq!(matched(&early).unwrap_err(), Mismatch::NotYetValid);
}

#[test]
fn spelling_is_normalised_and_all_else_kept() {
    let mut payment = upto();
    for field in ["from", "permitted/token", "spender", "witness/to", "witness/facilitator"] {
        let value = payment.pointer_mut(&format!("{PERMIT}/{field}")).unwrap();
        *value = value.as_str().unwrap().to_lowercase().into();
    }
    payment["payload"]["permit2Authorization"]["unknown"] = json!([1.5]);
    let mut expected = upto();
    expected["payload"]["permit2Authorization"]["unknown"] = json!([1.5]);
    let matched = matched(&payment).unwrap();
    assert_eq!(matched.local_check, LocalCheck::SignedByPayer);
    assert_eq!(body(&matched)["paymentPayload"], expected);
}

/// Our buyer pays our seller, and the reference server.
#[test]
fn a_payment_that_we_sign_matches_what_was_asked_for() {
    let recorded = golden("v2_upto_unpaid_402", "challenge");
    let ours = quote().challenge(URL, "");
    let key = SecretKey::from_byte_array([7; 32]).unwrap();
    for (header, entry) in [(STANDARD.encode(recorded.to_string()), 0), (ours.header.clone(), 0)] {
        let received = Received::parse(Some(header.as_bytes()), b"").unwrap();
        let offered = &received.offers[entry];
        let asked = offered.terms().unwrap();
        let signed = signing::sign(&key, &asked, offered.kind(&asked).unwrap(), B256::repeat_byte(3), 0..NOW + 300);
        let (name, value) = offered.payment(&signed);
        assert_eq!(name, "payment-signature");
        let payment = decode(&PaymentHeaders { v2: vec![value.as_bytes()], v1: vec![] }).unwrap().unwrap();
        let matched = match_payment(&payment, &quote(), URL, NOW, |_| true).unwrap();
        assert_eq!((matched.local_check, &matched.authorization), (LocalCheck::SignedByPayer, &signed));
    }
    let receipt = Receipt::failed("x", None, Network::find("base-sepolia").unwrap());
    assert!(Receipt::decode(receipt.v2.as_bytes()).is_some());
}

proptest! {
    /// No byte of what was signed, nor of the signature, can change and still count as the payer's.
    #[test]
    fn tampering_is_never_taken_for_the_payers(metered: bool, field in 0..9_usize, byte in 0_usize..1000, bit in 0_u8..8) {
        let mut payment = if metered { upto() } else { exact() };
        let permit = &mut payment["payload"]["permit2Authorization"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let flip_hex = |value: &mut Value| {
            let mut bytes = hex::decode(text(value)).unwrap();
            let at = byte % bytes.len();
            bytes[at] ^= 1 << bit;
            *value = hex::encode_prefixed(bytes).into();
        };
        let flip_number = |value: &mut Value| {
            let number: U256 = text(value).parse().unwrap();
            *value = (number ^ (U256::ONE << (byte % 30))).to_string().into();
        };
        match field {
            0 => flip_hex(&mut permit["from"]),
            1 => flip_hex(&mut permit["permitted"]["token"]),
            2 => flip_number(&mut permit["permitted"]["amount"]),
            3 => flip_hex(&mut permit["spender"]),
            4 => flip_number(&mut permit["nonce"]),
            5 => flip_number(&mut permit["deadline"]),
            6 => flip_hex(&mut permit["witness"]["to"]),
            7 => flip_number(&mut permit["witness"]["validAfter"]),
            _ => flip_hex(&mut payment["payload"]["signature"]),
        }
        if let Ok(matched) = matched(&payment) {
            let original = if metered { upto() } else { exact() };
            let spelling = field == 8 && matched.authorization.signature == hex::decode(text(&original["payload"]["signature"])).unwrap();
            prop_assert!(matched.local_check == LocalCheck::Undecided || spelling, "{payment}");
        }
    }

    /// Whatever is used is what the facilitator is asked for, and never more than was signed.
    #[test]
    fn any_charge_is_sent_as_it_is_or_refused(charge: u64) {
        let charge = Amount::from(charge % 150_000);
        match matched(&upto()).unwrap().charging(charge) {
            Ok(charged) => {
                prop_assert!(charge <= Amount::from(100_000));
                let sent = body(&charged)["paymentRequirements"]["amount"].as_str().unwrap().to_owned();
                prop_assert_eq!(sent, charge.to_string());
                prop_assert_eq!(charged.replay_key(), matched(&upto()).unwrap().replay_key());
            }
            Err(_) => prop_assert!(charge > Amount::from(100_000)),
        }
    }

    #[test]
    fn no_change_of_a_real_payment_makes_it_panic(at in 0_usize..900, cut in 0_usize..8, insert in "[\\[{}\\]\",:0-9a-fx\\\\ntu]{0,8}") {
        let mut text = upto().to_string();
        let end = (at + cut).min(text.len());
        text.replace_range(at.min(end)..end, &insert);
        let value = STANDARD.encode(&text);
        let _ = decode(&PaymentHeaders { v2: vec![value.as_bytes()], v1: vec![] });
    }
}
