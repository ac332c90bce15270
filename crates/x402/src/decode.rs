//! From payment headers to a [`Payment`]: size, base64, JSON, version, shape. Nothing is believed
//! yet: that these numbers are ours is [`crate::match_payment`]'s question.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use obol_offer::Network;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::{
    AuthorizationKind, BadPaymentId, PaymentId, Quote, ReplayKey,
    claim::{Choice, Claim},
    keys,
    quote::truncate,
};

/// Longest payment header in bytes.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Deepest nesting of a payment's JSON; real ones have 4 to 8 levels.
const MAX_DEPTH: usize = 32;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Protocol version of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// `X-PAYMENT`.
    V1,
    /// `PAYMENT-SIGNATURE`.
    V2,
}

impl Version {
    /// `x402Version` on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// The raw payment headers of a request; every repetition of a header is listed.
#[derive(Clone, Debug, Default)]
pub struct PaymentHeaders<'a> {
    /// Values of `PAYMENT-SIGNATURE`.
    pub v2: Vec<&'a [u8]>,
    /// Values of `X-PAYMENT`.
    pub v1: Vec<&'a [u8]>,
}

/// A decoded payment, made by [`decode`] only. `raw` is the buyer's JSON byte for byte, for the
/// facilitator.
#[derive(Clone, Debug)]
pub struct Payment {
    /// Version by the JSON, which the header does not contradict.
    pub version: Version,
    /// The buyer's JSON object, unknown fields included.
    pub raw: Box<RawValue>,
    /// What the JSON says.
    pub(crate) claim: Claim,
}

impl Payment {
    /// SHA-256 of the payload as decoded.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.raw.get()).into()
    }

    /// The buyer's own name for the purchase; v1 has none.
    ///
    /// # Errors
    /// [`BadPaymentId`] for one that is not 16 to 128 of `[A-Za-z0-9_-]`.
    pub fn identifier(&self) -> Result<Option<&PaymentId>, BadPaymentId> {
        self.claim.identifier.as_ref().map(Option::as_ref).map_err(|bad| *bad)
    }

    /// Unix second from which on its authorization is void; `None` when it has none.
    pub fn valid_before(&self) -> Option<u64> {
        self.claim.authorization.as_ref().map(|signed| signed.valid_before)
    }

    /// The keys under which this payment may have been presented before, whatever is asked for
    /// now: prices change and time windows pass, and what a payment bought or owes stays.
    /// v1 does not name the token, so it is one of `quote`'s, or the network's own.
    pub fn replay_keys(&self, quote: &Quote) -> Vec<ReplayKey> {
        let Some(signed) = &self.claim.authorization else { return Vec::new() };
        let kind = signed.permit2.map_or(AuthorizationKind::Eip3009, |_| AuthorizationKind::Permit2);
        let key = |network: &Network, asset| ReplayKey::new(network.chain_id, asset, kind, signed.from, signed.nonce);
        match &self.claim.choice {
            Choice::V2(accepted) => accepted.network.zip(accepted.asset).map(|(network, asset)| key(network, asset)).into_iter().collect(),
            Choice::V1 { network, .. } => {
                let Some(network) = Network::find(network) else { return Vec::new() };
                let quoted = quote.terms().iter().filter(|terms| terms.network == network).map(|terms| terms.asset.address);
                let mut keys: Vec<_> = quoted.chain([network.default_asset().address]).map(|asset| key(network, asset)).collect();
                keys.dedup();
                keys
            }
        }
    }
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

    pub(crate) fn malformed(why: impl std::fmt::Display) -> Self {
        // Parsers quote the input, which is the buyer's and may be long.
        Self::NotAPayment(truncate(&why.to_string(), 160).to_owned())
    }
}

/// Decodes the payment of a request; `None` when it carries none.
///
/// `X-PAYMENT` may carry either version, since some v2 clients still use the old name;
/// `PAYMENT-SIGNATURE` carries version 2 only. Base64 is taken with or without padding and in the
/// URL-safe alphabet too.
///
/// # Errors
/// [`DecodeError`] when there is a payment header that is no payment.
pub fn decode(headers: &PaymentHeaders<'_>) -> Result<Option<Payment>, DecodeError> {
    let (value, newest_only) = match (headers.v2.as_slice(), headers.v1.as_slice()) {
        ([], []) => return Ok(None),
        ([value], []) => (*value, true),
        ([], [value]) => (*value, false),
        _ => return Err(DecodeError::Repeated),
    };
    if value.len() > MAX_HEADER_BYTES {
        return Err(DecodeError::TooLong);
    }
    let text = String::from_utf8(from_base64(value).ok_or(DecodeError::NotBase64)?).map_err(|_| DecodeError::malformed("not UTF-8"))?;
    read(text, newest_only).map(Some)
}

/// Reads the JSON of a payment, as a gateway hands it to a facilitator.
///
/// # Errors
/// [`DecodeError`] when it is none.
pub fn decode_json(text: String) -> Result<Payment, DecodeError> {
    if text.len() > MAX_HEADER_BYTES {
        return Err(DecodeError::TooLong);
    }
    read(text, false)
}

fn read(text: String, newest_only: bool) -> Result<Payment, DecodeError> {
    if depth(&text) > MAX_DEPTH {
        return Err(DecodeError::malformed(format_args!("nested deeper than {MAX_DEPTH} levels")));
    }
    let version = match version_of(&text)? {
        1 if !newest_only => Version::V1,
        2 => Version::V2,
        other => return Err(DecodeError::Version(other)),
    };
    keys::check(&text)?;
    let claim = Claim::parse(&text, version)?;
    let raw = RawValue::from_string(text).map_err(DecodeError::malformed)?;
    Ok(Payment { version, raw, claim })
}

/// Base64 in either alphabet, padded or not.
pub(crate) fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let url_safe = text.iter().any(|b| matches!(b, b'-' | b'_'));
    let engine = if url_safe { &URL_SAFE } else { &STANDARD };
    engine.decode(text).ok()
}

fn version_of(text: &str) -> Result<u64, DecodeError> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        #[serde(rename = "x402Version")]
        version: u64,
    }
    serde_json::from_str::<Versioned>(text).map(|v| v.version).map_err(DecodeError::malformed)
}

/// Deepest nesting of JSON text, without recursion. Garbage gives a number too.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
