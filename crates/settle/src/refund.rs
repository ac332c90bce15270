//! Noting that the money of an owed payment was sent back. Nothing here pays.

use obol_payment::{Event, State};
use obol_x402::ReplayKey;

use crate::{
    Cashier, ListError, PaymentRecord, Refund,
    journal::{Change, WriteError},
    outcome,
    record::parse_key,
};

/// Longest note of a refund, in characters.
pub const MAX_NOTE: usize = 500;

/// Why a refund was not noted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefundError {
    /// There is no such payment, or it is in an archive.
    #[error("there is no such payment in the journal")]
    Unknown,
    /// Nothing is owed for it.
    #[error("nothing is owed for this payment: it is {0}")]
    NotOwed(State),
    /// The transaction is no hash.
    #[error("the transaction is no hash")]
    Transaction,
    /// The note is too long, or not printable.
    #[error("a note has at most {MAX_NOTE} printable characters")]
    Note,
    /// The journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] ListError),
}

impl RefundError {
    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "payment_unknown",
            Self::NotOwed(_) => "payment_not_owed",
            Self::Transaction => "refund_transaction",
            Self::Note => "refund_note",
            Self::Journal(error) => error.code(),
        }
    }
}

impl Cashier {
    /// Notes that the money of an owed payment was sent back, durably; the payment as it is then.
    /// A refund that is noted already is left as it is, and no error.
    ///
    /// # Errors
    /// [`RefundError`].
    pub async fn note_refund(&self, key: &str, refund: Refund) -> Result<PaymentRecord, RefundError> {
        let key = parse_key(key).ok_or(RefundError::Unknown)?;
        let plain = |note: &String| note.chars().count() <= MAX_NOTE && !note.chars().any(char::is_control);
        if !refund.note.as_ref().is_none_or(plain) {
            return Err(RefundError::Note);
        }
        if refund.transaction.as_deref().is_some_and(|hash| outcome::transaction(hash).as_deref() != Some(hash)) {
            return Err(RefundError::Transaction);
        }
        match self.core.journal.change(key, Change::new(&[Event::Refunded]).refund(refund)).await {
            Ok(()) => self.row(&key).await,
            Err(WriteError::Conflict(row)) if row.state == State::Refunded => Ok(PaymentRecord::of(&key, &row)),
            Err(WriteError::Conflict(row)) => Err(RefundError::NotOwed(row.state)),
            Err(WriteError::Illegal) => Err(RefundError::Unknown),
            Err(WriteError::Unavailable | WriteError::InDoubt { .. } | WriteError::Exposed) => Err(unavailable()),
        }
    }

    async fn row(&self, key: &ReplayKey) -> Result<PaymentRecord, RefundError> {
        let row = self.core.journal.read(key).await.map_err(|_| unavailable())?.ok_or(RefundError::Unknown)?;
        Ok(PaymentRecord::of(key, &row))
    }
}

fn unavailable() -> RefundError {
    ListError::Journal("see the log".to_owned()).into()
}
