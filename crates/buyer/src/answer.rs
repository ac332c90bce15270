//! What came back.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
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
}

/// Money that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paid {
    /// Atomic units.
    pub amount: Amount,
    /// Ticker of the asset.
    pub symbol: String,
    /// Digits behind the point of one whole unit.
    pub decimals: u8,
    /// Where.
    pub network: &'static Network,
}

impl std::fmt::Display for Paid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} on {}", self.amount.to_decimal(self.decimals), self.symbol, self.network.name)
    }
}

/// A response body as it arrives.
#[derive(Debug)]
pub struct Body(Response);

impl Body {
    /// The next part, `None` at the end.
    ///
    /// # Errors
    /// [`PayError::BrokenBody`] when the connection breaks.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, PayError> {
        self.0.chunk().await.map_err(|e| PayError::BrokenBody(explain(e)))
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
    pub(crate) fn new(mut response: Response, paid: Option<Paid>) -> Self {
        let receipt = receipt(&response);
        let moved = receipt.as_ref().filter(|receipt| receipt.success);
        Self {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            sent_payment: paid.is_some(),
            paid: moved.and_then(|receipt| paid.map(|paid| Paid { amount: receipt.amount.unwrap_or(paid.amount), ..paid })),
            receipt,
            body: Body(response),
        }
    }
}

/// The receipt of either version.
pub(crate) fn receipt(response: &Response) -> Option<SettleResponse> {
    [PAYMENT_RESPONSE, X_PAYMENT_RESPONSE].iter().find_map(|name| Receipt::decode(response.headers().get(*name)?.as_bytes()))
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
