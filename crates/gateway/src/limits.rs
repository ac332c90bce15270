//! Bounds: requests in progress, requests per second, challenges per client. Lock-free.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus_client::metrics::gauge::Gauge;

/// A token bucket of one second's worth (generic cell rate algorithm): one atomic word.
#[derive(Debug, Default)]
pub(crate) struct Bucket(AtomicU64);

const SECOND: u64 = 1_000_000_000;

impl Bucket {
    /// Takes one token at `now` (nanoseconds of any clock that only grows); else how long until
    /// there is one.
    pub(crate) fn take(&self, now: u64, per_second: u32) -> Result<(), Duration> {
        let interval = SECOND / u64::from(per_second.max(1));
        let mut paid_until = self.0.load(Ordering::Relaxed);
        loop {
            let next = paid_until.max(now) + interval;
            // Room for a whole second's worth at once.
            if next > now + SECOND.max(interval) {
                return Err(Duration::from_nanos(next - now - SECOND));
            }
            match self.0.compare_exchange_weak(paid_until, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(seen) => paid_until = seen,
            }
        }
    }
}

/// Nanoseconds since the gateway was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn nanos(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Challenges per client address. A fixed number of buckets bounds the memory; two clients that
/// share one by chance share its allowance, and the seed keeps that from being arranged.
#[derive(Debug)]
pub(crate) struct ClientRate {
    per_second: u32,
    seed: RandomState,
    buckets: Box<[Bucket]>,
}

const CLIENT_BUCKETS: usize = 1 << 16;

impl ClientRate {
    /// `per_second` 0 is no bound.
    pub(crate) fn new(per_second: u32) -> Self {
        let count = if per_second == 0 { 0 } else { CLIENT_BUCKETS };
        Self { per_second, seed: RandomState::new(), buckets: (0..count).map(|_| Bucket::default()).collect() }
    }

    pub(crate) fn take(&self, client: IpAddr, clock: Clock) -> Result<(), Duration> {
        if self.per_second == 0 {
            return Ok(());
        }
        // An IPv6 client owns at least its /64.
        let key = match client {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or((ip.to_bits() >> 64) as u64, |ip| u64::from(ip.to_bits())),
        };
        let index = usize::try_from(self.seed.hash_one(key)).unwrap_or_default() % CLIENT_BUCKETS;
        self.buckets.get(index).map_or(Ok(()), |bucket| bucket.take(clock.nanos(), self.per_second))
    }
}

/// One request in progress, counted until dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    count: Arc<AtomicU32>,
    gauge: Gauge,
}

impl InFlight {
    /// `None` when `max` are in progress already.
    pub(crate) fn enter(count: &Arc<AtomicU32>, gauge: &Gauge, max: Option<u32>) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        gauge.inc();
        let entered = Self { count: count.clone(), gauge: gauge.clone() };
        max.is_none_or(|max| before < max).then_some(entered)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_rate_and_no_more() {
        let bucket = Bucket::default();
        let start = 7 * SECOND;
        assert_eq!((0..20).filter(|_| bucket.take(start, 10).is_ok()).count(), 10);
        let wait = bucket.take(start, 10).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(100), "{wait:?}");
        assert_eq!((0..20).filter(|_| bucket.take(start + SECOND / 2, 10).is_ok()).count(), 5);
    }

    #[test]
    fn clients_are_bounded_apart() {
        let (rate, clock) = (ClientRate::new(5), Clock::start());
        let taken = |ip: [u8; 4]| (0..50).filter(|_| rate.take(ip.into(), clock).is_ok()).count();
        assert!((5..10).contains(&taken([127, 0, 0, 1])));
        assert!((5..10).contains(&taken([127, 0, 0, 2])));
        assert!((0..50).all(|_| ClientRate::new(0).take([1, 1, 1, 1].into(), clock).is_ok()));
    }

    #[test]
    fn requests_in_progress_are_counted_until_dropped() {
        let (count, gauge) = (Arc::new(AtomicU32::new(0)), Gauge::default());
        let first = InFlight::enter(&count, &gauge, Some(1));
        assert!(first.is_some());
        assert!(InFlight::enter(&count, &gauge, Some(1)).is_none());
        drop(first);
        assert_eq!((count.load(Ordering::Relaxed), gauge.get()), (0, 0));
        assert!(InFlight::enter(&count, &gauge, Some(1)).is_some());
    }
}
