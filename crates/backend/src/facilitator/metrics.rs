//! What a facilitator counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// Labels of a request: which step, on which network (empty when it named none that is served), and
/// how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Labels {
    pub step: &'static str,
    pub network: &'static str,
    pub outcome: &'static str,
}

pub(super) struct Metrics {
    registry: Registry,
    pub requests: Family<Labels, Counter>,
    pub settle: Histogram,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("obol_facilitator");
        let requests = Family::default();
        let settle = Histogram::new(exponential_buckets(0.01, 2.0, 14));
        registry.register("requests", "Requests by step, network and outcome", Family::clone(&requests));
        registry.register("settle_seconds", "Time to settle a payment, however it ended", settle.clone());
        Self { registry, requests, settle }
    }

    /// In the format of OpenMetrics.
    pub fn encode(&self) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut page, &self.registry);
        page
    }
}
