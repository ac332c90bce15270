//! One model on sale: how it is served, what is known of it, what it has served.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use http::HeaderValue;
use obol_offer::ModelState;

use crate::{
    config::ModelConfig,
    slots::Slots,
    upstream::Upstream,
    usage::{Report, USAGE, Usage},
};

/// One model on sale.
#[derive(Debug)]
pub struct Model {
    /// How it is served.
    pub config: ModelConfig,
    pub(crate) upstream: Upstream,
    pub(crate) slots: Slots,
    state: Mutex<ModelState>,
    pub(crate) counters: Counters,
}

/// What a model has served.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) input: AtomicU64,
    pub(crate) output: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) uncounted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) busy: AtomicU64,
    pub(crate) failed: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Model {
    /// A model of which nothing is known yet.
    ///
    /// # Errors
    /// When no client can be made for the model server.
    pub fn new(config: ModelConfig) -> Result<Self, std::io::Error> {
        let upstream = Upstream::new(&config.upstream, config.credential.as_ref())?;
        let slots = Slots::new(config.concurrency, config.queue);
        Ok(Self { config, upstream, slots, state: Mutex::new(ModelState::Unknown), counters: Counters::default() })
    }

    /// What is known of the model at its server.
    pub fn state(&self) -> ModelState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_state(&self, next: ModelState) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.reason() != next.reason() {
            let (offer, model) = (&self.config.offer, &self.config.upstream_name);
            if next.is_ready() {
                tracing::info!(offer, model, reason = next.reason(), "model is ready");
            } else {
                tracing::warn!(offer, model, reason = next.reason(), "model is not ready: {}", next.message());
            }
        }
        *state = next;
    }

    /// Counts what a request used, whether or not anybody is there to read it.
    pub(crate) fn count(&self, request_id: Option<&HeaderValue>, report: Report) {
        let counters = &self.counters;
        add(
            match report {
                Report::Counted(_) => &counters.answered,
                Report::Cut(_) => &counters.cut,
                Report::Uncounted => &counters.uncounted,
            },
            1,
        );
        if let Report::Counted(Usage { input, output, .. }) | Report::Cut(Usage { input, output, .. }) = report {
            add(&counters.input, input);
            add(&counters.output, output);
        }
        tracing::debug!(offer = self.config.offer, ?request_id, %report, "{USAGE}");
    }
}
