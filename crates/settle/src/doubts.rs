//! Which payer has a settlement of unknown outcome for which request.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use obol_offer::{Address, B256};
use obol_x402::ReplayKey;

type Open = HashMap<(Address, B256), Vec<(ReplayKey, Option<String>)>>;

/// Unknown settlements by payer and request fingerprint. While there is one, no second payment of
/// that payer is taken for that request: an honest buyer would pay twice.
#[derive(Debug, Default)]
pub(crate) struct Doubts(Mutex<Open>);

impl Doubts {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, key: ReplayKey, fingerprint: B256, transaction: Option<String>) {
        let mut open = self.lock();
        let list = open.entry((key.payer, fingerprint)).or_default();
        match list.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = transaction.or(known.take()),
            None => list.push((key, transaction)),
        }
    }

    pub fn has(&self, key: &ReplayKey, fingerprint: B256) -> bool {
        self.lock().get(&(key.payer, fingerprint)).is_some_and(|list| list.iter().any(|(known, _)| known == key))
    }

    pub fn remove(&self, key: &ReplayKey, fingerprint: B256) {
        let mut open = self.lock();
        if let Some(list) = open.get_mut(&(key.payer, fingerprint)) {
            list.retain(|(known, _)| known != key);
            if list.is_empty() {
                open.remove(&(key.payer, fingerprint));
            }
        }
    }

    /// `Some` with the hash, if one is known, while something is unknown.
    pub fn find(&self, payer: Address, fingerprint: B256) -> Option<Option<String>> {
        let open = self.lock();
        open.get(&(payer, fingerprint)).map(|list| list.iter().find_map(|(_, transaction)| transaction.clone()))
    }

    /// How many settlements are unknown.
    pub fn len(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }
}
