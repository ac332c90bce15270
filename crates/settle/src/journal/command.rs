//! What the writer can be told, and what it says.

use std::{any::Any, time::Duration};

use obol_offer::Amount;
use obol_payment::Event;
use obol_x402::ReplayKey;
use tokio::sync::oneshot;

use super::{
    Reservation,
    row::{Ask, Row},
};
use crate::{Receipt, Refund};

/// Why something was not written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The journal cannot be written now.
    Unavailable,
    /// The payment has a row already that does not allow it.
    Conflict(Box<Row>),
    /// The table of transitions does not allow it.
    Illegal,
    /// The payer has another payment for the same request that nobody knows the outcome of, and
    /// another process may have it.
    InDoubt { transaction: Option<String> },
    /// The payer would owe more than it may, wherever that is counted.
    Exposed,
}

/// Facts that come with a transition.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Applied in order, in one write.
    pub events: &'static [Event],
    pub receipt: Option<Receipt>,
    pub transaction: Option<String>,
    pub reason: Option<String>,
    pub ask: Option<Box<Ask>>,
    /// To be kept with the row, where there is room.
    pub answer: Option<Vec<u8>>,
    /// From now.
    pub next_attempt: Option<Duration>,
    pub refund: Option<Refund>,
}

impl Change {
    pub fn new(events: &'static [Event]) -> Self {
        Self { events, ..Self::default() }
    }

    /// When the facilitator is asked again; no transition.
    pub fn next_attempt(wait: Duration) -> Self {
        Self { next_attempt: Some(wait), ..Self::default() }
    }

    pub fn receipt(mut self, receipt: Receipt) -> Self {
        self.transaction = Some(receipt.transaction.clone());
        self.receipt = Some(receipt);
        self
    }

    pub fn transaction(mut self, transaction: Option<String>) -> Self {
        self.transaction = transaction;
        self
    }

    pub fn refund(mut self, refund: Refund) -> Self {
        self.refund = Some(refund);
        self
    }

    pub fn reason(mut self, reason: String) -> Self {
        self.reason = Some(reason);
        self
    }
}

/// Kept until the write is durable, then dropped: the claim on the payment.
pub(crate) type Hold = Box<dyn Any + Send>;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, WriteError>>;

pub(crate) enum Command {
    /// Insert if never seen, or seen and usable again; where several processes share the journal, only while its payer
    /// owes no more than `limit`.
    Reserve { key: ReplayKey, row: Box<Row>, limit: Option<Amount>, reservation: Reservation, reply: Reply<Reservation> },
    /// A transition that is given up when it cannot be written.
    Try { key: ReplayKey, change: Change, reply: Reply<()> },
    /// A transition that is a fact: kept and written again until it is durable.
    Must { key: ReplayKey, change: Change, hold: Option<Hold>, reply: Option<Reply<()>> },
    /// Undoes a reservation whose write failed but may have reached the disk.
    Undo { key: ReplayKey },
    /// Removes rows that are durable in an archive, unless they changed since, and moves its mark.
    Archive { rows: Vec<(ReplayKey, Row)>, month: String, mark: u64, reply: Reply<()> },
    /// Answered when everything before it is durable.
    Flush { reply: Reply<()> },
}
