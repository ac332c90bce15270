//! One settlement, from the first look at the chain until the chain has answered.

use std::{
    sync::PoisonError,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alloy_primitives::{B256, U256};
use obol_offer::Amount;
use obol_settle::{Receipt, SettleOutcome};
use obol_x402::MatchedPayment;

use crate::{
    account::Sent,
    error::RpcError,
    facilitator::Shared,
    proof::{Expected, Verdict},
    reads::Use,
    rehearsal::{Obstacle, Rehearsed},
    rpc::Broadcast,
    transaction::{Call, Signed},
    wire::TransactionReceipt,
};

/// How far a settlement is.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    /// Nothing was sent yet.
    Begun,
    /// A transaction was sent; the newest hash.
    Sent(B256),
    /// It is over.
    Done(SettleOutcome),
}

/// A transaction is given up this long after the payment's validity has ended.
const LAST_PATIENCE: u64 = 600;
/// A payment is signed at most this long before it is settled, beyond its time-out.
const SIGNED_BEFORE: u64 = 3_600;

/// Settles a payment. A nonce that is used already is looked up, so that asking again, after a
/// crash too, gives the first settlement's transaction and sends nothing.
pub(crate) async fn run(shared: &Shared, payment: &MatchedPayment, tell: &tokio::sync::watch::Sender<Progress>) -> SettleOutcome {
    let expected = Expected::from(payment);
    let not_asked = |error: RpcError| SettleOutcome::NotAsked { cause: error.to_string() };
    let head = match shared.chain.head().await {
        Ok(head) => head,
        Err(error) => return not_asked(error),
    };
    let (account, chain) = (&shared.account, &shared.chain);
    let state = chain.is_used(&expected, head.number());
    let rehearsed = shared.rehearse(payment, payment.charge.0);
    let (used, rehearsed, fees, permit2) = tokio::join!(state, rehearsed, account.fees(chain, &head), shared.permit2(payment));
    match used {
        Ok(true) => return used_already(shared, payment, &expected).await,
        Ok(false) => {}
        Err(error) => return not_asked(error),
    }
    if let Err(reason) = shared.check(payment) {
        return SettleOutcome::Refused { reason: reason.to_owned() };
    }
    match permit2 {
        Ok(None) => {}
        Ok(Some(reason)) => return SettleOutcome::Refused { reason: reason.to_owned() },
        Err(error) => return not_asked(error),
    }
    if payment.charge == Amount::ZERO {
        return SettleOutcome::Settled(Receipt { transaction: String::new(), payer: expected.from, amount: Amount::ZERO });
    }
    let (Rehearsed { to, data, gas }, fees) = match (rehearsed, fees) {
        (Ok(rehearsed), Ok(fees)) => (rehearsed, fees),
        (Err(Obstacle::Refused(reason)), _) => return SettleOutcome::Refused { reason },
        (Err(Obstacle::Node(error)), _) | (_, Err(error)) => return not_asked(error),
    };
    match account.send(chain, to, data, gas, fees).await {
        Ok(sent) => Watch::new(shared, payment, expected, sent).run(tell).await,
        Err(cause) => SettleOutcome::NotAsked { cause },
    }
}

/// What to say of a payment whose nonce is used.
async fn used_already(shared: &Shared, payment: &MatchedPayment, expected: &Expected) -> SettleOutcome {
    let signed_at = expected.valid_before.saturating_sub(u64::from(payment.terms.max_timeout_seconds) + SIGNED_BEFORE);
    let unknown = |cause: String, transaction| SettleOutcome::Unknown { cause, transaction };
    let found = match shared.chain.find_transfer(expected, signed_at.min(unix_now())).await {
        Ok(found) => found,
        Err(error) => return unknown(format!("the nonce is used: {error}"), None),
    };
    match found {
        Use::Ours { transaction, amount, block } => match shared.chain.head().await {
            Ok(head) if shared.chain.is_deep(block, head.number()) => settled(payment, transaction, amount),
            _ => SettleOutcome::Pending { transaction: transaction.to_string() },
        },
        Use::Elsewhere { block } if is_final(shared, block).await => {
            SettleOutcome::Refused { reason: "authorization_spent_elsewhere".to_owned() }
        }
        Use::Elsewhere { .. } => unknown("the nonce was used for something else, not finally".to_owned(), None),
        Use::Unclear { cause } => unknown(cause, None),
    }
}

fn settled(payment: &MatchedPayment, transaction: B256, amount: U256) -> SettleOutcome {
    let payer = payment.authorization.from;
    SettleOutcome::Settled(Receipt { transaction: transaction.to_string(), payer, amount: Amount(amount) })
}

async fn is_final(shared: &Shared, block: u64) -> bool {
    let Ok(head) = shared.chain.head().await else { return false };
    shared.chain.final_head(&head).await.is_ok_and(|last| block <= last.number())
}

/// A transaction on its way into a block.
struct Watch<'a> {
    shared: &'a Shared,
    payment: &'a MatchedPayment,
    expected: Expected,
    call: Call,
    /// The newest transaction with this number, and every one before it.
    newest: Signed,
    hashes: Vec<B256>,
    /// When the newest was handed over.
    since: Instant,
    certain: bool,
}

impl<'a> Watch<'a> {
    fn new(shared: &'a Shared, payment: &'a MatchedPayment, expected: Expected, sent: Sent) -> Self {
        let Sent { call, signed, certain } = sent;
        shared.numbers.lock().unwrap_or_else(PoisonError::into_inner).insert(call.nonce);
        Self { shared, payment, expected, call, hashes: vec![signed.hash], newest: signed, since: Instant::now(), certain }
    }

    async fn run(mut self, tell: &tokio::sync::watch::Sender<Progress>) -> SettleOutcome {
        tell.send_replace(Progress::Sent(self.newest.hash));
        let mut wait = self.shared.config.poll_first;
        let mut vanished = 0;
        loop {
            tokio::time::sleep(wait).await;
            wait = (wait + wait / 4).min(self.shared.config.poll_longest);
            if let Some(outcome) = self.look().await {
                return outcome;
            }
            if !self.certain {
                self.again().await;
            }
            if self.since.elapsed() < self.shared.config.bump_after {
                continue;
            }
            self.since = Instant::now();
            if self.is_past().await {
                // Its number is used and none of its hashes is in a block: three such looks in a row.
                vanished += 1;
                if vanished > 2 {
                    return self.unknown("another transaction of this account took its number").await;
                }
            } else {
                vanished = 0;
                self.bump(tell).await;
            }
            if unix_now() > self.expected.valid_before.saturating_add(LAST_PATIENCE) {
                return self.unknown("in no block long after the payment's validity").await;
            }
        }
    }

    /// The outcome, when one of the transactions is deep enough in the chain.
    async fn look(&self) -> Option<SettleOutcome> {
        for hash in self.hashes.iter().rev() {
            let Ok(Some(receipt)) = self.shared.chain.receipt(*hash).await else { continue };
            let head = self.shared.chain.head().await.ok()?;
            return if self.shared.chain.is_deep(receipt.block(), head.number()) { self.judge(&receipt).await } else { None };
        }
        None
    }

    async fn judge(&self, receipt: &TransactionReceipt) -> Option<SettleOutcome> {
        let hash = receipt.transaction_hash;
        let unknown = |cause: &str| SettleOutcome::Unknown { cause: cause.to_owned(), transaction: Some(hash.to_string()) };
        if receipt.succeeded() {
            let verdict = self.shared.chain.judge(receipt, &self.expected).await.ok()?;
            return Some(match verdict {
                Verdict::Ours { amount } => settled(self.payment, hash, amount),
                _ => unknown("the transaction is in a block without the transfer"),
            });
        }
        let head = self.shared.chain.head().await.ok()?;
        match self.shared.chain.is_used(&self.expected, head.number()).await {
            // Somebody was faster, with this very payment perhaps.
            Ok(true) => Some(used_already(self.shared, self.payment, &self.expected).await),
            Ok(false) if is_final(self.shared, receipt.block()).await => {
                Some(SettleOutcome::Refused { reason: "transaction_reverted".to_owned() })
            }
            Ok(false) => Some(unknown("the transaction was reverted, not finally")),
            Err(_) => None,
        }
    }

    /// Hands the same transaction over again: a node may never have had it, or have lost it.
    async fn again(&mut self) {
        self.certain = matches!(self.shared.chain.rpc.broadcast(&self.newest.raw).await, Broadcast::Accepted);
    }

    /// Whether the account's next transaction has a later number than ours.
    async fn is_past(&self) -> bool {
        let count = self.shared.chain.transaction_count(self.shared.account.address(), "latest").await;
        count.is_ok_and(|count| count > self.call.nonce)
    }

    /// Sends the same transaction for more, and makes way for it.
    async fn bump(&mut self, tell: &tokio::sync::watch::Sender<Progress>) {
        let (chain, account) = (&self.shared.chain, &self.shared.account);
        let Ok(head) = chain.head().await else { return };
        let Ok(market) = account.fees(chain, &head).await else { return };
        if let Ok(first) = chain.transaction_count(account.address(), "latest").await {
            let foreign: Vec<_> = {
                let ours = self.shared.numbers.lock().unwrap_or_else(PoisonError::into_inner);
                (first..self.call.nonce).take(16).filter(|number| !ours.contains(number)).collect()
            };
            account.fill(chain, foreign.into_iter(), market).await;
        }
        let Some((call, signed)) = account.dearer(&self.call, market) else {
            return self.again().await;
        };
        match chain.rpc.broadcast(&signed.raw).await {
            Broadcast::Rejected(error) => tracing::debug!(%error, "a replacement was refused"),
            sent => {
                tracing::info!(old = %self.newest.hash, new = %signed.hash, "a settlement waits for a block; it is sent again for more");
                self.certain = matches!(sent, Broadcast::Accepted);
                self.hashes.push(signed.hash);
                tell.send_replace(Progress::Sent(signed.hash));
                (self.call, self.newest) = (call, signed);
            }
        }
    }

    /// Gives up on our own transactions, and asks the chain one last time.
    async fn unknown(&self, cause: &str) -> SettleOutcome {
        if let Ok(head) = self.shared.chain.head().await
            && let Ok(true) = self.shared.chain.is_used(&self.expected, head.number()).await
        {
            return used_already(self.shared, self.payment, &self.expected).await;
        }
        SettleOutcome::Unknown { cause: cause.to_owned(), transaction: Some(self.newest.hash.to_string()) }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.shared.numbers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.call.nonce);
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
