//! Asks again about settlements of unknown outcome, rarely and within bounds.
//!
//! Only a clear success ends the doubt here. A refusal does not: "nonce already used" may be our
//! own first attempt.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use obol_offer::B256;
use obol_payment::Event;
use obol_x402::ReplayKey;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{Recovery, SettleOutcome, cashier::Core, journal::Change};

/// Most questions under way at once.
const MAX_AT_ONCE: usize = 8;

/// One settlement of unknown outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub key: ReplayKey,
    pub fingerprint: B256,
}

/// Asks until the cashier is gone.
pub(crate) async fn run(core: Weak<Core>, mut cases: mpsc::UnboundedReceiver<Case>, policy: Recovery, stop: CancellationToken) {
    let mut due: BTreeMap<(Instant, ReplayKey), (Case, u32)> = BTreeMap::new();
    let mut asking = FuturesUnordered::new();
    let later = |n: u32| policy.wait(n).map(|wait| Instant::now() + wait);
    loop {
        let next = due.first_key_value().map(|((at, _), _)| *at).filter(|_| asking.len() < MAX_AT_ONCE);
        tokio::select! {
            () = stop.cancelled() => return,
            case = cases.recv() => {
                let Some(case) = case else { return };
                due.extend(later(0).map(|at| ((at, case.key), (case, 0))));
            }
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                if let Some((_, (case, n))) = due.pop_first() {
                    let core = core.clone();
                    asking.push(async move { (case, n, ask(&core, case).await) });
                }
            }
            Some((case, n, resolved)) = asking.next() => {
                if !resolved {
                    match later(n + 1) {
                        Some(at) => drop(due.insert((at, case.key), (case, n + 1))),
                        None => tracing::error!(payment = %case.key, "still unknown; it is asked about again after a restart"),
                    }
                }
            }
        }
    }
}

/// Asks the facilitator once; true when the doubt is over.
async fn ask(core: &Weak<Core>, case: Case) -> bool {
    let Some(core) = core.upgrade() else { return false };
    let Ok(Some(row)) = core.journal.read(&case.key) else { return false };
    if !row.state.is_unsettled() {
        core.doubts.remove(&case.key, case.fingerprint);
        return true;
    }
    let Some((payment, member)) = row.payment(&case.key).zip(core.pool.find(&row.facilitator)) else {
        tracing::error!(payment = %case.key, facilitator = row.facilitator, "nobody to ask: unknown network or facilitator");
        return false;
    };
    match member.settle(&payment, core.settle_timeout).await {
        SettleOutcome::Settled(receipt) => settled(&core, case, receipt).await,
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

/// The buyer of it is long gone: settled, and owed.
async fn settled(core: &Arc<Core>, case: Case, receipt: crate::Receipt) -> bool {
    tracing::info!(payment = %case.key, transaction = receipt.transaction, "an unknown settlement turned out settled");
    let change = Change::new(&[Event::SettleSettled, Event::DeliveryFailed]).receipt(receipt);
    if core.journal.record(case.key, change).await.is_err() {
        return false;
    }
    core.counters.recovered.add();
    core.counters.owed.add();
    core.doubts.remove(&case.key, case.fingerprint);
    true
}
