//! The sandbox's chain as recovery looks at it: a crash may come between a transaction and the
//! journal's word of it.

use std::sync::Arc;

use alloy_sol_types::SolEvent;
use futures_util::future::BoxFuture;
use obol_settle::{ChainFinding, ChainView};
use obol_x402::MatchedPayment;

use crate::{Sandbox, SandboxError, Transaction, facilitator::moved_exactly, token::TestUsd::AuthorizationUsed, unix_now};

/// Reads one [`Sandbox`].
pub struct SandboxView(pub Arc<Sandbox>);

impl ChainView for SandboxView {
    fn look<'a>(&'a self, payment: &'a MatchedPayment, _since: u64, _transaction: Option<&'a str>) -> BoxFuture<'a, ChainFinding> {
        let (sandbox, payment) = (self.0.clone(), payment.clone());
        Box::pin(async move {
            let looked = tokio::task::spawn_blocking(move || sandbox.look(&payment)).await;
            let found = looked.map_err(|error| error.to_string()).and_then(|found| found.map_err(|error| error.to_string()));
            found.unwrap_or_else(|cause| ChainFinding::Unavailable { cause })
        })
    }
}

impl Sandbox {
    fn look(&self, payment: &MatchedPayment) -> Result<ChainFinding, SandboxError> {
        // Before the state is read: a block after this moment has a later time.
        let as_of = unix_now();
        let signed = &payment.authorization;
        if payment.terms.network.chain_id != self.network.chain_id {
            return Ok(ChainFinding::Unavailable { cause: "a payment on another chain".to_owned() });
        }
        if !self.authorization_used(signed.from, signed.nonce)? {
            return Ok(ChainFinding::Unused { as_of, is_final: as_of >= signed.valid_before });
        }
        let state = self.state();
        let used = state.chain.transactions().find(|transaction| uses(transaction, payment));
        Ok(match used {
            Some(transaction) if moved_exactly(transaction, payment) => {
                ChainFinding::Settled { transaction: transaction.hash.to_string(), amount: payment.charge, is_final: true }
            }
            _ => ChainFinding::UsedElsewhere { is_final: true },
        })
    }
}

/// Whether a transaction, which carries one authorization at most, used this one.
fn uses(transaction: &Transaction, payment: &MatchedPayment) -> bool {
    let signed = &payment.authorization;
    let ours = transaction.logs.iter().filter(|log| log.address == payment.terms.asset.address);
    ours.filter_map(|log| AuthorizationUsed::decode_log_data_validate(&log.data).ok())
        .any(|used| (used.authorizer, used.nonce) == (signed.from, signed.nonce))
}
