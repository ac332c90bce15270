//! The I/O round `obol-payment`: the journal, the facilitators, and the cashier that admits a
//! payment, hands out a [`PaymentPermit`] and captures the money.
//!
//! Rule of the crate: the journal is written before the network is asked, and an unknown outcome
//! is never a failed one.

mod breaker;
mod cashier;
mod chain;
mod claims;
mod config;
mod doubts;
mod exposure;
mod facilitator;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http;
mod journal;
mod ledger;
mod outcome;
mod permit;
mod pool;
mod record;
mod recovery;
mod refund;
mod refusal;
mod rerun;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod sim;
mod stats;
mod stored;
mod supported;
#[cfg(test)]
mod test_payment;
mod witness;

pub use cashier::Cashier;
pub use chain::{ChainFinding, ChainView, ChainViews};
pub use config::{Archiving, CashierConfig, OpenError, Recovery, Secret, SharedJournal};
pub use facilitator::{Facilitator, Receipt, SettleOutcome, VerifyOutcome};
pub use http::client as http_client;
pub use obol_payment::State as PaymentState;
pub use permit::{Captured, Delivery, PaymentPermit};
pub use pool::FacilitatorHealth;
pub use record::{ListError, PaymentPage, PaymentQuery, PaymentRecord, Refund};
pub use refund::{MAX_NOTE, RefundError};
pub use refusal::Refusal;
pub use stats::CashierStats;
pub use stored::StoredAnswer;
