//! The account that sends transactions: one number after the other, nobody else's.

use std::time::{Duration, Instant};

use alloy_primitives::{B256, Bytes, U256};
use obol_offer::Address;
use serde_json::json;
use tokio::sync::Mutex;

use crate::{
    error::RpcError,
    key::SigningKey,
    reads::Chain,
    rpc::Broadcast,
    transaction::{Call, Fees, Signed},
    wire::Block,
};

/// After so much quiet the next number is asked for again: somebody may have used the key.
const QUIET: Duration = Duration::from_secs(30);
/// Words of nodes for a number that is taken.
const TAKEN: &[&str] = &["nonce too low", "underpriced", "already used", "nonce has already", "invalid nonce"];

/// The account of a key on one chain.
pub(crate) struct Account {
    key: SigningKey,
    /// Number of the next transaction, and when it was last used. Held while one is handed over,
    /// so that there are no gaps.
    next: Mutex<Option<(u64, Instant)>>,
    max_fee_per_gas: u128,
}

/// A transaction that the nodes have, or may have.
pub(crate) struct Sent {
    pub call: Call,
    pub signed: Signed,
    /// Whether a node said that it has it.
    pub certain: bool,
}

impl Account {
    pub fn new(key: SigningKey, max_fee_per_gas: u128) -> Self {
        Self { key, next: Mutex::new(None), max_fee_per_gas }
    }

    pub const fn address(&self) -> Address {
        self.key.address()
    }

    /// What the market asks now: twice the base fee, and the tip that the node proposes.
    pub async fn fees(&self, chain: &Chain, head: &Block) -> Result<Fees, RpcError> {
        let tip = chain.rpc.call::<U256>("eth_maxPriorityFeePerGas", json!([])).await;
        let (base, tip) = match (head.base_fee_per_gas, tip) {
            (Some(base), Ok(tip)) => (base, tip),
            (base, _) => {
                let price: U256 = chain.rpc.call("eth_gasPrice", json!([])).await?;
                let base = base.unwrap_or(price);
                (base, price.saturating_sub(base))
            }
        };
        let number = |fee: U256| u128::try_from(fee).unwrap_or(u128::MAX);
        let tip = number(tip);
        Ok(Fees { tip, max: number(base).saturating_mul(2).saturating_add(tip) })
    }

    /// Fees within the bound, or why there are none.
    fn bounded(&self, fees: Fees) -> Result<Fees, String> {
        // Half of `max` is room for the base fee to rise; that much may be cut off.
        if fees.max / 2 > self.max_fee_per_gas || fees.tip > self.max_fee_per_gas {
            return Err(format!("gas costs {} wei, more than the bound of {}", fees.max / 2, self.max_fee_per_gas));
        }
        Ok(Fees { tip: fees.tip, max: fees.max.min(self.max_fee_per_gas) })
    }

    /// Sends a call with the next number. The error says why nothing was sent.
    pub async fn send(&self, chain: &Chain, to: Address, data: Bytes, gas: u64, fees: Fees) -> Result<Sent, String> {
        let fees = self.bounded(fees)?;
        let mut next = self.next.lock().await;
        for _ in 0..3 {
            let known = next.filter(|(_, at)| at.elapsed() < QUIET).map(|(nonce, _)| nonce);
            let nonce = match known {
                Some(nonce) => nonce,
                None => chain.transaction_count(self.address(), "pending").await.map_err(|error| error.to_string())?,
            };
            let call = Call { chain_id: chain.network().chain_id, nonce, fees, gas, to, data: data.clone() };
            let signed = call.sign(&self.key);
            let certain = match chain.rpc.broadcast(&signed.raw).await {
                Broadcast::Accepted => true,
                // It counts as sent; the job sends the same one again until it is in a block.
                Broadcast::Unclear(error) => {
                    tracing::warn!(%error, transaction = %signed.hash, "it is not known whether a node has the transaction");
                    false
                }
                Broadcast::Rejected(error) => {
                    *next = None;
                    if error.says(TAKEN) {
                        continue;
                    }
                    return Err(error.to_string());
                }
            };
            *next = Some((nonce + 1, Instant::now()));
            return Ok(Sent { call, signed, certain });
        }
        Err("no free transaction number was found".to_owned())
    }

    /// The same transaction for more, in place of the one before. `None` when that is not allowed.
    pub fn dearer(&self, sent: &Call, market: Fees) -> Option<(Call, Signed)> {
        let fees = sent.fees.bumped(market);
        if fees.max > self.max_fee_per_gas || fees.tip > self.max_fee_per_gas {
            return None;
        }
        let call = Call { fees, ..sent.clone() };
        let signed = call.sign(&self.key);
        Some((call, signed))
    }

    /// Fills numbers below `nonce` that no transaction of this process has and that hold ours up: a
    /// transaction of an earlier run that pays too little. Nothing is lost by replacing one, as a
    /// settlement is asked for again until the chain shows its outcome.
    pub async fn fill(&self, chain: &Chain, numbers: impl Iterator<Item = u64>, market: Fees) -> Vec<B256> {
        let mut hashes = Vec::new();
        for nonce in numbers {
            let fees = Fees { tip: market.tip.saturating_mul(2).saturating_add(1), max: market.max.saturating_mul(2) };
            let Ok(fees) = self.bounded(fees) else { return hashes };
            let call = Call { chain_id: chain.network().chain_id, nonce, fees, gas: 21_000, to: self.address(), data: Bytes::new() };
            let signed = call.sign(&self.key);
            if let Broadcast::Accepted = chain.rpc.broadcast(&signed.raw).await {
                hashes.push(signed.hash);
            }
        }
        hashes
    }
}
