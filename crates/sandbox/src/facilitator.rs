//! The sandbox as an x402 facilitator: what it accepts is what the token's own code accepts.

use std::sync::Arc;

use alloy_sol_types::SolEvent;
use futures_util::future::BoxFuture;
use obol_settle::{Facilitator, Receipt, SettleOutcome, VerifyOutcome};
use obol_x402::{AuthorizationKind, MatchedPayment};

use crate::{
    Sandbox, SandboxError, Transaction,
    token::TestUsd::{Transfer, transferWithAuthorization_0Call as TransferWithAuthorization},
};

/// A facilitator that settles on one [`Sandbox`].
pub struct SandboxFacilitator(pub Arc<Sandbox>);

impl Facilitator for SandboxFacilitator {
    fn id(&self) -> &str {
        "sandbox"
    }

    fn verify<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, VerifyOutcome> {
        let (sandbox, payment) = (self.0.clone(), payment.clone());
        Box::pin(async move {
            let verified = tokio::task::spawn_blocking(move || sandbox.verify(&payment)).await;
            verified.unwrap_or_else(|cause| VerifyOutcome::Unavailable { cause: cause.to_string() })
        })
    }

    fn settle<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, SettleOutcome> {
        let (sandbox, payment) = (self.0.clone(), payment.clone());
        Box::pin(async move {
            let settled = tokio::task::spawn_blocking(move || sandbox.settle(&payment)).await;
            settled.unwrap_or_else(|cause| SettleOutcome::Unknown { cause: cause.to_string(), transaction: None })
        })
    }
}

impl Sandbox {
    fn verify(&self, payment: &MatchedPayment) -> VerifyOutcome {
        if let Err(reason) = self.check_terms(payment) {
            return VerifyOutcome::Invalid { reason: reason.to_owned() };
        }
        match self.call(&transfer_call(payment)) {
            Ok(_) => VerifyOutcome::Valid { payer: payment.authorization.from },
            Err(SandboxError::Reverted { reason }) => VerifyOutcome::Invalid { reason: x402_reason(&reason) },
            Err(other) => VerifyOutcome::Unavailable { cause: other.to_string() },
        }
    }

    fn settle(&self, payment: &MatchedPayment) -> SettleOutcome {
        if let Err(reason) = self.check_terms(payment) {
            return SettleOutcome::Refused { reason: reason.to_owned() };
        }
        let transaction = match self.send(&transfer_call(payment)) {
            Ok(transaction) => transaction,
            Err(SandboxError::Reverted { reason }) => return SettleOutcome::Refused { reason: x402_reason(&reason) },
            // The line may have reached the disk, and then it is a block after a restart.
            Err(cause @ SandboxError::Log { .. }) => return SettleOutcome::Unknown { cause: cause.to_string(), transaction: None },
            Err(other) => return SettleOutcome::NotAsked { cause: other.to_string() },
        };
        let hash = transaction.hash.to_string();
        if !moved_exactly(&transaction, payment) {
            return SettleOutcome::Unknown { cause: "no Transfer event of this payment".to_owned(), transaction: Some(hash) };
        }
        SettleOutcome::Settled(Receipt { transaction: hash, payer: payment.authorization.from, amount: payment.authorization.value })
    }

    /// The gateway has matched the payment already; money is worth looking twice.
    fn check_terms(&self, payment: &MatchedPayment) -> Result<(), &'static str> {
        let (terms, signed) = (&payment.terms, &payment.authorization);
        match () {
            () if terms.network.chain_id != self.network().chain_id => Err("invalid_network"),
            () if signed.kind != AuthorizationKind::Eip3009 => Err("unsupported_scheme"),
            () if terms.asset.address != self.asset().address => Err("asset_mismatch"),
            () if signed.to != terms.pay_to => Err("invalid_exact_evm_payload_recipient_mismatch"),
            () if signed.value != terms.amount => Err("invalid_exact_evm_payload_authorization_value_mismatch"),
            () => Ok(()),
        }
    }
}

fn transfer_call(payment: &MatchedPayment) -> TransferWithAuthorization {
    let signed = &payment.authorization;
    TransferWithAuthorization {
        from: signed.from,
        to: signed.to,
        value: signed.value.0,
        validAfter: alloy_primitives::U256::from(signed.valid_after),
        validBefore: alloy_primitives::U256::from(signed.valid_before),
        nonce: signed.nonce,
        signature: signed.signature.clone().into(),
    }
}

/// A settlement is proven by the token's `Transfer` event with the right payer, payee and amount.
pub(crate) fn moved_exactly(transaction: &Transaction, payment: &MatchedPayment) -> bool {
    let signed = &payment.authorization;
    let transfers = transaction.logs.iter().filter(|log| log.address == payment.terms.asset.address);
    transfers
        .filter_map(|log| Transfer::decode_log_data_validate(&log.data).ok())
        .any(|t| (t.from, t.to, t.value) == (signed.from, signed.to, signed.value.0))
}

/// The token's words as the reasons that x402 facilitators give.
fn x402_reason(revert: &str) -> String {
    let reason = match revert {
        "FiatTokenV2: authorization is used or canceled" => "invalid_exact_evm_nonce_already_used",
        "FiatTokenV2: authorization is not yet valid" => "invalid_exact_evm_payload_authorization_valid_after",
        "FiatTokenV2: authorization is expired" => "invalid_exact_evm_payload_authorization_valid_before",
        "ERC20: transfer amount exceeds balance" => "insufficient_funds",
        "FiatTokenV2: invalid signature" => "invalid_exact_evm_payload_signature",
        other if other.starts_with("ECRecover:") => "invalid_exact_evm_payload_signature",
        _ => "invalid_transaction_state",
    };
    reason.to_owned()
}
