//! From a permit to money, and from money to a delivered answer.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use obol_offer::{Amount, B256};
use obol_payment::{Event, State};
use obol_x402::{ChargeError, MatchedPayment, ReplayKey};
use tokio::sync::oneshot;

use crate::{
    Receipt, SettleOutcome, StoredAnswer,
    cashier::Core,
    exposure::Exposed,
    journal::{Ask, Change, Journal, Reservation, Row, WriteError, now_ms},
    pool::Member,
    refusal::Known,
    rerun::Rerun,
    stats::Counters,
};

/// How long a buyer waits for a payment that was not asked for to be released on a disk that fails.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);

/// How often an answer that has left is tried to be charged while the journal or the facilitator is away.
const RETRY: Duration = Duration::from_secs(1);

/// Leave to call the upstream once for one reserved payment. Only [`Cashier::admit`](crate::Cashier::admit) makes one.
///
/// Dropped without [`capture`](Self::capture), it releases the reservation: nothing is charged and
/// the buyer may use the same payment again.
pub struct PaymentPermit {
    inner: Option<Inner>,
    rerun: Option<Rerun>,
    payment: Arc<MatchedPayment>,
}

struct Inner {
    core: Arc<Core>,
    payment: Arc<MatchedPayment>,
    member: Arc<Member>,
    fingerprint: B256,
    reservation: Reservation,
    /// Of a payment whose answer may leave before it is settled.
    exposed: Option<Exposed>,
    /// Whether the answer has left: then it is charged, whatever became of other payments.
    delivered: bool,
}

/// How a capture ended.
#[derive(Debug)]
pub enum Captured {
    /// Money moved: the answer may leave.
    Settled(Receipt, Delivery),
    /// Nothing was used, so nobody was asked for anything; the payment may be used again.
    Nothing,
    /// The facilitator refused cleanly: nothing moved. 402.
    Refused {
        /// The facilitator's word.
        reason: String,
    },
    /// The facilitator was never asked: nothing moved. 503.
    NotAsked,
    /// Nobody knows yet. 503 with `Retry-After`, never a 402.
    Unsettled {
        /// Hash, if one is known.
        transaction: Option<String>,
    },
}

impl fmt::Debug for PaymentPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PaymentPermit").field(&self.payment.replay_key()).finish()
    }
}

impl PaymentPermit {
    pub(crate) fn new(
        core: Arc<Core>,
        payment: MatchedPayment,
        member: Arc<Member>,
        fingerprint: B256,
        reservation: Reservation,
        exposed: Option<Exposed>,
    ) -> Self {
        let payment = Arc::new(payment);
        let inner = Inner { core, payment: Arc::clone(&payment), member, fingerprint, reservation, exposed, delivered: false };
        Self { inner: Some(inner), rerun: None, payment }
    }

    /// For a request that was paid for: captured, it moves nothing.
    pub(crate) fn again(payment: MatchedPayment, rerun: Rerun) -> Self {
        Self { inner: None, rerun: Some(rerun), payment: Arc::new(payment) }
    }

    /// Whether it was paid for before, so that capturing it moves nothing.
    pub fn is_paid(&self) -> bool {
        self.rerun.is_some()
    }

    /// The payment that was reserved.
    pub fn payment(&self) -> &MatchedPayment {
        &self.payment
    }

    /// Takes the money: journal `settling`, ask the facilitator that verified, journal the outcome.
    /// Runs in a task of its own, so that a buyer who leaves does not cut a settlement short.
    pub async fn capture(self) -> Captured {
        self.capture_for(None).await
    }

    /// As [`capture`](Self::capture), and keeps the answer for a buyer who retries: it is durable
    /// before the facilitator is asked, and served only once the payment is settled.
    pub async fn capture_for(mut self, kept: Option<StoredAnswer>) -> Captured {
        if let Some(rerun) = self.rerun.take() {
            return rerun.captured();
        }
        let Some(inner) = self.inner.take() else { return Captured::NotAsked };
        let (reply, answer) = oneshot::channel();
        let tasks = inner.core.tasks.clone();
        tasks.spawn(async move {
            let cut_short =
                CutShort { core: Some(Arc::clone(&inner.core)), key: inner.payment.replay_key(), fingerprint: inner.fingerprint };
            let captured = inner.capture(kept).await;
            cut_short.disarm();
            // If nobody waits any more, the delivery in it is dropped, and the payment is owed.
            let _ = reply.send(captured);
        });
        answer.await.unwrap_or(Captured::Unsettled { transaction: None })
    }

    /// As [`capture_for`](Self::capture_for), for what a metered request has used: `charge`, or all that was authorised
    /// if that is less. Of an `exact` payment all is taken.
    pub async fn capture_amount(mut self, charge: Amount, kept: Option<StoredAnswer>) -> Captured {
        if self.rerun.is_some() {
            return self.capture_for(None).await;
        }
        let Some(inner) = &mut self.inner else { return Captured::NotAsked };
        let charge = charge.min(inner.payment.terms.amount);
        if charge == Amount::ZERO {
            self.release().await;
            return Captured::Nothing;
        }
        match MatchedPayment::clone(&inner.payment).charging(charge) {
            Ok(payment) => inner.payment = Arc::new(payment),
            Err(ChargeError::Exact { .. }) => {}
            Err(error) => {
                tracing::error!(payment = %inner.payment.replay_key(), %error, "what was used cannot be charged");
                self.release().await;
                return Captured::NotAsked;
            }
        }
        self.capture_for(kept).await
    }

    /// As [`capture_amount`](Self::capture_amount), once the answer has left: what is paid then is delivered, also when
    /// that is only found out after a crash.
    pub async fn capture_delivered(mut self, charge: Amount) -> Captured {
        if let Some(rerun) = self.rerun.take() {
            return rerun.delivered();
        }
        if let Some(inner) = &mut self.inner {
            inner.delivered = true;
        }
        self.capture_amount(charge, None).await
    }

    /// How long an answer that is settled after it may go on: until `validBefore` less the time that settling may take,
    /// of which there is at least as much as half of what is left now.
    pub fn time_to_deliver(&self) -> Duration {
        if self.is_paid() {
            return Duration::MAX;
        }
        let left = Duration::from_secs(self.payment.authorization.valid_before).saturating_sub(Duration::from_millis(now_ms()));
        let settle = self.inner.as_ref().map_or(Duration::ZERO, |inner| inner.core.settle_timeout);
        left.saturating_sub(settle.min(left / 2))
    }

    /// Gives the payment back unused, e.g. when the upstream failed. A second run was used up by that;
    /// see [`unsent`](Self::unsent).
    pub async fn release(mut self) {
        if let Some(Inner { core, reservation, .. }) = self.inner.take() {
            core.counters.released.add();
            reservation.release().await;
        }
    }
}

impl PaymentPermit {
    /// As [`release`](Self::release), when the request certainly never reached the upstream: a second
    /// run may then be tried again.
    pub async fn unsent(mut self) {
        match self.rerun.take() {
            Some(rerun) => rerun.give_back().await,
            None => self.release().await,
        }
    }
}

impl Drop for PaymentPermit {
    fn drop(&mut self) {
        if let Some(inner) = &self.inner {
            inner.core.counters.released.add();
        }
    }
}

/// Remembers the doubt when a capture ends without an outcome (a panic, the end of the runtime);
/// its reservation writes it to the journal.
struct CutShort {
    core: Option<Arc<Core>>,
    key: ReplayKey,
    fingerprint: B256,
}

impl CutShort {
    fn disarm(mut self) {
        self.core = None;
    }
}

impl Drop for CutShort {
    fn drop(&mut self) {
        if let Some(core) = self.core.take() {
            core.doubt(self.key, self.fingerprint, None);
        }
    }
}

impl Inner {
    async fn capture(mut self, kept: Option<StoredAnswer>) -> Captured {
        if let Some(transaction) = self.in_doubt() {
            self.core.counters.released.add();
            self.reservation.release().await;
            return Captured::Unsettled { transaction };
        }
        let Some(ask) = self.to_ask() else { return self.not_asked("the payment is not text".to_owned()).await };
        let kept = kept.and_then(|answer| answer.encode());
        let until = self.retried_until();
        let begun = loop {
            let begun = match self.reservation.begin(ask.clone(), kept.clone()).await {
                Err(WriteError::Conflict(row)) if self.may_begin_anew(&row) => self.reservation.begin_anew(row.state, ask.clone()).await,
                begun => begun,
            };
            match begun {
                Err(WriteError::Unavailable) if tokio::time::Instant::now() < until => tokio::time::sleep(RETRY).await,
                begun => break begun,
            }
        };
        match begun {
            Ok(()) => {}
            Err(WriteError::InDoubt { transaction }) => {
                self.core.counters.released.add();
                self.reservation.release().await;
                return Captured::Unsettled { transaction };
            }
            Err(WriteError::Unavailable) => return self.not_asked("the journal cannot be written".to_owned()).await,
            // The row is another process's by now, and durably so: there is nothing of ours to write down.
            Err(WriteError::Conflict(_) | WriteError::Illegal | WriteError::Exposed) => {
                tracing::warn!(payment = %self.payment.replay_key(), "not settled: the payment is not this process's any more");
                self.core.counters.settle_not_asked.add();
                self.lose();
                self.reservation.release().await;
                return Captured::NotAsked;
            }
        }
        // One may have become unknown during the write.
        if let Some(transaction) = self.in_doubt() {
            self.not_asked("another payment for the same request is unknown".to_owned()).await;
            return Captured::Unsettled { transaction };
        }
        let started = Instant::now();
        let outcome = self.ask().await;
        self.core.counters.settle_took(started.elapsed());
        match outcome {
            SettleOutcome::Settled(receipt) => self.settled(receipt),
            SettleOutcome::Refused { reason } => self.refused(reason).await,
            SettleOutcome::NotAsked { cause } => self.not_asked(cause).await,
            SettleOutcome::Pending { transaction } => self.unsettled(None, "pending".to_owned(), Some(transaction)).await,
            SettleOutcome::Unknown { cause, transaction } => self.unsettled(Some(Event::SettleUnknown), cause, transaction).await,
        }
    }

    /// Whether another payment of its payer for the same request is of unknown outcome: one that buys the answer anew.
    /// An answer that has left was not that one.
    fn in_doubt(&self) -> Option<Option<String>> {
        if self.delivered { None } else { self.core.doubts.find(self.payment.authorization.from, self.fingerprint) }
    }

    /// Whether an answer that has left may be charged all the same: another process took this one for dead meanwhile,
    /// and gave the payment back; or an earlier try to write reached the disk, and nobody was asked.
    fn may_begin_anew(&self, row: &Row) -> bool {
        let is_same = row.fingerprint == self.fingerprint && row.payload.0 == self.payment.payload_digest;
        self.delivered && is_same && matches!(row.state, State::Released | State::Settling)
    }

    /// What is written down before the facilitator is asked.
    fn to_ask(&self) -> Option<Ask> {
        Ask::of(&self.payment).map(|ask| Ask { delivered: self.delivered, ..ask })
    }

    /// An answer that has left cannot be withheld: charging it is tried for as long as settling may take.
    fn retried_until(&self) -> tokio::time::Instant {
        let patience = if self.delivered { self.core.settle_timeout } else { Duration::ZERO };
        tokio::time::Instant::now() + patience
    }

    /// Asks once; a pending transaction is asked about, identically, exactly once more.
    async fn ask(&self) -> SettleOutcome {
        let until = self.retried_until();
        let first = loop {
            match self.core.settle(&self.member, &self.payment).await {
                SettleOutcome::NotAsked { .. } if tokio::time::Instant::now() < until => tokio::time::sleep(RETRY).await,
                first => break first,
            }
        };
        let SettleOutcome::Pending { transaction } = first else { return first };
        let change = Change::new(&[Event::SettlePending]).transaction(Some(transaction.clone()));
        let key = self.payment.replay_key();
        self.core.journal.post(key, change, None);
        // Nor is another one taken meanwhile.
        self.core.doubts.add(key, self.fingerprint, Some(transaction.clone()));
        match self.core.settle(&self.member, &self.payment).await {
            SettleOutcome::Pending { .. } | SettleOutcome::NotAsked { .. } => SettleOutcome::Pending { transaction },
            SettleOutcome::Refused { reason } => {
                SettleOutcome::Unknown { cause: format!("refused after a transaction was sent: {reason}"), transaction: Some(transaction) }
            }
            SettleOutcome::Unknown { cause, transaction: hash } => {
                SettleOutcome::Unknown { cause, transaction: hash.or(Some(transaction)) }
            }
            settled @ SettleOutcome::Settled(_) => {
                self.core.doubts.remove(&key, self.fingerprint);
                settled
            }
        }
    }

    fn settled(self, receipt: Receipt) -> Captured {
        let Self { core, payment, delivered, .. } = &self;
        core.counters.settled.add();
        let (state, events, delivery): (_, &[Event], _) = if *delivered {
            core.counters.delivered.add();
            (State::Delivered, &[Event::SettleSettled, Event::Delivered], Delivery::done())
        } else {
            (State::Settled, &[Event::SettleSettled], core.delivery(payment.replay_key()))
        };
        self.finish(state, Some(receipt.clone()), None, Change::new(events).receipt(receipt.clone()));
        Captured::Settled(receipt, delivery)
    }

    async fn refused(mut self, reason: String) -> Captured {
        self.core.counters.settle_refused.add();
        self.lose();
        let change = Change::new(&[Event::SettleRefused]).reason(reason.clone());
        let patience = self.core.settle_timeout;
        self.nothing_moved(change, patience, Captured::Refused { reason }).await
    }

    /// Counts an answer that has left and is not paid for.
    fn lose(&mut self) {
        if let Some(exposed) = self.exposed.take().filter(|_| self.delivered) {
            exposed.lost(self.payment.charge);
        }
    }

    async fn not_asked(mut self, cause: String) -> Captured {
        tracing::warn!(payment = %self.payment.replay_key(), facilitator = self.member.facilitator.id(), cause, "not settled: never asked");
        self.core.counters.settle_not_asked.add();
        let patience = self.core.settle_timeout.min(RELEASE_PATIENCE);
        self.lose();
        // In the row it may still be as if nothing had left.
        let ask = self.to_ask().filter(|_| self.delivered).map(Box::new);
        self.nothing_moved(Change { ask, ..Change::new(&[Event::SettleNotAsked]) }, patience, Captured::NotAsked).await
    }

    /// The buyer hears that nothing moved when that is durable: after a crash the row would still
    /// say `settling`, this payment would be asked about again, and might then be charged beside the
    /// next one, or for an answer that nobody waits for any more.
    async fn nothing_moved(self, change: Change, patience: Duration, captured: Captured) -> Captured {
        match tokio::time::timeout(patience, self.reservation.finish_durably(change)).await {
            Ok(Ok(())) => captured,
            _ => Captured::Unsettled { transaction: None },
        }
    }

    async fn unsettled(mut self, event: Option<Event>, cause: String, transaction: Option<String>) -> Captured {
        let key = self.payment.replay_key();
        tracing::error!(payment = %key, facilitator = self.member.facilitator.id(), cause, transaction, "the settlement's outcome is unknown");
        self.core.counters.settle_unknown.add();
        if let Some(exposed) = self.exposed.take() {
            exposed.stay(self.payment.charge);
        }
        // Before the claim is let go, so that no second payment slips in between.
        self.core.doubt(key, self.fingerprint, transaction.clone());
        let (state, events): (_, &[Event]) = match event {
            Some(_) => (State::Unknown, &[Event::SettleUnknown]),
            None => (State::Pending, &[Event::SettlePending]),
        };
        let change = Change::new(events).transaction(transaction.clone());
        if self.core.journal.is_shared() {
            // Durable before the buyer hears of it, so that no other process takes a second payment.
            self.tell(state, None, transaction.clone());
            let _ = tokio::time::timeout(self.core.settle_timeout, self.reservation.finish_durably(change)).await;
        } else {
            self.finish(state, None, transaction.clone(), change);
        }
        Captured::Unsettled { transaction }
    }

    /// Copies learn the outcome at once, the journal as soon as the disk allows.
    fn finish(self, state: State, receipt: Option<Receipt>, transaction: Option<String>, change: Change) {
        self.tell(state, receipt, transaction);
        self.reservation.finish(change);
    }

    fn tell(&self, state: State, receipt: Option<Receipt>, transaction: Option<String>) {
        if let Some(claim) = self.reservation.claim() {
            claim.tell(&Known { state, fingerprint: self.fingerprint, receipt, transaction });
        }
    }
}

/// Held while a paid answer is on its way. Dropped without [`Delivery::complete`], the journal
/// shows the payment as owed.
#[derive(Debug)]
pub struct Delivery {
    pending: Option<Pending>,
}

struct Pending {
    journal: Journal,
    counters: Arc<Counters>,
    key: ReplayKey,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

impl Core {
    /// To be held while the answer of a payment that was made is on its way.
    pub fn delivery(&self, key: ReplayKey) -> Delivery {
        Delivery { pending: Some(Pending { journal: self.journal.clone(), counters: Arc::clone(&self.counters), key }) }
    }
}

impl Delivery {
    /// The answer has left, and the journal knows.
    pub(crate) const fn done() -> Self {
        Self { pending: None }
    }

    /// There was no answer to begin with.
    pub(crate) async fn give_back(mut self) {
        if let Some(Pending { journal, key, .. }) = self.pending.take() {
            // If the writer is gone, the next start finds the run unfinished.
            let _ = journal.record(key, Change::new(&[Event::GivenBack])).await;
        }
    }

    /// The whole answer was handed to the buyer's connection.
    pub fn complete(mut self) {
        if let Some(Pending { journal, counters, key }) = self.pending.take() {
            counters.delivered.add();
            journal.post(key, Change::new(&[Event::Delivered]), None);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(Pending { journal, counters, key }) = self.pending.take() {
            counters.owed.add();
            journal.post(key, Change::new(&[Event::DeliveryFailed]), None);
        }
    }
}
