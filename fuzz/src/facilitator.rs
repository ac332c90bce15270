//! A facilitator's answers. First two bytes: the HTTP status; the rest is the body.

use std::sync::OnceLock;

use obol_settle::{SettleOutcome, VerifyOutcome, fuzzing};
use obol_x402::{LocalCheck, MatchedPayment};
use serde_json::Value;

fn payments() -> &'static [MatchedPayment; 2] {
    static PAYMENTS: OnceLock<[MatchedPayment; 2]> = OnceLock::new();
    PAYMENTS.get_or_init(|| {
        let signed = crate::matched();
        let undecided = MatchedPayment { local_check: LocalCheck::Undecided, ..signed.clone() };
        [signed, undecided]
    })
}

pub fn target(data: &[u8]) {
    let Some((status, body)) = data.split_first_chunk::<2>() else { return };
    let status = 100 + u16::from_be_bytes(*status) % 500;
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let is_success = (200..300).contains(&status);
    for payment in payments() {
        let _ = fuzzing::takes(body, payment);
        match fuzzing::verify(status, body, payment) {
            VerifyOutcome::Valid { payer } => {
                assert!(is_success && said["isValid"] == true);
                let told = said["payer"].as_str().filter(|payer| !payer.is_empty());
                assert!(
                    told.is_some_and(|told| told.parse() == Ok(payer))
                        || (told.is_none() && payment.local_check == LocalCheck::SignedByPayer)
                );
            }
            VerifyOutcome::Invalid { reason } => assert!(said["isValid"] == false && reason.chars().count() <= 120),
            VerifyOutcome::Unavailable { .. } => {}
        }
        match fuzzing::settle(status, body, payment) {
            SettleOutcome::Settled(receipt) => {
                assert!(is_success && said["success"] == true && said["errorReason"].as_str().is_none_or(str::is_empty));
                assert_eq!(said["transaction"].as_str().map(str::trim), Some(receipt.transaction.as_str()));
            }
            SettleOutcome::Refused { .. } => {
                assert!(said["success"] == false && status < 500);
                let silent = match &said["transaction"] {
                    Value::Null => true,
                    Value::String(text) => matches!(text.trim(), "" | "0x"),
                    _ => false,
                };
                assert!(silent, "a refusal with a transaction is no refusal: {said}");
            }
            SettleOutcome::NotAsked { .. } => assert!(said.get("success").is_none() && !is_success),
            SettleOutcome::Pending { transaction } => assert!(!transaction.is_empty()),
            SettleOutcome::Unknown { .. } => {}
        }
    }
}
