//! What a chain says of a payment: the last word on whether money moved.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use obol_offer::Amount;
use obol_x402::MatchedPayment;

/// Reads one network's chain. It moves nothing.
pub trait ChainView: Send + Sync + 'static {
    /// What became of a payment. `since` is the Unix second at which it was first seen; it cannot
    /// have been settled much earlier. `transaction` is a hash that somebody named for it.
    fn look<'a>(&'a self, payment: &'a MatchedPayment, since: u64, transaction: Option<&'a str>) -> BoxFuture<'a, ChainFinding>;
}

/// Chain views by network name.
pub type ChainViews = Vec<(&'static str, Arc<dyn ChainView>)>;

/// What the chain shows of one payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainFinding {
    /// The token's own events show that exactly this payment was made.
    Settled {
        /// Its transaction.
        transaction: String,
        /// Atomic units that moved: what was to be charged, unless a facilitator did otherwise.
        amount: Amount,
        /// Whether no reorganisation is to be expected any more.
        is_final: bool,
    },
    /// The nonce was cancelled, or used for another transfer: this payment can never be made.
    UsedElsewhere {
        /// Whether no reorganisation is to be expected any more.
        is_final: bool,
    },
    /// The nonce is unused.
    Unused {
        /// Unix second of the block that shows it.
        as_of: u64,
        /// Whether it can never be used: `validBefore` has passed on the finalised chain.
        is_final: bool,
    },
    /// Nothing can be said now.
    Unavailable {
        /// For the log, never for buyers.
        cause: String,
    },
}
