//! What is made of a facilitator's answer: it is believed only where it fits the payment.

use obol_offer::Amount;
use obol_x402::MatchedPayment;

use crate::{Receipt, SettleOutcome};

/// Longest reason kept, in characters.
const MAX_REASON: usize = 120;
/// Longest transaction hash kept, in bytes.
const MAX_TRANSACTION: usize = 128;

/// Cuts a facilitator's word down to what may be logged and shown: 120 printable characters.
pub(crate) fn tidy(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect()
}

/// A transaction hash, if this is one at all.
pub(crate) fn transaction(text: &str) -> Option<String> {
    let text = text.trim();
    let plausible = !matches!(text, "" | "0x") && text.len() <= MAX_TRANSACTION && text.bytes().all(|b| b.is_ascii_graphic());
    plausible.then(|| text.to_owned())
}

/// Turns answers that do not fit the payment into what they are: unknown.
pub(crate) fn examine(outcome: SettleOutcome, payment: &MatchedPayment) -> SettleOutcome {
    let unknown = |cause: &str, transaction| SettleOutcome::Unknown { cause: cause.to_owned(), transaction };
    match outcome {
        SettleOutcome::Settled(receipt) => match misfit(&receipt, payment) {
            Some(cause) => unknown(cause, transaction(&receipt.transaction)),
            None => SettleOutcome::Settled(receipt),
        },
        // Somebody may have sent this very authorization to the chain, and then the seller was paid.
        SettleOutcome::Refused { reason } if says_spent(&reason) => unknown("the nonce was used between verify and settle", None),
        SettleOutcome::Refused { reason } => SettleOutcome::Refused { reason: tidy(&reason) },
        SettleOutcome::Pending { transaction: hash } => match transaction(&hash) {
            Some(transaction) => SettleOutcome::Pending { transaction },
            None => unknown("pending without a transaction", None),
        },
        SettleOutcome::Unknown { cause, transaction: hash } => {
            SettleOutcome::Unknown { cause, transaction: hash.as_deref().and_then(transaction) }
        }
        not_asked @ SettleOutcome::NotAsked { .. } => not_asked,
    }
}

fn misfit(receipt: &Receipt, payment: &MatchedPayment) -> Option<&'static str> {
    // Nothing needs no transaction.
    if transaction(&receipt.transaction).is_none() && payment.charge != Amount::ZERO {
        Some("success without a transaction")
    } else if receipt.payer != payment.authorization.from {
        Some("success with another payer")
    } else if receipt.amount != payment.charge {
        Some("success with another amount")
    } else {
        None
    }
}

/// Whether a refusal says that the authorization is spent already (`…_nonce_already_used`,
/// "authorization is used or canceled"). Other words about nonces are the facilitator's own trouble.
pub(crate) fn says_spent(reason: &str) -> bool {
    let plain = reason.to_ascii_lowercase().replace(['_', '-'], " ");
    [
        "nonce already used",
        "nonce is used",
        "nonce used",
        "permit2 invalid nonce",
        "authorization is used",
        "authorization already used",
        "authorizationused",
    ]
    .iter()
    .any(|words| plain.contains(words))
}

/// Whether a verdict may mean the same without saying so: the transfer was tried and would fail.
pub(crate) fn says_reverts(reason: &str) -> bool {
    let plain = reason.to_ascii_lowercase();
    ["simulation", "transaction_state", "unexpected", "revert"].iter().any(|word| plain.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_bounded_and_printable() {
        assert_eq!(tidy(&"é\u{7}\n".repeat(500)), "é".repeat(120));
        assert_eq!(transaction("0x"), None);
        assert_eq!(transaction(&"a".repeat(129)), None);
        assert_eq!(transaction("0x\u{0}1"), None);
        assert_eq!(transaction(" 0xab "), Some("0xab".to_owned()));
    }

    #[test]
    fn a_spent_authorization_is_told_from_other_nonce_trouble() {
        for spent in ["invalid_exact_evm_nonce_already_used", "FiatTokenV2: authorization is used or canceled", "AuthorizationUsed"] {
            assert!(says_spent(spent), "{spent}");
        }
        for other in ["nonce too low", "insufficient_funds", "invalid_exact_evm_payload_signature"] {
            assert!(!says_spent(other), "{other}");
        }
    }
}
