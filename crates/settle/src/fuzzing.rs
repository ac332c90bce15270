//! What the fuzz targets reach of this crate. Exists only under `--cfg fuzzing`.

use obol_x402::{MatchedPayment, ReplayKey};

use crate::{
    SettleOutcome, VerifyOutcome,
    http::answer,
    journal::{Row, key_bytes, key_from_bytes},
    record::PaymentRecord,
    supported::Kinds,
};

/// A facilitator's answer to `/verify`.
pub fn verify(status: u16, body: &[u8], payment: &MatchedPayment) -> VerifyOutcome {
    answer::verify(status, body, payment)
}

/// A facilitator's answer to `/settle`.
pub fn settle(status: u16, body: &[u8], payment: &MatchedPayment) -> SettleOutcome {
    answer::settle(status, body, payment)
}

/// A facilitator's answer to `/supported`: whether it takes the payment.
pub fn takes(body: &[u8], payment: &MatchedPayment) -> Option<bool> {
    Kinds::parse(body).ok().map(|kinds| kinds.takes(payment))
}

/// Reads a row of the journal and does with it what a start does; the row written again.
pub fn row(bytes: &[u8], key: &ReplayKey) -> Option<Vec<u8>> {
    let row: Row = serde_json::from_slice(bytes).ok()?;
    let _ = (row.known(), row.payment(key), PaymentRecord::of(key, &row));
    serde_json::to_vec(&row).ok()
}

/// Reads a line of an archive; the line written again.
pub fn archived(bytes: &[u8]) -> Option<Vec<u8>> {
    let record: PaymentRecord = serde_json::from_slice(bytes).ok()?;
    serde_json::to_vec(&record).ok()
}

/// A key's bytes read and written again.
pub fn key(bytes: &[u8]) -> Option<(ReplayKey, Vec<u8>)> {
    let key = key_from_bytes(bytes.try_into().ok()?)?;
    Some((key, key_bytes(&key).to_vec()))
}
