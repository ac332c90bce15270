//! What a seller asks, without paying.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use obol_x402::{
    Offered, Received, ReceivedError,
    wire::{PAYMENT_REQUIRED, PaymentRequired, PaymentRequiredV1},
};
use url::Url;

use crate::{
    PayError,
    answer::read_some,
    client::client,
    pay::{Attempt, MAX_CHALLENGE_BODY, unreachable},
};

/// The answer to an unpaid request.
#[derive(Clone, Debug)]
pub struct Probe {
    /// HTTP status; 402 when a payment is asked for.
    pub status: StatusCode,
    /// Response headers.
    pub headers: HeaderMap,
    /// The first 256 KiB of the body.
    pub body: Bytes,
    /// The v2 challenge, if the header is a well-formed one.
    pub v2: Option<PaymentRequired>,
    /// The v1 challenge, if the body is a well-formed one.
    pub v1: Option<PaymentRequiredV1>,
    /// The offered payments as a buyer of the newest version sees them.
    pub offers: Vec<Offered>,
    /// Why there are none, for a 402.
    pub problem: Option<ReceivedError>,
}

/// Asks for a price and pays nothing.
///
/// # Errors
/// [`PayError::Unreachable`] or [`PayError::Client`].
pub async fn quote(url: &Url, method: Method, headers: HeaderMap, timeout: Duration) -> Result<Probe, PayError> {
    let attempt = Attempt { url, method: &method, headers: &headers, body: None, timeout };
    let mut response = attempt.send(&client(url)?, None).await.map_err(|reason| unreachable(url, reason))?;
    let body = read_some(&mut response, MAX_CHALLENGE_BODY, timeout).await;
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let header = headers.get(PAYMENT_REQUIRED).map(http::HeaderValue::as_bytes);
    let (offers, problem) = match Received::parse(header, &body) {
        Ok(received) => (received.offers, None),
        Err(problem) => (Vec::new(), Some(problem).filter(|_| status == StatusCode::PAYMENT_REQUIRED)),
    };
    let v2 = header.and_then(PaymentRequired::from_header);
    let v1 = serde_json::from_slice(&body).ok().filter(|v1: &PaymentRequiredV1| v1.x402_version == 1);
    Ok(Probe { status, body, v2, v1, offers, problem, headers })
}
