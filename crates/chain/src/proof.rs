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
        let call = sent.to.and_then(|proxy| Settlement::read(proxy, &sent.input));
        match call {
            Some(call) if (call.owner, call.nonce) == (self.from, U256::from_be_bytes(self.nonce.0)) => {
                let ours = sent.to == self.kind.spender() && (call.token, call.to) == (self.token, self.to) && call.amount <= self.ceiling;
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

#[cfg(test)]
mod tests {
    use alloy_primitives::Bytes;
    use obol_offer::{Amount, Network, Scheme, Terms};
    use obol_x402::{LocalCheck, MatchedPayment, Version, permit2::UPTO_PROXY, signing};

    use super::*;
    use crate::permit2::settle_call;

    const HASH: B256 = B256::repeat_byte(0xaa);

    fn payment(nonce: u8) -> MatchedPayment {
        let network = Network::find("base-sepolia").unwrap();
        let (asset, pay_to, amount) = (network.default_asset(), Address::repeat_byte(7), Amount::from(1000));
        let terms = Terms { scheme: Scheme::Upto, network, asset, pay_to, amount, max_timeout_seconds: 300 };
        let key = secp256k1::SecretKey::from_byte_array([7; 32]).unwrap();
        let kind = AuthorizationKind::Upto { facilitator: Address::repeat_byte(9) };
        let authorization = signing::sign(&key, &terms, kind, B256::repeat_byte(nonce), 0..4_000_000_000);
        MatchedPayment {
            version: Version::V2,
            terms,
            authorization,
            local_check: LocalCheck::SignedByPayer,
            charge: amount,
            payload_digest: [0; 32],
            facilitator_body: Vec::new(),
        }
    }

    fn sent(payment: &MatchedPayment, amount: u64) -> SentTransaction {
        let (to, input) = settle_call(payment, U256::from(amount)).unwrap();
        SentTransaction { hash: HASH, to: Some(to), input: input.into() }
    }

    fn receipt(payment: &MatchedPayment, moved: &[u64]) -> TransactionReceipt {
        let log = |value: &u64| {
            let event = Transfer { from: payment.authorization.from, to: payment.terms.pay_to, value: U256::from(*value) };
            let data = event.encode_log_data();
            Log {
                address: payment.terms.asset.address,
                topics: data.topics().to_vec(),
                data: data.data.clone(),
                transaction_hash: Some(HASH),
                removed: false,
            }
        };
        let logs = moved.iter().map(log).collect();
        TransactionReceipt {
            transaction_hash: HASH,
            block_number: alloy_primitives::U64::from(3),
            status: alloy_primitives::U64::from(1),
            logs,
        }
    }

    #[test]
    fn a_permit2_payment_is_proven_by_the_call_and_the_transfer_together() {
        let ours = payment(1);
        let expected = Expected::from(&ours);
        let judge = |receipt: &TransactionReceipt, sent: &SentTransaction| expected.judge_permit2(receipt, sent);
        assert_eq!(judge(&receipt(&ours, &[700]), &sent(&ours, 700)), Verdict::Ours { amount: U256::from(700) });
        // The call of another nonce moved the same amount.
        assert_eq!(judge(&receipt(&ours, &[700]), &sent(&payment(2), 700)), Verdict::Absent);
        // A call without its transfer, or with another one, proves nothing.
        assert_eq!(judge(&receipt(&ours, &[]), &sent(&ours, 700)), Verdict::Unclear);
        assert_eq!(judge(&receipt(&ours, &[699]), &sent(&ours, 700)), Verdict::Unclear);
        // More than was signed for cannot be ours.
        assert_eq!(judge(&receipt(&ours, &[1001]), &sent(&ours, 1001)), Verdict::Unclear);
        let mut elsewhere = payment(1);
        elsewhere.authorization.to = Address::repeat_byte(8);
        assert_eq!(judge(&receipt(&ours, &[]), &sent(&elsewhere, 700)), Verdict::Elsewhere);
        // Reverted; another transaction's receipt; a call that another contract made.
        let failed = TransactionReceipt { status: alloy_primitives::U64::ZERO, ..receipt(&ours, &[700]) };
        assert_eq!(judge(&failed, &sent(&ours, 700)), Verdict::Absent);
        let other = SentTransaction { hash: B256::ZERO, ..sent(&ours, 700) };
        assert_eq!(judge(&receipt(&ours, &[700]), &other), Verdict::Absent);
        let wrapped = SentTransaction { to: Some(Address::repeat_byte(1)), ..sent(&ours, 700) };
        assert_eq!(judge(&receipt(&ours, &[700]), &wrapped), Verdict::Unclear);
        assert_eq!(judge(&receipt(&ours, &[]), &wrapped), Verdict::Absent);
        let garbage = SentTransaction { hash: HASH, to: Some(UPTO_PROXY), input: Bytes::from(vec![1, 2, 3]) };
        assert_eq!(judge(&receipt(&ours, &[700]), &garbage), Verdict::Unclear);
    }
}
