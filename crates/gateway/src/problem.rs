//! Answers that are not what the buyer wanted, each with a stable code and a way out.

use std::borrow::Cow;

use http::StatusCode;
use serde::Serialize;

/// A refusal as buyers see it: `{error, message, hint, retriable, transaction?}`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Problem {
    #[serde(skip)]
    pub status: StatusCode,
    /// Stable identifier.
    #[serde(rename = "error")]
    pub code: &'static str,
    pub message: Cow<'static, str>,
    /// What to do about it.
    pub hint: &'static str,
    /// Whether the same request, payment included, may be sent again.
    pub retriable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<String>,
    /// Seconds, for `Retry-After`.
    #[serde(skip)]
    pub retry_after: Option<u64>,
}

impl Problem {
    pub(crate) const fn new(status: StatusCode, code: &'static str, message: &'static str, hint: &'static str) -> Self {
        Self { status, code, message: Cow::Borrowed(message), hint, retriable: false, transaction: None, retry_after: None }
    }

    /// Marks it as passing.
    pub(crate) const fn retry(mut self, seconds: u64) -> Self {
        self.retriable = true;
        self.retry_after = Some(seconds);
        self
    }

    pub(crate) fn message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self
    }

    pub(crate) fn transaction(mut self, transaction: Option<String>) -> Self {
        self.transaction = transaction;
        self
    }
}

const BUYER_FAULT: &str = "correct the request and send it again; nothing was charged";
const SELLER_FAULT: &str = "nothing was charged; the same payment may be sent again later";

pub(crate) fn not_ready() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "the gateway has not loaded its routes yet", SELLER_FAULT).retry(1)
}

/// An offer by `upto` alone, before its facilitators have said who settles.
pub(crate) fn nobody_settles() -> Problem {
    let message = "it is not known yet which facilitator settles for this offer";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "facilitator_unknown", message, SELLER_FAULT).retry(5)
}

pub(crate) fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "nothing is sold at this path", "see /api/services.json for what is")
}

pub(crate) fn offer_stopped() -> Problem {
    Problem::new(StatusCode::GONE, "offer_stopped", "this offer has been stopped", "see /api/services.json for what is sold")
}

pub(crate) fn path_ambiguous(error: obol_offer::PathError) -> Problem {
    let hint = "write the path plainly, escaping only what must be escaped";
    Problem::new(StatusCode::BAD_REQUEST, "path_ambiguous", "", hint).message(error.to_string())
}

pub(crate) fn bad_host() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_host", "Host and :authority must agree on one host", BUYER_FAULT)
}

pub(crate) fn ambiguous_length() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_content_length", "Content-Length must be given at most once, in digits only", BUYER_FAULT)
}

pub(crate) fn connect_refused() -> Problem {
    Problem::new(StatusCode::NOT_IMPLEMENTED, "connect_refused", "CONNECT is not offered here", "for a websocket use HTTP/1.1 with Upgrade")
}

pub(crate) fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this document can only be read", "use GET or HEAD")
}

pub(crate) fn framing(refusal: crate::framing::FramingRefusal) -> Problem {
    Problem::new(refusal.status(), refusal.code(), "", BUYER_FAULT).message(refusal.to_string())
}

pub(crate) fn body_broken() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "body_incomplete", "the request body ended early or is malformed", BUYER_FAULT)
}

pub(crate) fn body_timeout() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the request body did not arrive in time", BUYER_FAULT)
}

pub(crate) fn body_too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the request body is larger than this offer takes", BUYER_FAULT)
}

pub(crate) fn busy() -> Problem {
    let message = "too many request bodies are being read at the moment";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message, SELLER_FAULT).retry(1)
}

pub(crate) fn too_many_requests(code: &'static str, message: &'static str, wait: std::time::Duration) -> Problem {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem::new(StatusCode::TOO_MANY_REQUESTS, code, message, SELLER_FAULT).retry(seconds.max(1))
}

pub(crate) fn payment_header(error: &obol_x402::DecodeError) -> Problem {
    let hint = "send one PAYMENT-SIGNATURE (v2) or X-PAYMENT (v1) header with base64 of the payment's JSON";
    Problem::new(StatusCode::BAD_REQUEST, error.code(), "", hint).message(error.to_string())
}

pub(crate) fn payment_identifier_missing() -> Problem {
    let message = "this offer takes payments with an identifier only";
    let hint =
        "put an id of 16 to 128 of [A-Za-z0-9_-] into `info` of the extension payment-identifier (protocol version 2), and sign anew";
    Problem::new(StatusCode::BAD_REQUEST, "payment_identifier_required", message, hint)
}

pub(crate) fn payment_identifier_invalid(error: obol_x402::BadPaymentId) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "payment_identifier_invalid", "", BUYER_FAULT).message(error.to_string())
}

pub(crate) fn upstream_payment_required() -> Problem {
    let message = "the seller's own upstream asks for a payment";
    Problem::new(StatusCode::BAD_GATEWAY, "upstream_payment_required", message, SELLER_FAULT).retry(30)
}

pub(crate) fn upstream_unreachable() -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, "upstream_unreachable", "the seller's upstream cannot be reached", SELLER_FAULT).retry(5)
}

pub(crate) fn upstream_failed() -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, "upstream_failed", "the seller's upstream broke off", SELLER_FAULT).retry(5)
}

pub(crate) fn upstream_timeout() -> Problem {
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", "the seller's upstream did not answer in time", SELLER_FAULT).retry(5)
}

pub(crate) fn upgrade_failed() -> Problem {
    Problem::new(
        StatusCode::BAD_GATEWAY,
        "upgrade_failed",
        "the seller's upstream switched to another protocol than asked for",
        SELLER_FAULT,
    )
}

pub(crate) fn settlement_unknown(transaction: Option<String>) -> Problem {
    let message = "the payment was sent to be settled and its outcome is not known yet";
    let hint = "do not sign another payment; send this one again after the time given";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "settlement_unknown", message, hint).retry(5).transaction(transaction)
}

pub(crate) fn settlement_not_asked() -> Problem {
    let message = "no facilitator could be asked to settle the payment";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "facilitator_unavailable", message, SELLER_FAULT).retry(5)
}
