use obol_offer::{Address, Amount};
use obol_x402::LocalCheck;

use super::answer::{settle, verify};
use crate::{Receipt, SettleOutcome, VerifyOutcome, test_payment::payment};

const PAYER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

fn payer() -> Address {
    PAYER.parse().unwrap()
}

#[test]
fn verify_is_read_on_any_status() {
    let payment = payment(1);
    let valid = |body: &str| verify(200, body.as_bytes(), &payment);
    assert_eq!(valid(&format!(r#"{{"isValid":true,"payer":"{PAYER}"}}"#)), VerifyOutcome::Valid { payer: payer() });
    assert_eq!(valid(&format!(r#"{{"isValid":true,"payer":"{}"}}"#, PAYER.to_lowercase())), VerifyOutcome::Valid { payer: payer() });
    assert_eq!(valid(r#"{"isValid":true}"#), VerifyOutcome::Valid { payer: payer() });
    for status in [200, 400, 412, 500] {
        let refused = verify(status, br#"{"isValid":false,"invalidReason":"insufficient_funds"}"#, &payment);
        assert_eq!(refused, VerifyOutcome::Invalid { reason: "insufficient_funds".into() }, "{status}");
    }
}

#[test]
fn hostile_verify_answers_are_no_answer() {
    let mut payment = payment(1);
    payment.local_check = LocalCheck::Undecided;
    let huge = "9".repeat(60_000);
    for (status, body) in [
        (200, r#"{"isValid":"true"}"#),
        (200, r#"{"isValid":1}"#),
        (200, r#"{"isValid":null}"#),
        (200, r#"{"isValid":true}"#),
        (200, r#"{"isValid":true,"payer":"me"}"#),
        (500, r#"{"isValid":true,"payer":"0x70997970C51812dc3A010C7d01b50e0d17dc79C8"}"#),
        (200, "[true]"),
        (200, ""),
        (200, "<html>"),
        (502, "Bad Gateway"),
        (200, &huge),
        (200, &"[".repeat(60_000)),
    ] {
        assert!(matches!(verify(status, body.as_bytes(), &payment), VerifyOutcome::Unavailable { .. }), "{status} {body:.60}");
    }
}

#[test]
fn a_success_is_a_receipt() {
    let payment = payment(1);
    for network in ["eip155:84532", "base-sepolia", ""] {
        let body = format!(r#"{{"success":true,"payer":"{PAYER}","transaction":"0xabc","network":"{network}","extra":[1]}}"#);
        let receipt = Receipt { transaction: "0xabc".into(), payer: payer(), amount: payment.terms.amount };
        assert_eq!(settle(200, body.as_bytes(), &payment), SettleOutcome::Settled(receipt));
    }
    let body = r#"{"success":true,"transaction":"0xabc","network":"base-sepolia","amount":"7","errorReason":null}"#;
    let receipt = Receipt { transaction: "0xabc".into(), payer: payer(), amount: Amount::from(7) };
    assert_eq!(settle(200, body.as_bytes(), &payment), SettleOutcome::Settled(receipt));
}

#[test]
fn a_refusal_without_a_transaction_is_clean_on_any_status_but_5xx() {
    let body = br#"{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"base-sepolia"}"#;
    for status in [200, 400, 402, 412] {
        assert_eq!(settle(status, body, &payment(1)), SettleOutcome::Refused { reason: "insufficient_funds".into() }, "{status}");
    }
    assert!(matches!(settle(500, body, &payment(1)), SettleOutcome::Unknown { .. }));
}

#[test]
fn a_transaction_means_maybe_on_chain() {
    let pending = br#"{"success":false,"errorReason":"settlement_pending","transaction":"0xabc"}"#;
    assert_eq!(settle(200, pending, &payment(1)), SettleOutcome::Pending { transaction: "0xabc".into() });
    let failed = br#"{"success":false,"errorReason":"invalid_transaction_state","transaction":"0xabc"}"#;
    let outcome = settle(200, failed, &payment(1));
    assert!(matches!(outcome, SettleOutcome::Unknown { transaction: Some(hash), .. } if hash == "0xabc"));
}

#[test]
fn hostile_settle_answers_are_unknown() {
    for (status, body) in [
        (200, ""),
        (200, "garbage"),
        (200, r#"{"success":"true","transaction":"0xabc"}"#),
        (200, r#"{"success":true}"#),
        (200, r#"{"success":true,"transaction":"0x"}"#),
        (200, r#"{"success":true,"transaction":"0xabc","payer":"me"}"#),
        (200, r#"{"success":true,"transaction":"0xabc","network":"eip155:1"}"#),
        (200, r#"{"success":true,"transaction":"0xabc","amount":-1}"#),
        (200, r#"{"success":true,"transaction":"0xabc","amount":"1e6"}"#),
        (200, r#"{"success":true,"transaction":"0xabc","errorReason":"oops"}"#),
        (500, r#"{"success":true,"transaction":"0xabc"}"#),
        (200, r#"{"success":false,"errorReason":"unexpected_settle_error"}"#),
        (200, r#"{"success":false,"errorReason":"settlement_pending","transaction":""}"#),
        (200, r#"{"success":false,"errorReason":"x","transaction":{"hash":"0xabc"}}"#),
        (200, r#"{"success":false,"errorReason":"x","transaction":"0xab cd"}"#),
        (200, r#"{"success":false,"errorReason":"x","transaction":["0xabc"]}"#),
        (408, ""),
        (409, ""),
        (502, "Bad Gateway"),
        (303, ""),
    ] {
        assert!(matches!(settle(status, body.as_bytes(), &payment(1)), SettleOutcome::Unknown { .. }), "{status} {body}");
    }
    for status in [308, 400, 401, 404, 413, 429] {
        assert!(matches!(settle(status, b"no", &payment(1)), SettleOutcome::NotAsked { .. }), "{status}");
    }
}

#[test]
fn hostile_reasons_are_cut() {
    let body = format!(r#"{{"success":false,"errorReason":"{}"}}"#, "x\\u0007\\n".repeat(5000));
    assert_eq!(settle(200, body.as_bytes(), &payment(1)), SettleOutcome::Refused { reason: "x".repeat(120) });
}
