//! What must hold, at every step and at the end.

use obol_settle::{PaymentRecord, PaymentState as State};

use crate::{
    buyer::{MAX_SIGNED, Manner},
    gateway::Answer,
    world::World,
};

impl World {
    /// The journal by payment, in the order of signing; `None` while it cannot be read.
    pub fn rows(&self) -> Option<Vec<(usize, PaymentRecord)>> {
        let cashier = self.cashier.as_ref()?;
        let number = |key: &str| key.rsplit('/').next().and_then(|nonce| usize::from_str_radix(nonce.get(nonce.len() - 4..)?, 16).ok());
        let mut rows: Vec<_> = cashier.simulated_rows()?.into_iter().filter_map(|row| Some((number(&row.key)?, row))).collect();
        rows.sort_by_key(|(id, _)| *id);
        Some(rows)
    }

    /// Whether this life's power is off: what is still said then, nobody hears.
    pub fn is_dead(&self) -> bool {
        self.machine.as_ref().is_none_or(|machine| machine.is_dead())
    }

    /// The upstream is called.
    pub fn execute(&mut self, id: usize) {
        let dead = self.is_dead();
        let payment = &mut self.payments[id];
        payment.executing += 1;
        payment.delivered = false;
        if payment.executing > 1 && !dead {
            self.violate(format!("p{id} runs the upstream twice at once"));
        }
        self.note(format_args!("upstream runs for p{id}"));
    }

    /// The upstream is called once more for a payment that was made: once, and the journal says so.
    pub fn execute_again(&mut self, id: usize) {
        self.counts.reruns += 1;
        let payment = &mut self.payments[id];
        payment.reruns += 1;
        let reruns = payment.reruns;
        let state = self.rows().unwrap_or_default().into_iter().find(|(row, _)| *row == id).map(|(_, row)| row.state);
        if !self.is_dead() && (reruns > 1 || state != Some(State::Rerunning)) {
            self.violate(format!("p{id} is run again, for the {reruns}. time, and is {state:?}"));
        }
    }

    /// The first byte of a paid answer leaves.
    pub fn begin_answer(&mut self, id: usize) {
        self.advance();
        if self.is_dead() {
            return;
        }
        let payment = &mut self.payments[id];
        payment.answers += 1;
        let (answers, reruns, refunded, key) = (payment.answers, payment.reruns, payment.refunded, payment.key());
        if answers > 1 + reruns || refunded {
            self.violate(format!("p{id} bought {answers} answers; reruns: {reruns}, sent back: {refunded}"));
        }
        if !self.ledger.is_taken(&key) {
            self.violate(format!("an answer to p{id} leaves unpaid"));
        }
        self.note(format_args!("the answer to p{id} begins"));
    }

    /// The last byte has left.
    pub fn hand_over(&mut self, id: usize) {
        if !self.is_dead() {
            self.payments[id].delivered = true;
            self.counts.delivered += 1;
        }
    }

    /// An answer that was kept is given again.
    pub fn check_again(&mut self, id: usize, body: &[u8]) {
        let buyer = self.payments[id].buyer;
        let bought = (0..self.payments.len()).find(|other| self.payments[*other].buyer == buyer && body == crate::gateway::body(*other));
        match bought {
            None => self.violate(format!("p{id} gets the answer of another payment")),
            Some(first) if first != id && self.buyers[buyer].name.is_none() => self.violate(format!("p{id} gets the answer of p{first}")),
            Some(first) if self.payments[first].refunded => self.violate(format!("p{first} was sent back, and is answered")),
            Some(_) => {}
        }
    }

    /// What was told is true, and safe to act upon.
    pub fn check_answer(&mut self, id: usize, answer: Answer) {
        let key = self.payments[id].key();
        let moved = self.ledger.is_taken(&key);
        let buyer = self.payments[id].buyer;
        // Perhaps by an earlier payment for the same purchase.
        let bought = || {
            let named = self.buyers[buyer].name.is_some();
            moved || named && self.payments.iter().any(|payment| payment.buyer == buyer && self.ledger.is_taken(&payment.key()))
        };
        match answer {
            Answer::Sign if moved && !self.ledger.is_lost(&key) => {
                self.violate(format!("p{id} was charged, and its buyer is told to sign again"))
            }
            Answer::Sign if self.ledger.may_move(&key) => {
                self.violate(format!("p{id} may still be charged, and its buyer is told to sign again"));
            }
            Answer::Used | Answer::Again if !bought() => self.violate(format!("p{id} is said to be used, and no money moved")),
            Answer::Unknown => self.payments[id].doubted = true,
            _ => {}
        }
        if answer == Answer::Other && self.buyers[buyer].manner != Manner::Replayer {
            self.violate(format!("p{id} was only ever sent for one request, and is refused for another"));
        }
        self.check_books(false);
    }

    /// A buyer makes up its mind.
    pub fn think(&mut self, index: usize, id: usize, answers: &[Answer]) {
        let has = |wanted: Answer| answers.contains(&wanted);
        let all_sign = !answers.is_empty() && answers.iter().all(|answer| *answer == Answer::Sign);
        let hasty = self.buyers[index].manner == Manner::Hasty && self.rng.percent(50);
        let doubtful = has(Answer::Unknown) || has(Answer::Lost) || has(Answer::InProgress);
        let buyer = &mut self.buyers[index];
        buyer.rounds = buyer.rounds.saturating_sub(1);
        if buyer.rounds == 0 {
            buyer.is_done = true;
        } else if buyer.manner == Manner::Replayer {
            // Once more, whatever the answer.
        } else if has(Answer::Paid) || has(Answer::Free) || has(Answer::Again) || has(Answer::Used) {
            buyer.is_done = true;
        } else if all_sign || (hasty && doubtful) {
            buyer.payment = None;
            buyer.is_done = buyer.signed >= MAX_SIGNED;
        }
        let done = self.buyers[index].is_done;
        self.note(format_args!("b{index} got {answers:?} for p{id}{}", if done { ", and is done" } else { "" }));
    }

    /// The journal against the chain. `last` is after everything had time to be found out.
    pub fn check_books(&mut self, last: bool) {
        if self.is_dead() {
            return;
        }
        let Some(rows) = self.rows() else { return };
        let mut wrong = Vec::new();
        for (id, row) in &rows {
            let Some(payment) = self.payments.get(*id) else { continue };
            let (key, state) = (payment.key(), row.state);
            let moved = self.ledger.moved(&key);
            let settled: Option<u64> = row.settled.and_then(|amount| amount.to_string().parse().ok());
            match (state.is_paid(), state.is_unsettled()) {
                (true, _) if moved.is_none() && self.ledger.is_away(&key) => {}
                (true, _) if moved != settled || moved.is_none() => {
                    wrong.push(format!("p{id} is {state} with {settled:?}, and {moved:?} moved"))
                }
                (false, false) if moved.is_some() => wrong.push(format!("p{id} is {state}, and its money moved")),
                (false, false) if self.ledger.may_move(&key) => wrong.push(format!("p{id} is {state}, and its money may move")),
                _ => {}
            }
            if state == State::Delivered && !payment.delivered {
                wrong.push(format!("p{id} is delivered in the journal only"));
            }
            // A crash, or a stop on a full disk, may forget that.
            if payment.delivered && state.is_owed() && self.plan.crashes == 0 && !self.plan.full {
                wrong.push(format!("p{id} was delivered, and is {state}"));
            }
            if payment.streamed && matches!(state, State::Owed | State::Lost | State::Rerunning) {
                wrong.push(format!("the answer to p{id} has left, and it is {state}"));
            }
            if payment.refunded && state != State::Refunded {
                wrong.push(format!("p{id} was sent back, and is {state}"));
            }
            if last && matches!(state, State::Reserved | State::Settling | State::Settled | State::Rerunning) {
                wrong.push(format!("p{id} is still {state} at the end"));
            }
        }
        let known: Vec<usize> = rows.iter().map(|(id, _)| *id).collect();
        for (key, _) in self.ledger.transfers() {
            let id = crate::world::number(key);
            if !known.contains(&id) {
                wrong.push(format!("p{id} was charged, and the journal does not know it"));
            }
        }
        if last && self.plan.chain {
            // The chain could be read for hours: nothing is left open.
            wrong.extend(
                rows.iter().filter(|(_, row)| row.state.is_unsettled()).map(|(id, row)| format!("p{id} is {} for ever", row.state)),
            );
        }
        if let Some(first) = wrong.into_iter().next() {
            self.violate(first);
        }
    }
}
