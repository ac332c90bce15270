//! A chain as a ledger: ERC-3009 (a nonce once, the window, the balance), a mempool, and
//! reorganisations that put young transfers back.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::BoxFuture;
use obol_offer::{Address, Amount, B256};
use obol_settle::{ChainFinding, ChainView};
use obol_x402::MatchedPayment;

use crate::{rng::Rng, world::Shared};

/// Milliseconds after which a reader takes a transfer for made.
const CONFIRMED: u64 = 6_000;
/// Reorganisations reach this far back at most.
const REORG: u64 = 4_000;
/// Rare ones reach this far back, behind what a reader takes for made.
const DEEP_REORG: u64 = 45_000;
/// Milliseconds after which nothing is undone any more.
const FINAL: u64 = 60_000;

/// Payer and nonce.
pub type Key = (Address, B256);

/// What a nonce was used for.
#[derive(Clone, Debug)]
struct Spent {
    at: u64,
    /// `None`: cancelled.
    amount: Option<u64>,
}

/// A transaction on its way into a block.
#[derive(Clone, Copy, Debug)]
struct Pending {
    key: Key,
    amount: u64,
    valid_before: u64,
    /// Its block was dropped from deep below, and every node has it: it comes back, whatever was
    /// promised, and its payer cannot spend the money meanwhile. It is lost where the payer has
    /// cancelled the authorization by then.
    returns: bool,
}

/// The chain.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Atomic units by owner.
    pub balances: BTreeMap<Address, u64>,
    spent: BTreeMap<Key, Spent>,
    /// By time of inclusion.
    mempool: BTreeMap<(u64, u64), Pending>,
    /// By time of the reorganisation that undoes it.
    undone: BTreeMap<(u64, u64), Pending>,
    promised: BTreeSet<Key>,
    /// Promised, and then taken back by a reorganisation deeper than what a reader waits for: as the
    /// configured depth has it.
    lost: BTreeSet<Key>,
    serial: u64,
}

/// What happened, for the trace.
#[derive(Debug)]
pub enum Happened {
    /// Money moved.
    Moved(Key),
    /// A transaction failed.
    Reverted(Key, &'static str),
    /// A transfer was undone.
    Undone(Key),
    /// It is in a block again.
    Returned(Key),
    /// It will not be: its payer has cancelled it.
    Lost(Key),
}

/// Which reorganisations there are.
#[derive(Clone, Copy, Debug)]
pub struct Reorgs {
    /// Of young blocks.
    pub shallow: bool,
    /// Of blocks that a reader takes for made.
    pub deep: bool,
}

/// The one transaction that an authorization can make.
pub fn hash(key: &Key) -> String {
    key.1.to_string()
}

impl Ledger {
    /// Sends a transaction that is in a block at `at`.
    pub fn send(&mut self, key: Key, amount: u64, valid_before: u64, at: u64) {
        self.serial += 1;
        self.mempool.insert((at, self.serial), Pending { key, amount, valid_before, returns: false });
    }

    /// Makes a nonce unusable.
    pub fn cancel(&mut self, key: Key, at: u64) {
        self.spent.entry(key).or_insert(Spent { at, amount: None });
    }

    /// Somebody relies on it.
    pub fn promise(&mut self, key: Key) {
        self.promised.insert(key);
    }

    /// Whether the money moved, as of now.
    pub fn moved(&self, key: &Key) -> Option<u64> {
        self.spent.get(key)?.amount
    }

    /// Whether the nonce is used.
    pub fn is_spent(&self, key: &Key) -> bool {
        self.spent.contains_key(key)
    }

    /// When a transaction that is on its way is in a block.
    pub fn on_its_way(&self, key: &Key) -> Option<u64> {
        self.mempool.iter().find(|(_, tx)| tx.key == *key).map(|((at, _), _)| *at)
    }

    /// Whether the money moved, as far as anybody can know who waits as long as readers do.
    pub fn is_taken(&self, key: &Key) -> bool {
        self.moved(key).is_some() || self.is_away(key)
    }

    /// Whether it moved, and a deep reorganisation has undone it: it is on its way back, or was
    /// promised and is lost.
    pub fn is_away(&self, key: &Key) -> bool {
        self.lost.contains(key) || self.mempool.values().any(|tx| tx.key == *key && tx.returns)
    }

    /// Whether it was promised, and will never move: the payer may pay again.
    pub fn is_lost(&self, key: &Key) -> bool {
        self.lost.contains(key)
    }

    /// Whether it may still move.
    pub fn may_move(&self, key: &Key) -> bool {
        !self.is_spent(key) && self.mempool.iter().any(|((at, _), tx)| tx.key == *key && (tx.returns || at / 1000 < tx.valid_before))
    }

    /// All transfers.
    pub fn transfers(&self) -> impl Iterator<Item = (&Key, u64)> {
        self.spent.iter().filter_map(|(key, spent)| Some((key, spent.amount?)))
    }

    /// Goes on to `now`.
    pub fn advance(&mut self, now: u64, rng: &mut Rng, reorgs: Reorgs) -> Vec<(u64, Happened)> {
        let mut events = Vec::new();
        loop {
            let next = self.mempool.first_key_value().map(|(time, _)| *time).filter(|(at, _)| *at <= now);
            let undo = self.undone.first_key_value().map(|(time, _)| *time).filter(|(at, _)| *at <= now);
            match (next, undo) {
                (None, None) => return events,
                (next, Some(time)) if next.is_none_or(|next| time <= next) => {
                    let tx = self.undone.remove(&time).unwrap();
                    self.undo(tx, time.0, rng, &mut events);
                }
                (Some(time), _) => {
                    let tx = self.mempool.remove(&time).unwrap();
                    self.execute(tx, time.0, rng, reorgs, &mut events);
                }
                (None, Some(_)) => unreachable!(),
            }
        }
    }

    fn execute(&mut self, tx: Pending, at: u64, rng: &mut Rng, reorgs: Reorgs, events: &mut Vec<(u64, Happened)>) {
        let balance = self.balances.entry(tx.key.0).or_default();
        let failure = if self.spent.contains_key(&tx.key) {
            Some("authorization is used or canceled")
        } else if at / 1000 >= tx.valid_before && !tx.returns {
            Some("authorization is expired")
        } else if *balance < tx.amount && !tx.returns {
            Some("transfer amount exceeds balance")
        } else {
            None
        };
        if let Some(failure) = failure {
            if tx.returns {
                *balance += tx.amount;
                if self.promised.contains(&tx.key) {
                    self.lost.insert(tx.key);
                }
                return events.push((at, Happened::Lost(tx.key)));
            }
            return events.push((at, Happened::Reverted(tx.key, failure)));
        }
        if !tx.returns {
            *balance -= tx.amount;
        }
        self.spent.insert(tx.key, Spent { at, amount: Some(tx.amount) });
        events.push((at, if tx.returns { Happened::Returned(tx.key) } else { Happened::Moved(tx.key) }));
        if tx.returns {
            // Once is enough.
        } else if reorgs.shallow && rng.percent(8) {
            self.serial += 1;
            self.undone.insert((at + rng.range(1, REORG), self.serial), tx);
        } else if reorgs.deep && rng.percent(15) {
            self.serial += 1;
            self.undone.insert((at + rng.range(REORG, DEEP_REORG), self.serial), Pending { returns: true, ..tx });
        }
    }

    fn undo(&mut self, tx: Pending, at: u64, rng: &mut Rng, events: &mut Vec<(u64, Happened)>) {
        if tx.returns {
            self.spent.remove(&tx.key);
            events.push((at, Happened::Undone(tx.key)));
            self.serial += 1;
            self.mempool.insert((at + rng.range(1, 5_000), self.serial), tx);
            return;
        }
        if self.promised.contains(&tx.key) {
            // It is in the new block as it was in the old one.
            return;
        }
        self.spent.remove(&tx.key);
        *self.balances.entry(tx.key.0).or_default() += tx.amount;
        events.push((at, Happened::Undone(tx.key)));
        if rng.percent(80) {
            self.serial += 1;
            self.mempool.insert((at + rng.range(1, 5_000), self.serial), tx);
        }
    }

    fn look(&self, key: &Key, valid_before: u64, now: u64) -> ChainFinding {
        match self.spent.get(key) {
            Some(Spent { at, amount: Some(amount) }) if at + CONFIRMED <= now => {
                ChainFinding::Settled { transaction: hash(key), amount: Amount::from(*amount), is_final: at + FINAL <= now }
            }
            Some(Spent { amount: Some(_), .. }) => ChainFinding::Unavailable { cause: "too few confirmations".into() },
            Some(Spent { at, amount: None }) => ChainFinding::UsedElsewhere { is_final: at + FINAL <= now },
            None => ChainFinding::Unused { as_of: now / 1000, is_final: now.saturating_sub(FINAL) / 1000 >= valid_before },
        }
    }
}

/// A node of the chain, which is slow or away at times.
pub struct Node(pub Shared);

impl ChainView for Node {
    fn look<'a>(&'a self, payment: &'a MatchedPayment, _since: u64, _named: Option<&'a str>) -> BoxFuture<'a, ChainFinding> {
        Box::pin(async move {
            let (wait, away) = {
                let mut world = self.0.lock();
                let troubled = world.is_troubled();
                let wait = if troubled && world.rng.percent(5) { 200_000 } else { world.rng.range(5, 900) };
                (wait, troubled && world.rng.percent(15))
            };
            self.0.sleep(wait).await;
            let mut world = self.0.lock();
            let now = world.advance();
            let key = (payment.authorization.from, payment.authorization.nonce);
            let finding = match away {
                true => ChainFinding::Unavailable { cause: "the node is away".into() },
                false => world.ledger.look(&key, payment.authorization.valid_before, now),
            };
            if matches!(finding, ChainFinding::Settled { .. }) {
                world.ledger.promise(key);
            }
            world.note(format_args!("chain read {} {finding:?}", crate::world::short(&key)));
            finding
        })
    }
}
