//! Asks again about settlements of unknown outcome, rarely and within bounds.
//!
//! The chain has the last word, where it can be read; without it only a clear success ends the
//! doubt. A refusal does not: "nonce already used" may be our own first attempt.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use obol_offer::{B256, Network};
use obol_payment::Event;
use obol_x402::{MatchedPayment, ReplayKey};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    ChainFinding, ChainView, Receipt, Recovery, SettleOutcome,
    cashier::Core,
    journal::{Change, Row, now_ms},
    outcome,
};

/// How long a buyer waits for a look at the chain.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);
/// Most questions under way at once.
const MAX_AT_ONCE: usize = 8;

/// One settlement of unknown outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub key: ReplayKey,
    pub fingerprint: B256,
    /// Its process is gone: nobody has just been asked.
    pub at_once: bool,
}

/// A case and how often it was asked about by the clock.
struct Turn {
    case: Case,
    asked: u32,
}

/// What an earlier run left open without saying when it is asked about, until each was looked at once.
pub(crate) struct FirstLook {
    left: BTreeSet<ReplayKey>,
    until: Instant,
    done: watch::Sender<bool>,
}

impl FirstLook {
    /// Of what is open, and of that no longer than `bound`; the receiver tells when it is over.
    pub fn new(open: &[(ReplayKey, Row)], bound: Duration) -> (Self, watch::Receiver<bool>) {
        let left: BTreeSet<_> = open.iter().filter(|(_, row)| row.next_attempt.is_none()).map(|(key, _)| *key).collect();
        let (done, over) = watch::channel(left.is_empty());
        (Self { left, until: Instant::now() + bound, done }, over)
    }

    fn looked_at(&mut self, key: &ReplayKey) {
        self.left.remove(key);
        if self.left.is_empty() {
            self.done.send_replace(true);
        }
    }

    /// Time is up: the rest is next in line, and its rows say so.
    fn give_up(&mut self, core: &Weak<Core>) {
        tracing::warn!(left = self.left.len(), "payments of an earlier run are still unknown; they are asked about in the background");
        for key in std::mem::take(&mut self.left) {
            remember(core, key, Instant::now());
        }
        self.done.send_replace(true);
    }
}

/// Asks until the cashier is gone: about `open` at once, about others when the policy says so.
pub(crate) async fn run(
    core: Weak<Core>,
    mut cases: mpsc::UnboundedReceiver<Case>,
    policy: Recovery,
    open: Vec<Case>,
    mut first: FirstLook,
    stop: CancellationToken,
) {
    let started = Instant::now();
    let mut due: BTreeMap<(Instant, ReplayKey), Turn> =
        open.into_iter().map(|case| ((started, case.key), Turn { case, asked: 0 })).collect();
    let mut asking = FuturesUnordered::new();
    loop {
        let next = due.first_key_value().map(|((at, _), _)| *at).filter(|_| asking.len() < MAX_AT_ONCE);
        // In this order, so that a simulation can be replayed; none of them is ready without end.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            case = cases.recv() => {
                let Some(case) = case else { return };
                if case.at_once {
                    due.insert((Instant::now(), case.key), Turn { case, asked: 0 });
                    continue;
                }
                schedule(&core, &mut due, policy, Turn { case, asked: 0 });
            }
            () = tokio::time::sleep_until(first.until), if !first.left.is_empty() => first.give_up(&core),
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                if let Some((_, turn)) = due.pop_first() {
                    let core = core.clone();
                    asking.push(async move { (ask(&core, turn.case).await, turn) });
                }
            }
            Some((resolved, turn)) = asking.next() => {
                let key = turn.case.key;
                if !resolved {
                    schedule(&core, &mut due, policy, turn);
                }
                first.looked_at(&key);
            }
        }
    }
}

/// Plans the next question, and writes when that is into the row.
fn schedule(core: &Weak<Core>, due: &mut BTreeMap<(Instant, ReplayKey), Turn>, policy: Recovery, turn: Turn) {
    let key = turn.case.key;
    // A chain that can be read gives an answer in the end.
    let wait = policy.wait(turn.asked).or_else(|| core.upgrade()?.view(&key).map(|_| policy.longest));
    match wait {
        Some(wait) => {
            let at = Instant::now() + wait;
            remember(core, key, at);
            due.insert((at, key), Turn { asked: turn.asked.saturating_add(1), ..turn });
        }
        None => tracing::error!(payment = %key, "still unknown; it is asked about again after a restart"),
    }
}

fn remember(core: &Weak<Core>, key: ReplayKey, at: Instant) {
    if let Some(core) = core.upgrade() {
        core.journal.post(key, Change::next_attempt(at.saturating_duration_since(Instant::now())), None);
    }
}

/// Asks the chain, then the facilitator, once; true when the doubt is over.
async fn ask(core: &Weak<Core>, case: Case) -> bool {
    let Some(core) = core.upgrade() else { return false };
    let Ok(Some(row)) = core.journal.read(&case.key).await else { return false };
    if !row.state.is_unsettled() {
        core.resolved(&case.key, &row, row.state.is_paid());
        return true;
    }
    if on_chain(&core, case, &row).await {
        return true;
    }
    let Some((payment, member)) = row.payment(&case.key).zip(core.pool.find(&row.facilitator)) else {
        tracing::error!(payment = %case.key, facilitator = row.facilitator, "nobody to ask: unknown network or facilitator");
        return false;
    };
    match core.settle(&member, &payment).await {
        SettleOutcome::Settled(receipt) => settled(&core, case, &row, receipt).await,
        SettleOutcome::Pending { transaction } | SettleOutcome::Unknown { transaction: Some(transaction), .. } => {
            core.doubts.add(case.key, case.fingerprint, Some(transaction.clone()));
            core.journal.post(case.key, Change::new(&[Event::SettlePending]).transaction(Some(transaction)), None);
            false
        }
        outcome => {
            tracing::warn!(payment = %case.key, facilitator = row.facilitator, ?outcome, "still unknown");
            false
        }
    }
}

/// Looks on the chain, when it can be read; true when that ended the doubt.
async fn on_chain(core: &Arc<Core>, case: Case, row: &Row) -> bool {
    let Some((view, payment)) = core.view(&case.key).zip(row.payment(&case.key)) else { return false };
    let looked = tokio::time::timeout(core.settle_timeout, view.look(&payment, row.created / 1000, row.transaction.as_deref()));
    let found = looked.await.unwrap_or_else(|_| ChainFinding::Unavailable { cause: "no answer in time".to_owned() });
    let unpaid = match found {
        ChainFinding::Settled { transaction, amount, .. } => {
            let Some(transaction) = outcome::transaction(&transaction) else { return false };
            let receipt = Receipt { transaction, payer: case.key.payer, amount };
            return settled(core, case, row, receipt).await;
        }
        ChainFinding::Unused { is_final: true, .. } => Event::FoundUnused,
        ChainFinding::UsedElsewhere { is_final: true } => Event::FoundSpent,
        undecided => {
            tracing::info!(payment = %case.key, ?undecided, "the chain does not decide yet");
            return false;
        }
    };
    tracing::info!(payment = %case.key, event = unpaid.code(), "an unknown settlement was never made, and never can be");
    let change = Change::new(if unpaid == Event::FoundUnused { &[Event::FoundUnused] } else { &[Event::FoundSpent] });
    if core.journal.record(case.key, change).await.is_err() {
        return false;
    }
    core.resolved(&case.key, row, false);
    true
}

impl Core {
    /// What the chain shows of a payment that is not in the journal, within the time of a verdict.
    pub async fn look_before(&self, payment: &MatchedPayment) -> Option<ChainFinding> {
        /// A payment is signed at most this long before it comes, beyond its time-out.
        const SIGNED_BEFORE: u64 = 3_600;
        let view = self.view(&payment.replay_key())?;
        let validity = u64::from(payment.terms.max_timeout_seconds) + SIGNED_BEFORE;
        let since = payment.authorization.valid_before.saturating_sub(validity).min(now_ms() / 1000);
        tokio::time::timeout(LOOK_PATIENCE, view.look(payment, since, None)).await.ok()
    }

    /// The chain of a payment, if it can be read.
    pub fn view(&self, key: &ReplayKey) -> Option<&Arc<dyn ChainView>> {
        let network = Network::find(&format!("eip155:{}", key.chain_id))?;
        self.chains.iter().find(|(name, _)| *name == network.name).map(|(_, view)| view)
    }
}

/// The buyer of it is long gone: settled, and owed, unless the answer had left before.
async fn settled(core: &Arc<Core>, case: Case, row: &Row, receipt: Receipt) -> bool {
    tracing::info!(payment = %case.key, transaction = receipt.transaction, "an unknown settlement turned out settled");
    let (events, counter): (&[Event], _) = match &row.ask {
        Some(ask) if ask.delivered => (&[Event::SettleSettled, Event::Delivered], &core.counters.delivered),
        _ => (&[Event::SettleSettled, Event::DeliveryFailed], &core.counters.owed),
    };
    if core.journal.record(case.key, Change::new(events).receipt(receipt)).await.is_err() {
        return false;
    }
    core.counters.recovered.add();
    counter.add();
    core.resolved(&case.key, row, true);
    true
}
