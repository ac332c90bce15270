//! Who works on which payment at this moment: at most one.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use obol_offer::B256;
use obol_payment::Answer;
use obol_x402::ReplayKey;
use tokio::sync::watch;

use crate::{Refusal, refusal::Known};

/// What is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ClaimKey {
    Replay(ReplayKey),
    /// Of a payment whose signature only the facilitator can check: a forger may not lock out the
    /// payer, so the replay key is claimed after `/verify`.
    Payload([u8; 32]),
    /// Of a payer's own name for a purchase.
    Named(B256),
}

/// Payments being worked on.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<HashMap<ClaimKey, Work>>);

/// One payment being worked on.
#[derive(Debug)]
struct Work {
    fingerprint: B256,
    /// What became of it, until the journal has it too.
    known: Option<Box<Known>>,
    /// Dropped when something is known, or nobody works on it any more. Made by the first that waits.
    over: Option<watch::Sender<()>>,
}

/// Somebody else works on the payment.
#[derive(Debug)]
pub(crate) enum Taken {
    /// And this became of it.
    Known(Box<Known>),
    /// For the same request: its end can be waited for.
    Same(watch::Receiver<()>),
    /// For another request.
    Other,
}

impl Taken {
    /// What the buyer of a request is told.
    pub fn refusal(self, fingerprint: B256) -> Refusal {
        match self {
            Self::Known(known) => known.refusal(fingerprint).unwrap_or(Refusal::InProgress),
            Self::Same(_) | Self::Other => Refusal::InProgress,
        }
    }
}

/// Held by the one that works on a payment; dropped when the journal can answer for it.
#[derive(Debug)]
pub(crate) struct Claim {
    claims: Arc<Claims>,
    fingerprint: B256,
    keys: Vec<ClaimKey>,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, HashMap<ClaimKey, Work>> {
        // The map is whole between any two operations, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, key: ClaimKey, fingerprint: B256) -> Result<(), Taken> {
        match self.lock().entry(key) {
            Entry::Occupied(mut taken) => {
                let work = taken.get_mut();
                // One that may be used again is free as soon as the journal says so.
                let known = work.known.as_ref().filter(|known| Answer::of(known.state) != Answer::Usable);
                Err(match known {
                    Some(known) => Taken::Known(known.clone()),
                    None if work.fingerprint != fingerprint => Taken::Other,
                    None => Taken::Same(work.over.get_or_insert_with(|| watch::Sender::new(())).subscribe()),
                })
            }
            Entry::Vacant(free) => {
                free.insert(Work { fingerprint, known: None, over: None });
                Ok(())
            }
        }
    }

    /// Claims a payment for a request.
    pub fn claim(self: &Arc<Self>, key: ClaimKey, fingerprint: B256) -> Result<Claim, Taken> {
        self.take(key, fingerprint)?;
        Ok(Claim { claims: Arc::clone(self), fingerprint, keys: vec![key] })
    }

    /// Whether somebody works on it, and what became of it so far.
    pub fn look(&self, key: &ClaimKey) -> Option<Option<Known>> {
        self.lock().get(key).map(|work| work.known.as_deref().cloned())
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

impl Claim {
    /// Claims a second key for the same payment.
    pub fn add(&mut self, key: ClaimKey) -> Result<(), Taken> {
        self.claims.take(key, self.fingerprint)?;
        self.keys.push(key);
        Ok(())
    }

    /// Says what became of the payment, for copies that come before the journal knows.
    pub fn tell(&self, known: &Known) {
        let mut claims = self.claims.lock();
        for key in &self.keys {
            let known = Some(Box::new(known.clone()));
            claims.insert(*key, Work { fingerprint: self.fingerprint, known, over: None });
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.claims.lock();
        for key in &self.keys {
            claims.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claim_at_a_time_and_none_is_left_behind() {
        let claims = Arc::new(Claims::default());
        let key = ClaimKey::Payload([1; 32]);
        let mut first = claims.claim(key, B256::ZERO).unwrap();
        assert!(claims.claim(key, B256::ZERO).is_err());
        first.add(ClaimKey::Payload([2; 32])).unwrap();
        assert!(first.add(ClaimKey::Payload([2; 32])).is_err());
        drop(first);
        assert!(claims.is_empty());
        assert!(claims.claim(key, B256::ZERO).is_ok());
    }
}
