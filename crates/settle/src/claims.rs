//! Who works on which payment at this moment: at most one.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use obol_x402::ReplayKey;

use crate::refusal::Known;

/// What is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ClaimKey {
    Replay(ReplayKey),
    /// Of a payment whose signature only the facilitator can check: a forger may not lock out the
    /// payer, so the replay key is claimed after `/verify`.
    Payload([u8; 32]),
}

/// Payments being worked on. A value is what became of one, until the journal has it too.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<HashMap<ClaimKey, Option<Box<Known>>>>);

/// Held by the one that works on a payment; dropped when the journal can answer for it.
#[derive(Debug)]
pub(crate) struct Claim {
    claims: Arc<Claims>,
    keys: Vec<ClaimKey>,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, HashMap<ClaimKey, Option<Box<Known>>>> {
        // The map is whole between any two operations, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, key: ClaimKey) -> Result<(), Option<Box<Known>>> {
        match self.lock().entry(key) {
            Entry::Occupied(taken) => Err(taken.get().clone()),
            Entry::Vacant(free) => {
                free.insert(None);
                Ok(())
            }
        }
    }

    /// Claims a payment; the error is what is known of it when somebody else has it.
    pub fn claim(self: &Arc<Self>, key: ClaimKey) -> Result<Claim, Option<Box<Known>>> {
        self.take(key)?;
        Ok(Claim { claims: Arc::clone(self), keys: vec![key] })
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

impl Claim {
    /// Claims a second key for the same payment.
    pub fn add(&mut self, key: ClaimKey) -> Result<(), Option<Box<Known>>> {
        self.claims.take(key)?;
        self.keys.push(key);
        Ok(())
    }

    /// Says what became of the payment, for copies that come before the journal knows.
    pub fn tell(&self, known: &Known) {
        let mut claims = self.claims.lock();
        for key in &self.keys {
            claims.insert(*key, Some(Box::new(known.clone())));
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
        let mut first = claims.claim(key).unwrap();
        assert!(claims.claim(key).is_err());
        first.add(ClaimKey::Payload([2; 32])).unwrap();
        assert!(first.add(ClaimKey::Payload([2; 32])).is_err());
        drop(first);
        assert!(claims.is_empty());
        assert!(claims.claim(key).is_ok());
    }
}
