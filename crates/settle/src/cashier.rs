//! From a matched payment to a permit, and from a permit to money.

use std::{path::PathBuf, sync::Arc, time::Duration};

use obol_offer::OfferName;
use obol_x402::MatchedPayment;

use crate::{Facilitator, Receipt};

/// How a [`Cashier`] works.
pub struct CashierConfig {
    /// Journal file; created when missing, locked while open.
    pub journal: PathBuf,
    /// Facilitator base URLs for offers that name none, in order of preference.
    pub default_facilitators: Vec<url::Url>,
    /// Facilitators inside this process, by network name; they go before any URL.
    pub local: Vec<(&'static str, Arc<dyn Facilitator>)>,
    /// Bound on one `/verify`.
    pub verify_timeout: Duration,
    /// Bound on one `/settle`; an answer later than this is unknown.
    pub settle_timeout: Duration,
}

/// Why a cashier could not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the journal.
    #[error("the journal {0} is in use by another process")]
    InUse(PathBuf),
    /// It cannot be read or written.
    #[error("the journal {path} cannot be opened: {cause}")]
    Journal {
        /// Journal file.
        path: PathBuf,
        /// What the store said.
        cause: String,
    },
}

/// Why a payment was not admitted. [`Refusal::code`] is stable and documented.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The same payment is being worked on. 409.
    InProgress,
    /// The same payment has bought an answer already. 409 with the receipt.
    AlreadyUsed(Receipt),
    /// The same payment was presented for another request. 409.
    OtherRequest,
    /// Its settlement is not known yet; never a 402. 503, retry the same payment.
    Unsettled {
        /// Hash, if one is known.
        transaction: Option<String>,
    },
    /// The facilitator says it would not settle. 402.
    Invalid {
        /// The facilitator's word.
        reason: String,
    },
    /// No facilitator gave a usable answer. 503, nothing moved.
    FacilitatorUnavailable,
    /// The journal cannot be written: no paid work. 503, nothing moved.
    JournalUnavailable,
}

impl Refusal {
    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InProgress => "payment_in_progress",
            Self::AlreadyUsed(_) => "payment_already_used",
            Self::OtherRequest => "payment_for_other_request",
            Self::Unsettled { .. } => "settlement_unknown",
            Self::Invalid { .. } => "payment_invalid",
            Self::FacilitatorUnavailable => "facilitator_unavailable",
            Self::JournalUnavailable => "journal_unavailable",
        }
    }
}

/// Admits payments and captures money. Cheap to clone.
#[derive(Clone)]
pub struct Cashier {}

impl Cashier {
    /// Opens the journal and brings unfinished rows to a state that can be served:
    /// reserved rows are released, settling rows become unknown and are asked about again in the
    /// background at the facilitator that was asked before.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(config: CashierConfig) -> Result<Self, OpenError> {
        let _ = config;
        todo!()
    }

    /// Claims the payment, has it verified, and reserves it durably for one request.
    ///
    /// `fingerprint` binds it to method, path, query and (as far as known) body.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has moved except where it says so.
    pub async fn admit(
        &self,
        offer: &OfferName,
        payment: MatchedPayment,
        facilitators: &[url::Url],
        fingerprint: [u8; 32],
    ) -> Result<PaymentPermit, Refusal> {
        let _ = (offer, payment, facilitators, fingerprint);
        todo!()
    }

    /// Waits until every settlement that was begun has an outcome in the journal.
    pub async fn drain(&self) {
        todo!()
    }
}

/// Leave to call the upstream once for one reserved payment. Only [`Cashier::admit`] makes one.
///
/// Dropped without [`capture`](Self::capture), it releases the reservation: nothing is charged and
/// the buyer may use the same payment again.
#[derive(Debug)]
pub struct PaymentPermit {
    _private: (),
}

/// How a capture ended.
#[derive(Debug)]
pub enum Captured {
    /// Money moved: the answer may leave.
    Settled(Receipt, Delivery),
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

impl PaymentPermit {
    /// The payment that was reserved.
    pub fn payment(&self) -> &MatchedPayment {
        todo!()
    }

    /// Takes the money: journal `settling`, ask the facilitator that verified, journal the outcome.
    /// Runs in a task of its own, so that a buyer who leaves does not cut a settlement short.
    pub async fn capture(self) -> Captured {
        todo!()
    }

    /// Gives the payment back unused, e.g. when the upstream failed.
    pub async fn release(self) {
        todo!()
    }
}

/// Held while a paid answer is on its way. Dropped without [`Delivery::complete`], the journal
/// shows the payment as owed.
#[derive(Debug)]
pub struct Delivery {
    _private: (),
}

impl Delivery {
    /// The whole answer was handed to the buyer's connection.
    pub fn complete(self) {
        todo!()
    }
}
