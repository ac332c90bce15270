//! What is counted per offer. It outlives route tables, so that an edit resets no limit.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU32},
};

use arc_swap::ArcSwap;
use http::StatusCode;
use obol_offer::{Amount, Offer, Terms};
use obol_reconcile::RouteTable;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use crate::{
    limits::{Bucket, InFlight},
    metrics::{Metrics, Money, MoneyLabels, OfferLabel, OutcomeLabels, StatusLabels, UpstreamLabels},
};

const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// Answers by status class. 1xx counts as 2xx: a switched protocol is a success.
#[derive(Debug)]
pub(crate) struct Classes([Counter; 4]);

impl Classes {
    /// `offer` is empty for requests that met none.
    pub(crate) fn new(metrics: &Metrics, offer: &str) -> Self {
        Self(CLASSES.map(|status| metrics.requests.get_or_create_owned(&StatusLabels { offer: offer.to_owned(), status })))
    }

    pub(crate) fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        if let Some(counter) = self.0.get(class.min(CLASSES.len() - 1)) {
            counter.inc();
        }
    }
}

/// Counters of one offer.
#[derive(Debug)]
pub(crate) struct OfferState {
    offer: Arc<Offer>,
    pub bucket: Bucket,
    in_flight: Arc<AtomicU32>,
    gauge: Gauge,
    pub challenges: Counter,
    classes: Classes,
    rare: Mutex<Rare>,
}

/// Series that a request on the fast path does not touch.
#[derive(Debug, Default)]
struct Rare {
    payments: HashMap<OutcomeLabels, Counter>,
    captured: HashMap<MoneyLabels, Money>,
    upstream: HashMap<UpstreamLabels, Counter>,
}

impl OfferState {
    fn new(offer: &Arc<Offer>, metrics: &Metrics) -> Self {
        let name = offer.name.to_string();
        let label = OfferLabel { offer: name };
        Self {
            offer: offer.clone(),
            bucket: Bucket::default(),
            in_flight: Arc::new(AtomicU32::new(0)),
            gauge: metrics.in_flight.get_or_create_owned(&label),
            challenges: metrics.challenges.get_or_create_owned(&label),
            classes: Classes::new(metrics, offer.name.as_str()),
            rare: Mutex::default(),
        }
    }

    pub(crate) fn enter(&self, max: Option<u32>) -> Option<InFlight> {
        InFlight::enter(&self.in_flight, &self.gauge, max)
    }

    pub(crate) fn count(&self, status: StatusCode) {
        self.classes.count(status);
    }

    pub(crate) fn count_payment(&self, metrics: &Metrics, terms: Option<&Terms>, outcome: &str) {
        let network = terms.map_or("", |t| t.network.name).to_owned();
        let labels = OutcomeLabels { offer: self.offer.name.to_string(), network, outcome: outcome.to_owned() };
        let mut rare = self.rare.lock().unwrap_or_else(PoisonError::into_inner);
        rare.payments.entry(labels).or_insert_with_key(|labels| metrics.payments.get_or_create_owned(labels)).inc();
    }

    pub(crate) fn count_captured(&self, metrics: &Metrics, terms: &Terms, amount: Amount) {
        let (network, asset) = (terms.network.name.to_owned(), terms.asset.symbol.clone());
        let labels = MoneyLabels { offer: self.offer.name.to_string(), network, asset };
        let mut rare = self.rare.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = rare.captured.entry(labels).or_insert_with_key(|labels| metrics.captured.get_or_create_owned(labels));
        counter.inc_by(amount.to_string().parse().unwrap_or(0.0));
    }

    pub(crate) fn count_upstream_error(&self, metrics: &Metrics, error: &'static str) {
        let labels = UpstreamLabels { offer: self.offer.name.to_string(), error: error.to_owned() };
        let mut rare = self.rare.lock().unwrap_or_else(PoisonError::into_inner);
        rare.upstream.entry(labels).or_insert_with_key(|labels| metrics.upstream_errors.get_or_create_owned(labels)).inc();
    }

    /// Takes the offer's series out of the metrics.
    fn forget(&self, metrics: &Metrics) {
        let offer = self.offer.name.to_string();
        for status in CLASSES {
            metrics.requests.remove(&StatusLabels { offer: offer.clone(), status });
        }
        let label = OfferLabel { offer };
        metrics.challenges.remove(&label);
        metrics.in_flight.remove(&label);
        let rare = self.rare.lock().unwrap_or_else(PoisonError::into_inner);
        rare.payments.keys().for_each(|labels| _ = metrics.payments.remove(labels));
        rare.captured.keys().for_each(|labels| _ = metrics.captured.remove(labels));
        rare.upstream.keys().for_each(|labels| _ = metrics.upstream_errors.remove(labels));
    }
}

type Shard = HashMap<Arc<str>, Arc<OfferState>>;
const SHARDS: usize = 64;

/// The states of all offers by name. Reading takes no lock; a first sight copies one shard.
#[derive(Debug)]
pub(crate) struct Offers {
    seed: RandomState,
    shards: Box<[ArcSwap<Shard>]>,
    writer: Mutex<()>,
}

impl Offers {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| ArcSwap::default()).collect();
        Self { seed: RandomState::new(), shards, writer: Mutex::new(()) }
    }

    pub(crate) fn of(&self, offer: &Arc<Offer>, metrics: &Metrics) -> Arc<OfferState> {
        let name = offer.name.as_str();
        let index = usize::try_from(self.seed.hash_one(name)).unwrap_or_default() % SHARDS;
        let Some(shard) = self.shards.get(index) else { return Arc::new(OfferState::new(offer, metrics)) };
        if let Some(state) = shard.load().get(name) {
            return state.clone();
        }
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = shard.load().get(name) {
            return state.clone();
        }
        let state = Arc::new(OfferState::new(offer, metrics));
        let mut copy = Shard::clone(&shard.load());
        copy.insert(name.into(), state.clone());
        shard.store(Arc::new(copy));
        state
    }

    /// Forgets offers that `table` no longer has.
    pub(crate) fn prune(&self, table: &RouteTable, metrics: &Metrics) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let is_gone = |state: &OfferState| {
            let offer = &state.offer;
            let host = offer.hostname.as_ref().map(AsRef::as_ref);
            table.find(host, &offer.path).is_none_or(|entry| entry.offer.name != offer.name)
        };
        for shard in &self.shards {
            let seen = shard.load_full();
            if !seen.values().any(|state| is_gone(state)) {
                continue;
            }
            let mut copy = Shard::clone(&seen);
            copy.retain(|_, state| {
                let gone = is_gone(state);
                if gone {
                    state.forget(metrics);
                }
                !gone
            });
            shard.store(Arc::new(copy));
        }
    }
}
