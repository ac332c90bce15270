//! What a controller counts, as text for operators.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use crate::plan::Write;

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    passes: AtomicU64,
    offers: AtomicU64,
    due: AtomicU64,
    micros: AtomicU64,
    writes: AtomicU64,
    failures: AtomicU64,
    status_writes: AtomicU64,
    leads: AtomicBool,
    synced: AtomicBool,
}

impl Metrics {
    pub(crate) fn passed(&self, offers: usize, due: usize, took: Duration, leads: bool) {
        self.passes.fetch_add(1, Ordering::Relaxed);
        self.offers.store(offers as u64, Ordering::Relaxed);
        self.due.store(due as u64, Ordering::Relaxed);
        self.micros.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.leads.store(leads, Ordering::Relaxed);
        self.synced.store(true, Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self, write: &Write, well: bool) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.failures.fetch_add(u64::from(!well), Ordering::Relaxed);
        self.status_writes.fetch_add(u64::from(matches!(write, Write::Status(..))), Ordering::Relaxed);
    }

    /// Whether all offers have been seen once.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    /// Writes so far, of any kind.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// In the text format of OpenMetrics.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, kind: &str, help: &str, value: u64| {
            let suffix = if kind == "counter" { "_total" } else { "" };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{suffix} {value}");
        };
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        line("obol_controller_passes", "counter", "Passes over all offers.", read(&self.passes));
        line("obol_controller_offers", "gauge", "ServiceOffers seen.", read(&self.offers));
        line("obol_controller_due", "gauge", "Writes that the last pass found due.", read(&self.due));
        line("obol_controller_pass_microseconds", "gauge", "Time of the last pass without its writes.", read(&self.micros));
        line("obol_controller_writes", "counter", "Writes to the API server.", read(&self.writes));
        line("obol_controller_status_writes", "counter", "Writes of a status.", read(&self.status_writes));
        line("obol_controller_write_failures", "counter", "Writes that failed.", read(&self.failures));
        line("obol_controller_leader", "gauge", "Whether this controller writes.", u64::from(self.leads.load(Ordering::Relaxed)));
        text.push_str("# EOF\n");
        text
    }
}
