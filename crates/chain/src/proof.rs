//! What proves a payment: the token's own events in one transaction, next to each other, and for Permit2,
//! which says nothing of nonces, the call of x402's proxy that names the nonce.

use alloy_primitives::{B256, U256};
use alloy_sol_types::SolEvent;
use obol_offer::Address;
use obol_x402::{AuthorizationKind, MatchedPayment};

use crate::{
    permit2::Settlement,
    token::Token::{AuthorizationCanceled, AuthorizationUsed, Transfer},
    wire::{Log, SentTransaction, TransactionReceipt},
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
    /// Atomic units to be moved.
    pub value: U256,
    /// Atomic units that may be moved: more than `value` when less was used than signed for.
    pub ceiling: U256,
    /// The authorization's nonce.
    pub nonce: B256,
    /// Who moves the money, and keeps the nonce.
    pub kind: AuthorizationKind,
    /// Unix second from which on it is void.
    pub valid_before: u64,
}

/// What a transaction shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The nonce was used in it for exactly this transfer, or for less than the ceiling.
    Ours {
        /// Atomic units that moved.
        amount: U256,
    },
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
            value: payment.charge.0,
            ceiling: signed.value.0,
            nonce: signed.nonce,
            kind: signed.kind,
            valid_before: signed.valid_before,
        }
    }
}

impl Expected {
    /// Reads a receipt of an ERC-3009 payment. The transfer that belongs to a nonce is the token's next event: one
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
                Some(transfer) if self.is(&transfer) => Verdict::Ours { amount: transfer.value },
                Some(_) if !events.iter().filter_map(|log| self::transfer(log)).any(|other| self.is(&other)) => Verdict::Elsewhere,
                _ => Verdict::Unclear,
            };
        }
        if events.iter().any(|log| about(log, AuthorizationCanceled::SIGNATURE_HASH)) { Verdict::Elsewhere } else { Verdict::Absent }
    }

    /// Reads the receipt of a Permit2 payment with the transaction that it is of. A proxy's call for the
    /// nonce that did not revert has used it. One that another contract made cannot be read.
    pub(crate) fn judge_permit2(&self, receipt: &TransactionReceipt, sent: &SentTransaction) -> Verdict {
        if !receipt.succeeded() || receipt.transaction_hash != sent.hash {
            return Verdict::Absent;
        }
        let events = receipt.logs.iter().filter(|log| log.address == self.token && !log.removed);
        let moved: Vec<_> = events.filter_map(transfer).filter(|t| (t.from, t.to) == (self.from, self.to)).collect();
        let call = Some(sent).filter(|sent| sent.to == self.kind.spender()).and_then(|sent| Settlement::read(self, &sent.input));
        match call {
            Some(call) if (call.owner, call.nonce) == (self.from, U256::from_be_bytes(self.nonce.0)) => {
                let ours = (call.token, call.to) == (self.token, self.to) && call.amount <= self.ceiling;
                match moved.iter().any(|transfer| transfer.value == call.amount) {
                    true if ours => Verdict::Ours { amount: call.amount },
                    false if !ours && moved.is_empty() => Verdict::Elsewhere,
                    _ => Verdict::Unclear,
                }
            }
            // Another payment of this payer to the same payee.
            Some(_) => Verdict::Absent,
            None if moved.iter().any(|transfer| transfer.value <= self.ceiling) => Verdict::Unclear,
            None => Verdict::Absent,
        }
    }

    fn is(&self, transfer: &Transfer) -> bool {
        (transfer.from, transfer.to, transfer.value) == (self.from, self.to, self.value)
    }
}

fn transfer(log: &Log) -> Option<Transfer> {
    Transfer::decode_raw_log_validate(log.topics.iter().copied(), &log.data).ok()
}
