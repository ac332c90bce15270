//! What a facilitator says, in the shapes of x402. Pure.
//!
//! A gateway must be able to tell four things apart: money moved, it did not and never will, nobody
//! tried, nobody knows. So a refusal is `success: false` without a transaction, what was not tried is
//! `429` without `success`, and what is not known says `unexpected_settle_error`.

use hyper::StatusCode;
use obol_offer::Address;
use obol_settle::{SettleOutcome, VerifyOutcome};
use obol_x402::{MatchedPayment, Version};
use serde_json::{Value, json};

/// Status, body, and the word for the metrics.
pub(super) type Answer = (StatusCode, Value, &'static str);

pub(super) fn error(status: StatusCode, message: &str) -> (StatusCode, Value) {
    (status, json!({ "error": message }))
}

/// The network as the payment's version calls it.
fn network(payment: &MatchedPayment) -> String {
    match payment.version {
        Version::V1 => payment.terms.network.name.to_owned(),
        Version::V2 => payment.terms.network.caip2(),
    }
}

pub(super) fn invalid(reason: &str, payer: Option<Address>) -> Answer {
    let mut body = json!({ "isValid": false, "invalidReason": reason });
    put_payer(&mut body, payer);
    (StatusCode::OK, body, "invalid")
}

pub(super) fn verified(outcome: VerifyOutcome, payment: &MatchedPayment) -> Answer {
    match outcome {
        VerifyOutcome::Valid { payer } => (StatusCode::OK, json!({ "isValid": true, "payer": payer.to_string() }), "valid"),
        VerifyOutcome::Invalid { reason } => invalid(&reason, Some(payment.authorization.from)),
        VerifyOutcome::Unavailable { cause } => {
            tracing::warn!(cause, "a payment cannot be verified now");
            let (status, body) = error(StatusCode::SERVICE_UNAVAILABLE, "no node of this network gives a usable answer now");
            (status, body, "unavailable")
        }
    }
}

pub(super) fn refused(reason: &str, network: &str, payer: Option<Address>) -> Answer {
    let mut body = json!({ "success": false, "errorReason": reason, "transaction": "", "network": network });
    put_payer(&mut body, payer);
    (StatusCode::OK, body, "refused")
}

pub(super) fn settled(outcome: SettleOutcome, payment: &MatchedPayment) -> Answer {
    let (network, payer) = (network(payment), payment.authorization.from);
    let failed = |reason: &str, transaction: Option<&str>| {
        json!({
            "success": false, "errorReason": reason, "transaction": transaction.unwrap_or_default(), "network": network,
            "payer": payer.to_string(),
        })
    };
    match outcome {
        SettleOutcome::Settled(receipt) => {
            let body = json!({
                "success": true, "transaction": receipt.transaction, "network": network, "payer": receipt.payer.to_string(),
                "amount": receipt.amount,
            });
            (StatusCode::OK, body, "settled")
        }
        SettleOutcome::Refused { reason } => refused(&reason, &network, Some(payer)),
        SettleOutcome::NotAsked { cause } => {
            tracing::warn!(payment = %payment.replay_key(), cause, "not settled: nothing was sent");
            let (status, body) = error(StatusCode::TOO_MANY_REQUESTS, "nothing was sent to the chain; ask again");
            (status, body, "not_asked")
        }
        SettleOutcome::Pending { transaction } => (StatusCode::OK, failed("settlement_pending", Some(&transaction)), "pending"),
        SettleOutcome::Unknown { cause, transaction } => {
            tracing::error!(payment = %payment.replay_key(), cause, transaction, "the settlement's outcome is unknown");
            (StatusCode::INTERNAL_SERVER_ERROR, failed("unexpected_settle_error", transaction.as_deref()), "unknown")
        }
    }
}

fn put_payer(body: &mut Value, payer: Option<Address>) {
    if let (Some(body), Some(payer)) = (body.as_object_mut(), payer) {
        body.insert("payer".to_owned(), payer.to_string().into());
    }
}
