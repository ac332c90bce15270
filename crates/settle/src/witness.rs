//! A facilitator's word held against the chain, on networks where the operator wants that.

use std::{sync::Arc, time::Duration};

use obol_offer::Amount;
use obol_x402::MatchedPayment;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    ChainFinding, ChainView, Receipt, SettleOutcome,
    cashier::Core,
    journal::now_ms,
    outcome::{examine, transaction},
    pool::Member,
};

/// How often the chain is read until it shows what a facilitator says.
const GLANCE: Duration = Duration::from_millis(500);
/// Seconds before the question in which somebody else may have sent the same authorization.
const BEFORE: u64 = 600;

impl Core {
    /// Asks a facilitator to settle, and the chain whether it is so.
    pub async fn settle(&self, member: &Member, payment: &MatchedPayment) -> SettleOutcome {
        let since = (now_ms() / 1000).saturating_sub(BEFORE);
        let outcome = member.settle(payment, self.settle_timeout).await;
        let key = payment.replay_key();
        let wanted = self.verify_transfers.contains(&payment.terms.network.name);
        let Some(view) = self.view(&key).filter(|_| wanted && payment.charge != Amount::ZERO) else { return outcome };
        let until = Instant::now() + self.settle_timeout;
        match outcome {
            SettleOutcome::Settled(receipt) => confirmed(view, payment, since, receipt, until).await,
            SettleOutcome::Refused { reason } => match look(view, payment, since, None, until).await {
                ChainFinding::Unused { .. } => SettleOutcome::Refused { reason },
                ChainFinding::Settled { transaction, amount, .. } => made(payment, &transaction, amount),
                _ => SettleOutcome::Unknown {
                    cause: format!("refused ({reason}), and the chain does not say that nothing moved"),
                    transaction: None,
                },
            },
            other => other,
        }
    }
}

/// A node may be a moment behind the one that the facilitator uses.
async fn confirmed(view: &Arc<dyn ChainView>, payment: &MatchedPayment, since: u64, receipt: Receipt, until: Instant) -> SettleOutcome {
    loop {
        if let ChainFinding::Settled { transaction, amount, .. } = look(view, payment, since, Some(&receipt.transaction), until).await {
            return made(payment, &transaction, amount);
        }
        if Instant::now() + GLANCE >= until {
            tracing::error!(payment = %payment.replay_key(), transaction = receipt.transaction, "a facilitator names a transfer that the chain does not show");
            let cause = "the chain does not show the transfer".to_owned();
            return SettleOutcome::Unknown { cause, transaction: Some(receipt.transaction) };
        }
        sleep(GLANCE).await;
    }
}

async fn look(view: &Arc<dyn ChainView>, payment: &MatchedPayment, since: u64, named: Option<&str>, until: Instant) -> ChainFinding {
    let found = timeout_at(until, view.look(payment, since, named)).await;
    found.unwrap_or_else(|_| ChainFinding::Unavailable { cause: "no answer in time".to_owned() })
}

fn made(payment: &MatchedPayment, hash: &str, amount: Amount) -> SettleOutcome {
    let transaction = transaction(hash).unwrap_or_default();
    examine(SettleOutcome::Settled(Receipt { transaction, payer: payment.authorization.from, amount }), payment)
}
