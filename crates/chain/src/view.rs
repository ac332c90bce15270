//! The chain as recovery asks it.

use alloy_primitives::U256;
use futures_util::future::BoxFuture;
use obol_offer::Amount;
use obol_settle::{ChainFinding, ChainView};
use obol_x402::MatchedPayment;

use crate::{
    error::RpcError,
    proof::Expected,
    reads::{Chain, Use},
    wire::Block,
};

impl ChainView for Chain {
    fn look<'a>(&'a self, payment: &'a MatchedPayment, since: u64, transaction: Option<&'a str>) -> BoxFuture<'a, ChainFinding> {
        Box::pin(async move {
            let found = self.examine(payment, since, transaction).await;
            found.unwrap_or_else(|error| ChainFinding::Unavailable { cause: error.to_string() })
        })
    }
}

impl Chain {
    async fn examine(&self, payment: &MatchedPayment, since: u64, named: Option<&str>) -> Result<ChainFinding, RpcError> {
        if payment.terms.network.chain_id != self.network().chain_id {
            return Ok(ChainFinding::Unavailable { cause: "a payment on another chain".to_owned() });
        }
        let expected = Expected::from(payment);
        let head = self.head().await?;
        let last = self.final_head(&head).await?;
        if let Some(hash) = named.and_then(|hash| hash.parse().ok())
            && let Some((block, amount)) = self.prove(hash, &expected).await?
        {
            return Ok(self.settled(hash.to_string(), amount, block, &head, &last));
        }
        if !self.is_used(&expected, head.number()).await? {
            return self.unused(&expected, &head, &last).await;
        }
        Ok(match self.find_transfer(&expected, since).await? {
            Use::Ours { transaction, amount, block } => self.settled(transaction.to_string(), amount, block, &head, &last),
            Use::Elsewhere { block } => ChainFinding::UsedElsewhere { is_final: block <= last.number() },
            Use::Unclear { cause } => ChainFinding::Unavailable { cause },
        })
    }

    fn settled(&self, transaction: String, amount: U256, block: u64, head: &Block, last: &Block) -> ChainFinding {
        if self.is_deep(block, head.number()) {
            ChainFinding::Settled { transaction, amount: Amount(amount), is_final: block <= last.number() }
        } else {
            ChainFinding::Unavailable { cause: format!("transaction {transaction} has too few confirmations") }
        }
    }

    /// A final block after `validBefore`, and the nonce unused in it, or in a later one: whatever
    /// used it would have to be in a block before both.
    async fn unused(&self, expected: &Expected, head: &Block, last: &Block) -> Result<ChainFinding, RpcError> {
        if last.timestamp() < expected.valid_before {
            return Ok(ChainFinding::Unused { as_of: head.timestamp(), is_final: false });
        }
        // Nodes that have forgotten the state of old blocks say so; the newest, read above, says the same.
        let used = self.is_used(expected, last.number()).await.or_else(|error| match error {
            RpcError::Node { .. } => Ok(false),
            error => Err(error),
        })?;
        Ok(if used {
            ChainFinding::Unavailable { cause: "the final block shows the nonce used, and the newest does not".to_owned() }
        } else {
            ChainFinding::Unused { as_of: last.timestamp(), is_final: true }
        })
    }
}
