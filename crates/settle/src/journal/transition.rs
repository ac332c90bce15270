//! What a command makes of a row. The table of `obol-payment` decides, for every store alike.

use obol_payment::{Event, State, next};

use super::{
    command::{Change, WriteError},
    row::Row,
};

impl Row {
    /// A new row in the place of what is known of its payment.
    pub(super) fn admit(&mut self, existing: Option<&Self>, now: u64) -> Result<(), WriteError> {
        let Some(state) = next(existing.map(|row| row.state), Event::Admitted) else {
            return Err(existing.map_or(WriteError::Illegal, |row| WriteError::Conflict(Box::new(row.clone()))));
        };
        (self.state, self.created, self.updated) = (state, now, now);
        self.unpaid = existing.and_then(|row| row.unpaid).or(self.unpaid);
        Ok(())
    }

    /// Applies a change; a refused one leaves the row as it was. The kept answer is the store's.
    pub(super) fn apply(&mut self, change: &Change, now: u64) -> Result<(), WriteError> {
        let mut state = self.state;
        for event in change.events {
            state = next(Some(state), *event).ok_or_else(|| WriteError::Conflict(Box::new(self.clone())))?;
        }
        self.state = state;
        self.updated = now;
        self.receipt = change.receipt.clone().or(self.receipt.take());
        self.transaction = change.transaction.clone().or(self.transaction.take());
        self.reason = change.reason.clone().or(self.reason.take());
        self.refund = change.refund.clone().or(self.refund.take());
        let planned = change.next_attempt.map(|wait| now.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)));
        self.next_attempt = planned.or(self.next_attempt).filter(|_| state.is_unsettled());
        self.ask = change.ask.clone().or(self.ask.take());
        if !state.is_unsettled() {
            // An answer that has left, and never will be paid for.
            let lost = self.ask.as_ref().is_some_and(|ask| ask.delivered) && !state.is_paid();
            self.unpaid = self.unpaid.map(|unpaid| if lost { unpaid.saturating_add(self.charge()) } else { unpaid });
            self.ask = None;
        }
        Ok(())
    }

    /// Whether the answer that is kept with it was not paid for after all, or the money was sent back.
    pub(super) fn keeps_in_vain(&self) -> bool {
        let is_bought = self.state.is_unsettled() || self.state.is_paid() && self.state != State::Refunded;
        self.answer.is_some() && !is_bought
    }
}
