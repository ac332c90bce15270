//! Facilitators' answers over HTTP, read. Pure: status and bytes in, outcome out.
//!
//! JSON counts on any status, as facilitators differ in the status of a refusal. Money is believed
//! to have moved only on a success that contradicts nothing, and not to have moved only on a
//! refusal without a transaction.

use obol_offer::{Address, Amount, Network};
use obol_x402::{LocalCheck, MatchedPayment};
use serde_json::{Map, Value};

use crate::{
    Receipt, SettleOutcome, VerifyOutcome,
    outcome::{tidy, transaction},
};

/// Statuses of servers that turned a request away without acting on it.
const UNREAD: [u16; 16] = [307, 308, 400, 401, 402, 403, 404, 405, 406, 410, 411, 413, 414, 415, 429, 431];

/// What `/verify` said.
pub(crate) fn verify(status: u16, body: &[u8], payment: &MatchedPayment) -> VerifyOutcome {
    let unavailable = |cause: &str| VerifyOutcome::Unavailable { cause: format!("HTTP {status}: {cause}") };
    let Some(json) = object_with(body, "isValid") else { return unavailable("no answer in JSON with `isValid`") };
    match (json.get("isValid"), text(&json, "payer")) {
        (Some(Value::Bool(false)), _) => VerifyOutcome::Invalid { reason: reason(&json, "invalidReason") },
        (Some(Value::Bool(true)), _) if !is_success(status) => unavailable("`isValid` with a status that says otherwise"),
        (Some(Value::Bool(true)), Some(payer)) => match payer.parse() {
            Ok(payer) => VerifyOutcome::Valid { payer },
            Err(_) => unavailable("`payer` is no address"),
        },
        (Some(Value::Bool(true)), None) if payment.local_check == LocalCheck::SignedByPayer => {
            VerifyOutcome::Valid { payer: payment.authorization.from }
        }
        (Some(Value::Bool(true)), None) => unavailable("no `payer` for a signature that only it can check"),
        _ => unavailable("`isValid` is not true or false"),
    }
}

/// What `/settle` said.
pub(crate) fn settle(status: u16, body: &[u8], payment: &MatchedPayment) -> SettleOutcome {
    let Some(json) = object_with(body, "success") else {
        let cause = format!("HTTP {status}: no answer in JSON with `success`");
        return if UNREAD.contains(&status) {
            SettleOutcome::NotAsked { cause }
        } else {
            SettleOutcome::Unknown { cause, transaction: None }
        };
    };
    let hash = text(&json, "transaction").and_then(transaction);
    let unknown = |cause: &str| SettleOutcome::Unknown { cause: format!("HTTP {status}: {cause}"), transaction: hash.clone() };
    let reason = reason(&json, "errorReason");
    match (json.get("success"), &hash) {
        (Some(Value::Bool(true)), Some(hash)) => match receipt(status, &json, hash, payment) {
            Ok(receipt) => SettleOutcome::Settled(receipt),
            Err(cause) => unknown(cause),
        },
        (Some(Value::Bool(true)), None) => unknown("success without a transaction"),
        (Some(Value::Bool(false)), Some(hash)) if reason == "settlement_pending" => SettleOutcome::Pending { transaction: hash.clone() },
        (Some(Value::Bool(false)), Some(_)) => unknown(&format!("failure with a transaction: {reason}")),
        // It broke while settling, and does not know how far it came.
        (Some(Value::Bool(false)), None) if status >= 500 || reason.starts_with("unexpected") || reason == "settlement_pending" => {
            unknown(&format!("failure of the facilitator: {reason}"))
        }
        (Some(Value::Bool(false)), None) if !is_silent(json.get("transaction")) => {
            unknown(&format!("failure with an odd transaction: {reason}"))
        }
        (Some(Value::Bool(false)), None) => SettleOutcome::Refused { reason },
        _ => unknown("`success` is not true or false"),
    }
}

fn receipt(status: u16, json: &Map<String, Value>, hash: &str, payment: &MatchedPayment) -> Result<Receipt, &'static str> {
    if !is_success(status) || text(json, "errorReason").is_some() {
        return Err("success that contradicts itself");
    }
    let network = text(json, "network").unwrap_or_default();
    if !network.is_empty() && Network::find(network).is_none_or(|n| n.chain_id != payment.terms.network.chain_id) {
        return Err("success on another network");
    }
    let payer = match text(json, "payer") {
        Some(payer) => payer.parse::<Address>().map_err(|_| "success with a payer that is no address")?,
        None => payment.authorization.from,
    };
    let amount = match json.get("amount") {
        None | Some(Value::Null) => payment.charge,
        Some(Value::String(amount)) => amount.parse::<Amount>().map_err(|_| "success with an amount that is none")?,
        Some(_) => return Err("success with an amount that is none"),
    };
    Ok(Receipt { transaction: hash.to_owned(), payer, amount })
}

/// Whether nothing stands where a transaction would. What cannot be read may still be one.
fn is_silent(transaction: Option<&Value>) -> bool {
    match transaction {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => matches!(text.trim(), "" | "0x"),
        Some(_) => false,
    }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

fn object_with(body: &[u8], field: &str) -> Option<Map<String, Value>> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(json)) if json.contains_key(field) => Some(json),
        _ => None,
    }
}

/// A field that is a string with something in it.
fn text<'a>(json: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    json.get(field).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn reason(json: &Map<String, Value>, field: &str) -> String {
    tidy(text(json, field).unwrap_or("no reason given"))
}
