//! Keeps requests away from a facilitator that does not answer. Pure: "now" is an argument.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const THRESHOLD: u32 = 3;
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60);

/// A circuit breaker: closed; open for 10 s, doubling to 60 s; then half-open for one probe.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Instant,
    wait: Duration,
    probing: bool,
}

impl Breaker {
    /// Whether a request may go; while half-open, only one at a time.
    pub fn enter(&mut self, now: Instant) -> bool {
        match &mut self.open {
            None => true,
            Some(open) if now < open.until || open.probing => false,
            Some(open) => {
                open.probing = true;
                true
            }
        }
    }

    /// It answered.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It did not.
    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        match self.open {
            Some(Open { wait, probing: true, .. }) => self.trip(now, (wait * 2).min(LONGEST)),
            None if self.failures >= THRESHOLD => self.trip(now, FIRST),
            // Others that were under way when it opened.
            _ => {}
        }
    }

    /// The request was given up before there was an answer.
    pub fn abandoned(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = false;
        }
    }

    fn trip(&mut self, now: Instant, wait: Duration) {
        self.open = Some(Open { until: now + wait, wait, probing: false });
    }

    /// Whether requests go freely.
    pub fn is_closed(&self) -> bool {
        self.open.is_none()
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_three_failures_and_lets_one_probe_through() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..3 {
            assert!(breaker.enter(start));
            breaker.failed(start);
        }
        assert!(!breaker.enter(start + Duration::from_secs(9)));
        let then = start + FIRST;
        assert!(breaker.enter(then));
        assert!(!breaker.enter(then), "one probe at a time");
        breaker.abandoned();
        assert!(breaker.enter(then), "an abandoned probe is no probe");
        breaker.failed(then);
        assert!(!breaker.enter(then + Duration::from_secs(19)));
        assert!(breaker.enter(then + Duration::from_secs(20)));
        breaker.succeeded();
        assert!(breaker.is_closed() && breaker.enter(then));
    }

    #[test]
    fn it_waits_a_minute_at_most() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..3 {
            breaker.failed(now);
        }
        for _ in 0..10 {
            now += LONGEST;
            assert!(breaker.enter(now));
            breaker.failed(now);
        }
        assert!(!breaker.enter(now + LONGEST - Duration::from_secs(1)));
        assert!(breaker.enter(now + LONGEST));
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            breaker.failed(Instant::now());
            breaker.failed(Instant::now());
            breaker.succeeded();
        }
        assert!(breaker.is_closed());
    }
}
