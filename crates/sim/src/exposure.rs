//! What payers had and have not paid for, as the world sees it: metered answers leave first.

use obol_offer::Address;
use obol_settle::{Captured, PaymentPermit};

use crate::world::{Shared, World};

/// What one payer may owe, in whole units of the token.
pub const UNITS: u64 = 1;
/// The same in atomic units.
const LIMIT: u64 = UNITS * 1_000_000;

/// What an answer under way may come to; until this is dropped.
pub struct Hold {
    world: Shared,
    id: usize,
    amount: u64,
}

impl Hold {
    /// `None` for what is paid for before it leaves.
    pub fn begin(world: &Shared, id: usize, permit: &PaymentPermit) -> Option<Self> {
        let mut state = world.lock();
        if permit.is_paid() || !state.payments[id].is_metered() {
            return None;
        }
        let amount = state.payments[id].price();
        state.check_exposure(id, amount);
        state.payments[id].held += amount;
        Some(Self { world: world.clone(), id, amount })
    }

    /// The answer has left, and came to less.
    pub fn reduce(&mut self, used: u64) {
        let less = self.amount.saturating_sub(used);
        self.amount -= less;
        self.world.lock().payments[self.id].held -= less;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let held = &mut self.world.lock().payments[self.id].held;
        // A life that ended has let go of everything.
        *held = held.saturating_sub(self.amount);
    }
}

impl World {
    fn owed(&self, payer: Address) -> u64 {
        let of = |payment: &&crate::world::Payment| payment.key().0 == payer;
        let unknown = |payment: &crate::world::Payment| if self.ledger.is_taken(&payment.key()) { 0 } else { payment.unknown };
        self.payments.iter().filter(of).map(|payment| payment.held + payment.unpaid + unknown(payment)).sum()
    }

    /// A payer is let in. One payment alone always is.
    fn check_exposure(&mut self, id: usize, ceiling: u64) {
        self.advance();
        let owed = self.owed(self.payments[id].key().0);
        if owed > 0 && owed + ceiling > LIMIT && !self.is_dead() {
            self.violate(format!("the payer of p{id} owes {owed}, and is let in for {ceiling} more"));
        }
    }

    /// A metered answer begins to leave; `is_paid` when it was paid for before.
    pub fn begin_stream(&mut self, id: usize, is_paid: bool) {
        self.note(format_args!("the answer to p{id} streams"));
        if is_paid {
            return self.begin_answer(id);
        }
        self.counts.streams += 1;
        let payment = &mut self.payments[id];
        (payment.used, payment.streamed) = (0, true);
    }

    /// It has left, as far as it has; what of it was used.
    pub fn end_stream(&mut self, id: usize) -> u64 {
        let used = self.payments[id].used;
        self.note(format_args!("the answer to p{id} has left, {used} used"));
        if used > 0 && !self.is_dead() {
            self.hand_over(id);
        }
        used
    }

    /// What became of the payment for an answer that has left.
    pub fn charged(&mut self, id: usize, captured: &Captured) {
        self.advance();
        if self.is_dead() {
            return;
        }
        let key = self.payments[id].key();
        let payment = &mut self.payments[id];
        let used = payment.used.min(payment.price());
        match captured {
            Captured::Settled(..) if !self.ledger.is_taken(&key) => self.violate(format!("a receipt for p{id}, and no money moved")),
            Captured::Settled(..) | Captured::Nothing => {}
            Captured::Unsettled { .. } => payment.unknown = used,
            Captured::Refused { .. } | Captured::NotAsked => payment.unpaid += used,
        }
    }

    /// A cashier opens: of what was owed it knows what is still unknown.
    pub fn remember(&mut self) {
        let open: Vec<usize> =
            self.rows().unwrap_or_default().into_iter().filter(|(_, row)| row.state.is_unsettled()).map(|(id, _)| id).collect();
        for (id, payment) in self.payments.iter_mut().enumerate() {
            (payment.held, payment.unpaid) = (0, 0);
            payment.unknown = if payment.streamed && open.contains(&id) { payment.used.min(payment.price()) } else { 0 };
        }
    }
}
