//! How many requests a model works on at once, and how many may wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A request's place at the model; given back when dropped.
pub(crate) type Slot = OwnedSemaphorePermit;

/// The places at one model.
#[derive(Debug)]
pub(crate) struct Slots {
    running: Arc<Semaphore>,
    total: usize,
    waiting: AtomicUsize,
    queue: usize,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// The queue is full.
    Full,
    /// No turn came in time.
    TooLong,
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Slots {
    pub(crate) fn new(total: usize, queue: usize) -> Self {
        let total = total.clamp(1, Semaphore::MAX_PERMITS);
        Self { running: Arc::new(Semaphore::new(total)), total, waiting: AtomicUsize::new(0), queue }
    }

    /// A place, in the order of arrival.
    pub(crate) async fn enter(&self, patience: Duration) -> Result<Slot, Busy> {
        if let Ok(slot) = self.running.clone().try_acquire_owned() {
            return Ok(slot);
        }
        let room = |waiting| (waiting < self.queue).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).map_err(|_| Busy::Full)?;
        // Given back too when the buyer goes while waiting.
        let _waiting = Waiting(&self.waiting);
        match tokio::time::timeout(patience, self.running.clone().acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(Busy::TooLong),
        }
    }

    pub(crate) fn running(&self) -> usize {
        self.total.saturating_sub(self.running.available_permits())
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_queue_is_bounded_and_a_place_comes_back() {
        let slots = Arc::new(Slots::new(1, 1));
        let first = slots.enter(Duration::ZERO).await.unwrap();
        let second = tokio::spawn({
            let slots = slots.clone();
            async move { slots.enter(Duration::from_secs(10)).await }
        });
        while slots.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(slots.enter(Duration::ZERO).await.unwrap_err(), Busy::Full);
        drop(first);
        let second = second.await.unwrap().unwrap();
        assert_eq!((slots.running(), slots.waiting()), (1, 0));
        assert_eq!(slots.enter(Duration::from_millis(5)).await.unwrap_err(), Busy::TooLong);
        drop(second);
        assert_eq!((slots.running(), slots.waiting()), (0, 0));
    }
}
