//! What a facilitator can be asked, and every way it can answer.

use futures_util::future::BoxFuture;
use obol_offer::{Address, Amount, Network};
use obol_x402::MatchedPayment;
use serde::{Deserialize, Serialize};

/// Someone who verifies payments and moves the money: a remote service, or the sandbox.
pub trait Facilitator: Send + Sync + 'static {
    /// Base URL, or a word such as `sandbox`; stable, stored with each payment.
    fn id(&self) -> &str;
    /// Who sends its settlements of `upto` payments on a network; `None` when it takes none there, or when
    /// it says so elsewhere (`/supported`).
    fn upto(&self, _network: &Network) -> Option<Address> {
        None
    }
    /// Would this payment settle now? Moves nothing.
    fn verify<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, VerifyOutcome>;
    /// Move the money: [`MatchedPayment::charge`].
    fn settle<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, SettleOutcome>;
}

/// Answers to `/verify`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyOutcome {
    /// It would settle.
    Valid {
        /// Who pays.
        payer: Address,
    },
    /// It would not.
    Invalid {
        /// The facilitator's own word, at most 120 printable characters.
        reason: String,
    },
    /// No usable answer; nothing is known, nothing was moved.
    Unavailable {
        /// For the log, never for buyers.
        cause: String,
    },
}

/// Answers to `/settle`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettleOutcome {
    /// Money moved.
    Settled(Receipt),
    /// A clean refusal without a transaction: nothing moved.
    Refused {
        /// The facilitator's own word, at most 120 printable characters.
        reason: String,
    },
    /// The request never left, or was turned away unread: nothing moved.
    NotAsked {
        /// For the log, never for buyers.
        cause: String,
    },
    /// A transaction was sent and is not confirmed (`settlement_pending`).
    Pending {
        /// Its hash.
        transaction: String,
    },
    /// Anything else: time-out, garbage, a contradiction. Money may have moved.
    Unknown {
        /// For the log, never for buyers.
        cause: String,
        /// A hash, if one was named.
        transaction: Option<String>,
    },
}

/// Proof that money moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Transaction hash.
    pub transaction: String,
    /// Who paid.
    pub payer: Address,
    /// Atomic units moved.
    pub amount: Amount,
}
