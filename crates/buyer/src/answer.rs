//! What came back.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use obol_offer::{Amount, Network};
use obol_x402::{
    Receipt,
    wire::{PAYMENT_RESPONSE, SettleResponse, X_PAYMENT_RESPONSE},
};
use reqwest::Response;

use crate::{PayError, error::explain};

/// The server's answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Response headers.
    pub headers: HeaderMap,
    /// Response body, not read yet.
    pub body: Body,
    /// The receipt, if the server sent one.
    pub receipt: Option<SettleResponse>,
    /// What was paid, if the receipt says that money moved.
    pub paid: Option<Paid>,
    /// Whether a payment was sent. Without a receipt that need not mean that money moved.
    pub sent_payment: bool,
    /// What was signed for.
    signed: Option<Paid>,
}

/// Money that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paid {
    /// Atomic units that moved.
    pub amount: Amount,
    /// Atomic units that might have moved: more, where less was used than signed for (`upto`).
    pub authorised: Amount,
    /// Ticker of the asset.
    pub symbol: String,
    /// Digits behind the point of one whole unit.
    pub decimals: u8,
    /// Where.
    pub network: &'static Network,
}

impl std::fmt::Display for Paid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} on {}", self.amount.to_decimal(self.decimals), self.symbol, self.network.name)?;
        if self.amount != self.authorised {
            write!(f, ", of {} authorised", self.authorised.to_decimal(self.decimals))?;
        }
        Ok(())
    }
}

/// A response body as it arrives.
#[derive(Debug)]
pub struct Body {
    inner: reqwest::Body,
    trailers: HeaderMap,
}

impl Body {
    /// The next part, `None` at the end.
    ///
    /// # Errors
    /// [`PayError::BrokenBody`] when the connection breaks.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, PayError> {
        while let Some(frame) = self.inner.frame().await {
            match frame.map_err(|e| PayError::BrokenBody(explain(e)))?.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(frame) => self.trailers.extend(frame.into_trailers().unwrap_or_default()),
            }
        }
        Ok(None)
    }

    /// All of it, up to `limit` bytes.
    ///
    /// # Errors
    /// [`PayError::TooLong`] above the limit, [`PayError::BrokenBody`] when the connection breaks.
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes, PayError> {
        let mut all = Vec::new();
        while let Some(part) = self.chunk().await? {
            if all.len() + part.len() > limit {
                return Err(PayError::TooLong(limit));
            }
            all.extend_from_slice(&part);
        }
        Ok(all.into())
    }
}

impl Answer {
    pub(crate) fn new(mut response: Response, signed: Option<Paid>) -> Self {
        let headers = std::mem::take(response.headers_mut());
        let receipt = receipt(&headers);
        Self {
            status: response.status(),
            sent_payment: signed.is_some(),
            paid: moved(receipt.as_ref(), signed.as_ref()),
            receipt,
            headers,
            body: Body { inner: http::Response::from(response).into_body(), trailers: HeaderMap::new() },
            signed,
        }
    }

    /// Takes note of a receipt that came behind the body: what was used is charged at its end.
    pub fn close(&mut self) {
        if self.receipt.is_none() {
            self.receipt = receipt(&self.body.trailers);
            self.paid = moved(self.receipt.as_ref(), self.signed.as_ref());
        }
    }
}

/// What a receipt says of what was signed for.
fn moved(receipt: Option<&SettleResponse>, signed: Option<&Paid>) -> Option<Paid> {
    let receipt = receipt.filter(|receipt| receipt.success)?;
    let signed = signed?.clone();
    Some(Paid { amount: receipt.amount.unwrap_or(signed.amount), ..signed })
}

/// The receipt of either version.
pub(crate) fn receipt(headers: &HeaderMap) -> Option<SettleResponse> {
    [PAYMENT_RESPONSE, X_PAYMENT_RESPONSE].iter().find_map(|name| Receipt::decode(headers.get(*name)?.as_bytes()))
}

/// The start of a body that is not worth failing for: what came until the limit, the end, a break
/// or the time-out.
pub(crate) async fn read_some(response: &mut Response, limit: usize, timeout: Duration) -> Bytes {
    let mut all = Vec::new();
    let read = async {
        while let Ok(Some(part)) = response.chunk().await {
            let room = limit.saturating_sub(all.len());
            all.extend_from_slice(part.get(..room).unwrap_or(&part));
            if all.len() >= limit {
                break;
            }
        }
    };
    // What has come so far is kept either way.
    let _ = tokio::time::timeout(timeout, read).await;
    all.into()
}
