//! Seams for the deterministic simulation in `crates/sim`: the disk, the latency of a commit, the
//! wall clock. Everything else is what ships.

use std::{
    cell::Cell,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    Cashier, CashierConfig, OpenError, PaymentRecord, SettleOutcome, VerifyOutcome, http,
    journal::{Journal, Storage},
};
use obol_x402::MatchedPayment;

/// The machine that a simulated cashier runs on.
pub trait Host: Send + Sync + 'static {
    /// Opens what is on its disk.
    ///
    /// # Errors
    /// The database's.
    fn open(&self, builder: &redb::Builder) -> Result<redb::Database, redb::DatabaseError>;

    /// How long the next commit takes.
    fn commit_latency(&self) -> Duration;
}

thread_local! {
    /// Unix milliseconds at an instant of this thread's runtime.
    static CLOCK: Cell<Option<(u64, Instant)>> = const { Cell::new(None) };
}

/// Sets this thread's wall clock; from then on it goes with the runtime's.
pub fn set_clock(unix_ms: u64) {
    CLOCK.set(Some((unix_ms, Instant::now())));
}

/// The wall clock of a simulation on this thread.
pub fn now_ms() -> Option<u64> {
    CLOCK.get().map(|(unix_ms, at)| unix_ms.saturating_add(u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)))
}

impl Cashier {
    /// As [`Cashier::open`] on a simulated host. Archives stay unused: they are ordinary files.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_simulated(config: CashierConfig, host: &Arc<dyn Host>) -> Result<Self, OpenError> {
        static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
        let (journal, unknown) = Journal::open_simulated(&config.journal, host)?;
        let client = match CLIENT.get() {
            Some(client) => client.clone(),
            None => CLIENT.get_or_init(|| http::client().unwrap_or_default()).clone(),
        };
        Ok(Self::assemble(config, journal, unknown, client))
    }

    /// Every payment of the journal; `None` while it cannot be read.
    pub fn simulated_rows(&self) -> Option<Vec<PaymentRecord>> {
        let mut rows = Vec::new();
        let Storage::File(store) = &self.core.journal.storage else { return None };
        store.each(|key, row| rows.push(PaymentRecord::of(&key, &row))).ok()?;
        Some(rows)
    }
}

/// What is made of a facilitator's answer to `/verify` over HTTP.
pub fn read_verify(status: u16, body: &[u8], payment: &MatchedPayment) -> VerifyOutcome {
    http::answer::verify(status, body, payment)
}

/// What is made of a facilitator's answer to `/settle` over HTTP.
pub fn read_settle(status: u16, body: &[u8], payment: &MatchedPayment) -> SettleOutcome {
    http::answer::settle(status, body, payment)
}
