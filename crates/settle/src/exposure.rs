//! What payers may still owe: metered answers leave before their payments are settled, and until then a payer can
//! spend the money elsewhere.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use obol_offer::{Address, Amount};
use obol_x402::{MatchedPayment, ReplayKey};

use crate::journal::Row;

/// Who owes in what: chain, token, payer.
type Debtor = (u64, Address, Address);

/// Unsettled metered payments by payer. It is kept in memory: after a restart only the payments of unknown outcome
/// count. Where several processes share the journal, its rows are counted instead.
#[derive(Debug, Default)]
pub(crate) struct Exposures(Mutex<HashMap<Debtor, HashMap<ReplayKey, Debt>>>);

/// What one payment may come to.
#[derive(Clone, Copy, Debug, Default)]
struct Debt {
    /// For answers that have left and never will be paid for. A payment pays for its last answer only.
    unpaid: Amount,
    /// For the one that is not settled yet.
    under_way: Amount,
}

impl Exposures {
    fn lock(&self) -> MutexGuard<'_, HashMap<Debtor, HashMap<ReplayKey, Debt>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what a payment may come to; `None` when its payer then owes more than `limit`. Who owes nothing is
    /// always let in: that bound is the offer's own ceiling.
    pub fn enter(self: &Arc<Self>, payment: &MatchedPayment, limit: Amount) -> Option<Exposed> {
        let (key, amount) = (payment.replay_key(), payment.terms.amount);
        let debtor = debtor(&key, payment.terms.asset.address);
        let mut open = self.lock();
        let debts = open.entry(debtor).or_default();
        let owed = debts.values().fold(Amount::ZERO, |sum, debt| sum.saturating_add(debt.unpaid).saturating_add(debt.under_way));
        if !may_owe(owed, amount, limit) {
            return None;
        }
        debts.entry(key).or_default().under_way = amount;
        Some(Exposed { all: Arc::clone(self), debtor, key, left: false })
    }

    /// Counts what a payment of unknown outcome may come to.
    pub fn remember(&self, key: &ReplayKey, row: &Row) {
        self.change(debtor(key, row.asset(key)), *key, |debt| debt.under_way = row.charge());
    }

    /// The outcome of a payment is known: it `pays`, or an answer that has left does not get paid.
    pub fn conclude(&self, key: &ReplayKey, row: &Row, pays: bool) {
        let lost = !pays && row.ask.as_ref().is_some_and(|ask| ask.delivered);
        self.change(debtor(key, row.asset(key)), *key, |debt| debt.end(lost));
    }

    fn change(&self, debtor: Debtor, key: ReplayKey, change: impl FnOnce(&mut Debt)) {
        let mut open = self.lock();
        let debts = open.entry(debtor).or_default();
        let debt = debts.entry(key).or_default();
        change(debt);
        if debt.unpaid == Amount::ZERO && debt.under_way == Amount::ZERO {
            debts.remove(&key);
        }
        if debts.is_empty() {
            open.remove(&debtor);
        }
    }
}

impl Debt {
    fn end(&mut self, lost: bool) {
        let under_way = std::mem::take(&mut self.under_way);
        if lost {
            self.unpaid = self.unpaid.saturating_add(under_way);
        }
    }
}

/// Whether somebody who owes something may owe `more`.
pub(crate) fn may_owe(owed: Amount, more: Amount, limit: Amount) -> bool {
    owed == Amount::ZERO || owed.saturating_add(more) <= limit
}

fn debtor(key: &ReplayKey, asset: Address) -> Debtor {
    (key.chain_id, asset, key.payer)
}

/// One payment that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Exposed {
    all: Arc<Exposures>,
    debtor: Debtor,
    key: ReplayKey,
    /// Somebody else says when it is over.
    left: bool,
}

impl Exposed {
    /// Nobody knows whether it is settled: it stays counted, with what it comes to.
    pub fn stay(mut self, owed: Amount) {
        self.left = true;
        self.all.change(self.debtor, self.key, |debt| debt.under_way = owed);
    }

    /// The answer has left, and is not paid for.
    pub fn lost(mut self, owed: Amount) {
        self.left = true;
        self.all.change(self.debtor, self.key, |debt| {
            debt.under_way = owed;
            debt.end(true);
        });
    }
}

impl Drop for Exposed {
    fn drop(&mut self) {
        if !self.left {
            self.all.change(self.debtor, self.key, |debt| debt.end(false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{journal::Ask, test_payment::payment};

    #[test]
    fn a_payer_owes_no_more_than_the_limit_and_what_is_not_paid_stays_owed() {
        let all = Arc::new(Exposures::default());
        let limit = Amount::from(2500);
        let (first, second) = (all.enter(&payment(1), limit), all.enter(&payment(2), limit));
        assert!(first.is_some() && second.is_some(), "1000 each");
        assert!(all.enter(&payment(3), limit).is_none());
        drop(first);
        all.enter(&payment(3), limit).unwrap().lost(900.into());
        assert!(all.enter(&payment(4), limit).is_none(), "1000 under way and 900 owed");
        drop(second);
        all.enter(&payment(3), limit).unwrap().lost(900.into());
        assert!(all.enter(&payment(3), limit).is_none(), "the same payment again and again adds up to 1800");
        assert!(all.enter(&payment(4), 2800.into()).is_some(), "given back");
        assert!(all.enter(&payment(4), 2799.into()).is_none(), "and the old debt stays");
    }

    #[test]
    fn one_payment_alone_is_let_in_and_an_unknown_one_counts_until_it_is_known() {
        let all = Arc::new(Exposures::default());
        let alone = all.enter(&payment(1), Amount::from(1)).unwrap();
        assert!(all.enter(&payment(2), Amount::from(1)).is_none());
        alone.stay(700.into());
        assert!(all.enter(&payment(2), Amount::from(1699)).is_none());
        let key = payment(1).replay_key();
        let mut row = Row::new(&"weather".parse().unwrap(), "f", obol_offer::B256::ZERO, &payment(1));
        row.ask = Ask::of(&payment(1)).map(Box::new);
        all.conclude(&key, &row, true);
        assert!(all.lock().is_empty(), "paid");
        all.remember(&key, &row);
        all.conclude(&key, &row, false);
        assert!(all.lock().is_empty(), "not paid, and nothing had left");
        all.remember(&key, &row);
        row.ask.as_mut().unwrap().delivered = true;
        all.conclude(&key, &row, false);
        assert!(all.enter(&payment(2), Amount::from(1999)).is_none(), "what has left stays owed");
    }
}
