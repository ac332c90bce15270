//! What proves a payment: the token's own events, in one transaction, next to each other.

use alloy_primitives::{B256, U256};
use alloy_sol_types::SolEvent;
use obol_offer::Address;
use obol_x402::MatchedPayment;

use crate::{
    token::Token::{AuthorizationCanceled, AuthorizationUsed, Transfer},
    wire::{Log, TransactionReceipt},
};

/// The transfer that a payment is to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Token contract.
    pub token: Address,
    /// Payer.
    pub from: Address,
    /// Payee.
    pub to: Address,
    /// Atomic units.
    pub value: U256,
    /// The authorization's nonce.
    pub nonce: B256,
    /// Unix second from which on it is void.
    pub valid_before: u64,
}

/// What a transaction shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The nonce was used in it for exactly this transfer.
    Ours,
    /// The nonce was cancelled in it, or used for another transfer.
    Elsewhere,
    /// The nonce was used in it, and the events fit neither.
    Unclear,
    /// It failed, or is not about this nonce.
    Absent,
}

impl From<&MatchedPayment> for Expected {
    fn from(payment: &MatchedPayment) -> Self {
        let signed = &payment.authorization;
        Self {
            token: payment.terms.asset.address,
            from: signed.from,
            to: signed.to,
            value: signed.value.0,
            nonce: signed.nonce,
            valid_before: signed.valid_before,
        }
    }
}

impl Expected {
    /// Reads a receipt. The transfer that belongs to a nonce is the token's next event: one
    /// transaction may carry many authorizations, and a transfer proves one payment only.
    pub(crate) fn judge(&self, receipt: &TransactionReceipt) -> Verdict {
        if !receipt.succeeded() {
            return Verdict::Absent;
        }
        let events: Vec<_> = receipt.logs.iter().filter(|log| log.address == self.token && !log.removed).collect();
        let about = |log: &Log, kind: B256| log.topics.as_slice() == [kind, self.from.into_word(), self.nonce];
        if let Some(used) = events.iter().position(|log| about(log, AuthorizationUsed::SIGNATURE_HASH)) {
            let transfer = events.get(used + 1).and_then(|log| transfer(log));
            return match transfer {
                Some(transfer) if self.is(&transfer) => Verdict::Ours,
                Some(_) if !events.iter().filter_map(|log| self::transfer(log)).any(|other| self.is(&other)) => Verdict::Elsewhere,
                _ => Verdict::Unclear,
            };
        }
        if events.iter().any(|log| about(log, AuthorizationCanceled::SIGNATURE_HASH)) { Verdict::Elsewhere } else { Verdict::Absent }
    }

    fn is(&self, transfer: &Transfer) -> bool {
        (transfer.from, transfer.to, transfer.value) == (self.from, self.to, self.value)
    }
}

fn transfer(log: &Log) -> Option<Transfer> {
    Transfer::decode_raw_log_validate(log.topics.iter().copied(), &log.data).ok()
}
