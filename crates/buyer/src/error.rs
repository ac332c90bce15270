//! Why a paid request gave no answer.

use obol_offer::{Address, B256};

use crate::Approval;

/// Each variant says what was wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayError {
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client: {0}; for https the system's root certificates are needed (package ca-certificates)")]
    Client(String),
    /// Nothing was paid: the server did not answer the unpaid request.
    #[error("no answer from {url}: {reason}; check the URL and that the service runs; nothing was paid")]
    Unreachable {
        /// Which URL.
        url: String,
        /// What the connection said.
        reason: String,
    },
    /// A `402` that is not x402, or a broken one.
    #[error("the server asks for payment, but not in a way that can be understood: {0}; nothing was paid")]
    Challenge(String),
    /// None of the offered payments can be made here.
    #[error("none of the payments the server accepts can be made here: {0}; nothing was paid")]
    NothingPayable(String),
    /// Above `max`.
    #[error("the price is {price}, above the limit of {max}; raise --max to at least the price if it is worth that; nothing was paid")]
    TooExpensive {
        /// The cheapest payable price with its unit.
        price: String,
        /// The limit.
        max: String,
    },
    /// `max` cannot be expressed in the asset.
    #[error("the limit does not fit the asset: {0}; write fewer decimals; nothing was paid")]
    Max(String),
    /// The payment goes by Permit2, which may not spend the payer's tokens yet.
    #[error(
        "paying {} on {} goes by Permit2, which may not spend that much of {} yet{}; nothing was paid",
        .approval.shown, .approval.network.name, .approval.payer,
        .reason.as_ref().map(|reason| format!(" (the server says: {reason})")).unwrap_or_default()
    )]
    Allowance {
        /// What gives the allowance.
        approval: Box<Approval>,
        /// The server's word, when it was the one to say so.
        reason: Option<String>,
    },
    /// The server refused the signed payment. It is not signed again.
    #[error(
        "the server refused the payment: {reason}; it says no money moved, and the signature with nonce {nonce} ends at Unix time {valid_before}"
    )]
    Refused {
        /// The server's reason.
        reason: String,
        /// Nonce of the signed authorization.
        nonce: B256,
        /// When the signature becomes worthless, Unix seconds.
        valid_before: u64,
    },
    /// The payment was sent and nobody knows what became of it.
    #[error(
        "the payment may have gone through, but there is no answer: {reason}; do not pay again before looking up \
         nonce {nonce} of {payer}{}, or wait until Unix time {valid_before}, when the signature ends",
        .transaction.as_ref().map(|hash| format!(" (transaction {hash})")).unwrap_or_default()
    )]
    Unknown {
        /// The last thing heard.
        reason: String,
        /// Who paid.
        payer: Address,
        /// Nonce of the signed authorization.
        nonce: B256,
        /// Transaction hash, if the server named one.
        transaction: Option<String>,
        /// When the signature becomes worthless, Unix seconds.
        valid_before: u64,
    },
    /// The answer broke off. It was paid for if a payment was sent.
    #[error("the answer broke off: {0}")]
    BrokenBody(String),
    /// The answer is longer than the caller wants to hold.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

impl PayError {
    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Client(_) => "http_client",
            Self::Unreachable { .. } => "unreachable",
            Self::Challenge(_) => "challenge_malformed",
            Self::NothingPayable(_) => "nothing_payable",
            Self::TooExpensive { .. } => "too_expensive",
            Self::Max(_) => "max_too_fine",
            Self::Allowance { .. } => "permit2_allowance",
            Self::Refused { .. } => "payment_refused",
            Self::Unknown { .. } => "payment_unknown",
            Self::BrokenBody(_) => "answer_broken",
            Self::TooLong(_) => "answer_too_long",
        }
    }
}

/// An error with its causes, which `reqwest` leaves out of its own text, and without the URL.
pub(crate) fn explain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text.chars().take(300).collect()
}
