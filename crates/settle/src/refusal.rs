//! Why a payment was not admitted.

use std::sync::Arc;

use obol_offer::B256;
use obol_payment::{Answer, State};

use crate::{Receipt, StoredAnswer};

/// Why a payment was not admitted. [`Refusal::code`] is stable and documented.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The same payment is being worked on. 409.
    InProgress,
    /// The same payment has bought an answer already. 409 with the receipt.
    AlreadyUsed(Receipt),
    /// The same payment has bought this answer already: here it is again. Charges nothing.
    Answered {
        /// Of the payment.
        receipt: Receipt,
        /// As it was first.
        answer: Arc<StoredAnswer>,
    },
    /// The same payment was presented for another request. 409.
    OtherRequest,
    /// The payer has given the same name to another purchase. 409.
    OtherPurchase,
    /// Its nonce was used before the payment came here: a new signature may pay twice. 409.
    Spent {
        /// The transfer to the seller, where the chain shows one.
        transaction: Option<String>,
    },
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
    /// Its payer owes as much as one payer may, for metered answers that are not settled yet. 429, nothing moved.
    Exposed,
    /// No facilitator gave a usable answer. 503, nothing moved.
    FacilitatorUnavailable,
    /// The journal cannot be written: no paid work. 503, nothing moved.
    JournalUnavailable,
}

impl Refusal {
    /// Every code, in the order of the variants.
    pub const CODES: [&'static str; 11] = [
        "payment_in_progress",
        "payment_already_used",
        "payment_replayed",
        "payment_for_other_request",
        "payment_identifier_conflict",
        "payment_spent",
        "settlement_unknown",
        "payment_invalid",
        "too_much_unsettled",
        "facilitator_unavailable",
        "journal_unavailable",
    ];

    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InProgress => "payment_in_progress",
            Self::AlreadyUsed(_) => "payment_already_used",
            Self::Answered { .. } => "payment_replayed",
            Self::OtherRequest => "payment_for_other_request",
            Self::OtherPurchase => "payment_identifier_conflict",
            Self::Spent { .. } => "payment_spent",
            Self::Unsettled { .. } => "settlement_unknown",
            Self::Invalid { .. } => "payment_invalid",
            Self::Exposed => "too_much_unsettled",
            Self::FacilitatorUnavailable => "facilitator_unavailable",
            Self::JournalUnavailable => "journal_unavailable",
        }
    }
}

/// What is known of a payment that was seen before.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub state: State,
    pub fingerprint: B256,
    pub receipt: Option<Receipt>,
    pub transaction: Option<String>,
}

impl Known {
    /// Why the same payment is refused for a request; `None` when it may be used again.
    pub fn refusal(self, fingerprint: B256) -> Option<Refusal> {
        match Answer::of(self.state) {
            Answer::Usable => None,
            Answer::InProgress => Some(Refusal::InProgress),
            Answer::AlreadyUsed if self.fingerprint != fingerprint => Some(Refusal::OtherRequest),
            Answer::AlreadyUsed => Some(match self.receipt {
                Some(receipt) => Refusal::AlreadyUsed(receipt),
                None => Refusal::Unsettled { transaction: self.transaction },
            }),
            Answer::Unsettled => Some(Refusal::Unsettled { transaction: self.transaction }),
            Answer::Void => Some(Refusal::Invalid { reason: "authorization_expired".to_owned() }),
        }
    }
}
