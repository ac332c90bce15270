//! Counters since the start, for metrics.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::Refusal;

/// Counters since the cashier opened. Times are sums, to be divided by their counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CashierStats {
    /// Permits given.
    pub admitted: u64,
    /// Refusals by [`Refusal::code`].
    pub refused: [(&'static str, u64); 11],
    /// Permits given back without asking for money.
    pub released: u64,
    /// Captures that moved money.
    pub settled: u64,
    /// Captures that the facilitator refused.
    pub settle_refused: u64,
    /// Captures that never reached the facilitator.
    pub settle_not_asked: u64,
    /// Captures of unknown outcome.
    pub settle_unknown: u64,
    /// Unknown captures of this or an earlier run that turned out settled.
    pub recovered: u64,
    /// Payments of unknown outcome at this moment.
    pub unknown_now: u64,
    /// Answers handed over in full.
    pub delivered: u64,
    /// Settled payments whose answer did not reach the buyer.
    pub owed: u64,
    /// Captures under way at this moment.
    pub settling_now: u64,
    /// Time spent in admission, successful or not.
    pub admit_time: Duration,
    /// Time spent in settlement, however it ended.
    pub settle_time: Duration,
}

macro_rules! counters {
    ($($name:ident),*) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            refused: [AtomicU64; 11],
            admit_micros: AtomicU64,
            settle_micros: AtomicU64,
            $(pub $name: Counter),*
        }
        impl Counters {
            pub fn snapshot(&self, unknown_now: usize, settling_now: usize) -> CashierStats {
                let mut refused = Refusal::CODES.map(|code| (code, 0));
                for (slot, counter) in refused.iter_mut().zip(&self.refused) {
                    slot.1 = counter.load(Relaxed);
                }
                CashierStats {
                    refused,
                    unknown_now: unknown_now as u64,
                    settling_now: settling_now as u64,
                    admit_time: Duration::from_micros(self.admit_micros.load(Relaxed)),
                    settle_time: Duration::from_micros(self.settle_micros.load(Relaxed)),
                    $($name: self.$name.0.load(Relaxed)),*
                }
            }
        }
    };
}
counters!(admitted, released, settled, settle_refused, settle_not_asked, settle_unknown, recovered, delivered, owed);

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

impl Counters {
    pub fn refuse(&self, refusal: &Refusal) {
        let index = Refusal::CODES.iter().position(|code| *code == refusal.code());
        if let Some(counter) = index.and_then(|i| self.refused.get(i)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub fn admit_took(&self, time: Duration) {
        self.admit_micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub fn settle_took(&self, time: Duration) {
        self.settle_micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}
