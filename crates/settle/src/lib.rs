//! The I/O round `obol-payment`: the journal, the facilitators, and the cashier that admits a
//! payment, hands out a [`PaymentPermit`] and captures the money.
//!
//! Rule of the crate: the journal is written before the network is asked, and an unknown outcome
//! is never a failed one.

mod cashier;
mod facilitator;

pub use cashier::{Captured, Cashier, CashierConfig, Delivery, OpenError, PaymentPermit, Refusal};
pub use facilitator::{Facilitator, Receipt, SettleOutcome, VerifyOutcome};
