//! From payment headers to a [`Payment`]: size, base64, JSON, version. Nothing is believed yet.

use serde_json::value::RawValue;

/// Protocol version of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// `X-PAYMENT`.
    V1,
    /// `PAYMENT-SIGNATURE`.
    V2,
}

/// The raw payment headers of a request; every repetition of a header is listed.
#[derive(Clone, Debug, Default)]
pub struct PaymentHeaders<'a> {
    /// Values of `PAYMENT-SIGNATURE`.
    pub v2: Vec<&'a [u8]>,
    /// Values of `X-PAYMENT`.
    pub v1: Vec<&'a [u8]>,
}

/// A decoded payment. `raw` is the buyer's JSON byte for byte, for the facilitator.
#[derive(Clone, Debug)]
pub struct Payment {
    /// Version by header, which the JSON must confirm.
    pub version: Version,
    /// The buyer's JSON object, unknown fields included.
    pub raw: Box<RawValue>,
}

/// Why payment headers are not a payment. Answered with 400; [`DecodeError::code`] is stable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// More than one payment header.
    #[error("more than one payment header")]
    Repeated,
    /// Longer than 16 KiB.
    #[error("the payment header is longer than 16 KiB")]
    TooLong,
    /// Not base64.
    #[error("the payment header is not base64")]
    NotBase64,
    /// Not the JSON of a payment; the text says where.
    #[error("the payment is malformed: {0}")]
    NotAPayment(String),
    /// A version other than 1 or 2, or one that its header contradicts.
    #[error("x402Version {0} does not belong in this header")]
    Version(u64),
}

impl DecodeError {
    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Repeated => "payment_header_repeated",
            Self::TooLong => "payment_header_too_long",
            Self::NotBase64 => "payment_header_not_base64",
            Self::NotAPayment(_) => "payment_malformed",
            Self::Version(_) => "payment_version",
        }
    }
}

/// Decodes the payment of a request; `None` when it carries none.
///
/// # Errors
/// [`DecodeError`] when there is a payment header that is no payment.
pub fn decode(headers: &PaymentHeaders<'_>) -> Result<Option<Payment>, DecodeError> {
    let _ = headers;
    todo!()
}
