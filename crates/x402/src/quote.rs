//! The price of a route, prepared once so that a challenge is a copy and not a computation.

use obol_offer::Terms;

/// What buyers are told besides the price.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuoteInfo {
    /// Shown to people; empty when the seller wrote none.
    pub description: String,
    /// Media type of the answer; empty when unknown.
    pub mime_type: String,
    /// Name of the service.
    pub service_name: String,
}

/// The terms of one route with both wire forms prepared.
#[derive(Clone, Debug)]
pub struct Quote {
    terms: Vec<Terms>,
    info: QuoteInfo,
}

/// One `402` for clients of both versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Value of `PAYMENT-REQUIRED`: base64 of the v2 JSON.
    pub header: String,
    /// Body: the v1 JSON.
    pub body: String,
}

impl Quote {
    /// Prepares the challenge of a route.
    pub fn new(terms: Vec<Terms>, info: QuoteInfo) -> Self {
        Self { terms, info }
    }

    /// The accepted payments, in the seller's order.
    pub fn terms(&self) -> &[Terms] {
        &self.terms
    }

    /// What buyers are told besides the price.
    pub fn info(&self) -> &QuoteInfo {
        &self.info
    }

    /// The challenge for one URL. `error` says why a payment is asked for (again).
    pub fn challenge(&self, resource_url: &str, error: &str) -> Challenge {
        let _ = (resource_url, error);
        todo!()
    }
}
