//! What payers may still owe: metered answers leave before their payments are settled, and until then a payer can
//! spend the money elsewhere.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use obol_offer::{Address, Amount};
use obol_x402::{MatchedPayment, ReplayKey};

/// Who owes in what: chain, token, payer.
type Debtor = (u64, Address, Address);

/// Unsettled metered payments by payer. It is kept in memory: after a restart only the payments of unknown outcome
/// count, which is all that then is unsettled.
#[derive(Debug, Default)]
pub(crate) struct Exposures(Mutex<HashMap<Debtor, HashMap<ReplayKey, Amount>>>);

impl Exposures {
    fn lock(&self) -> MutexGuard<'_, HashMap<Debtor, HashMap<ReplayKey, Amount>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what a payment may come to; `None` when its payer then owes more than `limit`. One payment alone is
    /// always let in: that bound is the offer's own ceiling.
    pub fn enter(self: &Arc<Self>, payment: &MatchedPayment, limit: Amount) -> Option<Exposed> {
        let (debtor, key) = (debtor(payment), payment.replay_key());
        let mut open = self.lock();
        let debts = open.entry(debtor).or_default();
        let others =
            debts.iter().filter(|(other, _)| **other != key).fold(Amount::ZERO, |sum, (_, debt)| Amount(sum.0.saturating_add(debt.0)));
        if others != Amount::ZERO && others.0.saturating_add(payment.terms.amount.0) > limit.0 {
            return None;
        }
        let before = debts.insert(key, payment.terms.amount);
        Some(Exposed { all: Arc::clone(self), debtor, key, before })
    }

    /// Counts what a payment of unknown outcome may come to.
    pub fn remember(&self, payment: &MatchedPayment) {
        self.lock().entry(debtor(payment)).or_default().insert(payment.replay_key(), payment.charge);
    }

    /// The outcome of a payment is known.
    pub fn forget(&self, key: &ReplayKey) {
        self.lock().retain(|_, debts| {
            debts.remove(key);
            !debts.is_empty()
        });
    }
}

fn debtor(payment: &MatchedPayment) -> Debtor {
    (payment.terms.network.chain_id, payment.terms.asset.address, payment.authorization.from)
}

/// One payment that is counted until this is dropped; then it owes what it did before.
#[derive(Debug)]
pub(crate) struct Exposed {
    all: Arc<Exposures>,
    debtor: Debtor,
    key: ReplayKey,
    /// What it owes for an earlier answer.
    before: Option<Amount>,
}

impl Exposed {
    /// It is not settled: it stays counted, with what is owed.
    pub fn stay(mut self, owed: Amount) {
        self.before = Some(owed);
    }

    /// It is settled, and owes nothing.
    pub fn settled(mut self) {
        self.before = None;
    }
}

impl Drop for Exposed {
    fn drop(&mut self) {
        match self.before {
            Some(owed) => _ = self.all.lock().entry(self.debtor).or_default().insert(self.key, owed),
            None => self.all.forget(&self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_payment::payment;

    #[test]
    fn a_payer_owes_no_more_than_the_limit_and_what_is_refused_stays_owed() {
        let all = Arc::new(Exposures::default());
        let limit = Amount::from(2500);
        let (first, second) = (all.enter(&payment(1), limit), all.enter(&payment(2), limit));
        assert!(first.is_some() && second.is_some(), "1000 each");
        assert!(all.enter(&payment(3), limit).is_none());
        drop(first);
        let third = all.enter(&payment(3), limit).unwrap();
        third.stay(1800.into());
        assert!(all.enter(&payment(4), limit).is_none(), "1000 under way and 1800 owed");
        drop(second);
        assert!(all.enter(&payment(4), limit).is_none(), "1800 owed");
        assert!(all.enter(&payment(3), limit).is_some(), "its own debt does not stand in its way");
        assert!(all.enter(&payment(5), limit).is_none(), "and stays, when it is given back");
        all.enter(&payment(3), limit).unwrap().settled();
        assert!(all.enter(&payment(5), limit).is_some(), "until it is paid");
        assert!(all.lock().is_empty());
    }

    #[test]
    fn one_payment_alone_is_let_in() {
        let all = Arc::new(Exposures::default());
        let alone = all.enter(&payment(1), Amount::from(1));
        assert!(alone.is_some());
        assert!(all.enter(&payment(2), Amount::from(1)).is_none());
        all.remember(&payment(1));
        all.forget(&payment(1).replay_key());
        assert!(all.lock().is_empty());
    }
}
