//! What operators can graph. Money here is for graphs; the journal is the ledger.

use std::sync::atomic::AtomicU64;

use obol_settle::Cashier;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::cashier_metrics::CashierCollector;

/// One offer's series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfferLabel {
    pub offer: String,
}

/// Requests by status class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StatusLabels {
    pub offer: String,
    pub status: &'static str,
}

/// Payments by outcome code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabels {
    pub offer: String,
    pub network: String,
    pub outcome: String,
}

/// Money by currency.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct MoneyLabels {
    pub offer: String,
    pub network: String,
    pub asset: String,
}

/// Upstream failures by code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct UpstreamLabels {
    pub offer: String,
    pub error: String,
}

/// Settlements by chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct NetworkLabel {
    pub network: String,
}

/// Refused messages by code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CodeLabel {
    pub code: &'static str,
}

pub(crate) type Money = Counter<f64, AtomicU64>;

/// All series.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub requests: Family<StatusLabels, Counter>,
    pub challenges: Family<OfferLabel, Counter>,
    pub payments: Family<OutcomeLabels, Counter>,
    pub captured: Family<MoneyLabels, Money>,
    pub settle: Family<NetworkLabel, Histogram, fn() -> Histogram>,
    pub in_flight: Family<OfferLabel, Gauge>,
    pub upstream_errors: Family<UpstreamLabels, Counter>,
    pub framing_refused: Family<CodeLabel, Counter>,
    pub connections: Gauge,
}

impl Metrics {
    pub(crate) fn new(cashier: &Cashier) -> Self {
        let mut registry = Registry::with_prefix("obol_gateway");
        let settle_buckets: fn() -> Histogram = || Histogram::new([0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0]);
        let metrics = Self {
            requests: Family::default(),
            challenges: Family::default(),
            payments: Family::default(),
            captured: Family::default(),
            settle: Family::new_with_constructor(settle_buckets),
            in_flight: Family::default(),
            upstream_errors: Family::default(),
            framing_refused: Family::default(),
            connections: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("requests", "Answered requests by status class", metrics.requests.clone());
        registry.register("challenges", "Requests answered with 402 because they carried no payment", metrics.challenges.clone());
        registry.register("payments", "Payments presented, by outcome", metrics.payments.clone());
        registry.register("captured", "Money captured, in atomic units of the asset", metrics.captured.clone());
        registry.register_with_unit("settle", "Time from upstream answer to settlement outcome", Unit::Seconds, metrics.settle.clone());
        registry.register("in_flight", "Requests in progress at the upstream", metrics.in_flight.clone());
        registry.register("upstream_errors", "Requests that the upstream failed, by code", metrics.upstream_errors.clone());
        registry.register("framing_refused", "Messages refused for their framing, by code", metrics.framing_refused.clone());
        registry.register("connections", "Open buyer connections", metrics.connections.clone());
        registry.register_collector(Box::new(CashierCollector(cashier.clone())));
        Self { registry, ..metrics }
    }

    /// The OpenMetrics text.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
