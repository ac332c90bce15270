//! What a chain shows of payments.

use std::time::Duration;

use alloy_primitives::{B256, U64, U256, hex};
use alloy_sol_types::{SolCall, SolEvent};
use obol_offer::{Address, Network};
use obol_x402::permit2::PERMIT2;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use crate::{
    error::{RpcError, tidy},
    permit2::{Permit2::UnorderedNonceInvalidation, Permit2::nonceBitmapCall, bitmap_place},
    proof::{Expected, Verdict},
    rpc::Rpc,
    token::Token::{AuthorizationCanceled, AuthorizationUsed, Transfer, allowanceCall, authorizationStateCall, balanceOfCall},
    wire::{Block, Log, SentTransaction, TransactionReceipt},
};

/// How a chain is read. [`ChainConfig::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// Which chain.
    pub network: &'static Network,
    /// Nodes in order of preference.
    pub rpc: Vec<Url>,
    /// Blocks that must hold a transfer before it counts, the first one included.
    pub confirmations: u64,
    /// How far behind the newest block a block counts as final, when the nodes do not know the tag
    /// `finalized`. 64 is two epochs of Ethereum, and two minutes of an L2 with blocks of 2 s.
    pub finality_depth: u64,
    /// Bound on one question to one node.
    pub timeout: Duration,
}

impl ChainConfig {
    /// One confirmation, finality at 64 blocks, 3 s for a question: a node that hangs leaves time to ask
    /// the next one before a buyer's `/verify` is out of time.
    pub const fn new(network: &'static Network, rpc: Vec<Url>) -> Self {
        Self { network, rpc, confirmations: 1, finality_depth: 64, timeout: Duration::from_secs(3) }
    }
}

/// A chain, seen through its nodes.
#[derive(Debug)]
pub struct Chain {
    pub(crate) rpc: Rpc,
    network: &'static Network,
    confirmations: u64,
    finality_depth: u64,
}

/// Blocks in one search for events: what public nodes allow at least.
const CHUNK: u64 = 2_000;
/// Most searches for one payment: 64,000 blocks, a day and a half of blocks of 2 s.
const MAX_CHUNKS: u64 = 32;
/// Clocks of sellers and chains differ by less.
const CLOCK_SKEW: u64 = 600;

/// What became of a nonce that is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// For exactly the expected transfer.
    Ours {
        /// Transaction.
        transaction: B256,
        /// Atomic units that moved.
        amount: U256,
        /// Block that holds it.
        block: u64,
    },
    /// Cancelled, or used for another transfer.
    Elsewhere {
        /// Block that holds it.
        block: u64,
    },
    /// The nodes show no event, or one that proves neither.
    Unclear {
        /// For the log.
        cause: String,
    },
}

impl Chain {
    /// A chain behind nodes.
    ///
    /// # Errors
    /// [`RpcError::NoNode`].
    pub fn new(config: ChainConfig) -> Result<Self, RpcError> {
        let rpc = Rpc::new(&config.rpc, config.network.chain_id, config.timeout)?;
        let (confirmations, finality_depth) = (config.confirmations.max(1), config.finality_depth);
        Ok(Self { rpc, network: config.network, confirmations, finality_depth })
    }

    /// Which chain.
    pub const fn network(&self) -> &'static Network {
        self.network
    }

    /// Whether a block is deep enough below the newest for its transfers to count.
    pub(crate) const fn is_deep(&self, block: u64, head: u64) -> bool {
        head.saturating_add(1).saturating_sub(block) >= self.confirmations
    }

    pub(crate) async fn head(&self) -> Result<Block, RpcError> {
        self.block("latest").await?.ok_or_else(|| RpcError::Garbage { cause: "no latest block".to_owned() })
    }

    /// The newest block that no reorganisation is expected to undo.
    pub(crate) async fn final_head(&self, head: &Block) -> Result<Block, RpcError> {
        let missing = || RpcError::Garbage { cause: "no final block".to_owned() };
        match self.block("finalized").await {
            Ok(Some(block)) => Ok(block),
            Ok(None) | Err(RpcError::Node { .. }) => self.block_at(head.number().saturating_sub(self.finality_depth)).await,
            Err(error) => Err(error),
        }
        .and_then(|block| if block.number() <= head.number() { Ok(block) } else { Err(missing()) })
    }

    async fn block_at(&self, number: u64) -> Result<Block, RpcError> {
        let block = self.block(&quantity(number)).await?.filter(|block| block.number() == number);
        block.ok_or_else(|| RpcError::Garbage { cause: format!("no block {number}") })
    }

    async fn block(&self, tag: &str) -> Result<Option<Block>, RpcError> {
        self.rpc.call("eth_getBlockByNumber", json!([tag, false])).await
    }

    /// Whether a payment's nonce is used or cancelled, at a block. A node that does not have that block yet
    /// says so, and is not taken for one that has seen nothing.
    pub(crate) async fn is_used(&self, expected: &Expected, block: u64) -> Result<bool, RpcError> {
        if expected.kind.is_permit2() {
            let (word, bit) = bitmap_place(U256::from_be_bytes(expected.nonce.0));
            let bits = self.view(PERMIT2, &nonceBitmapCall { owner: expected.from, word }, &quantity(block)).await?;
            return Ok(!(bits & bit).is_zero());
        }
        self.authorization_state(expected.token, expected.from, expected.nonce, block).await
    }

    /// Whether an ERC-3009 nonce is used or cancelled, at a block.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn authorization_state(&self, token: Address, payer: Address, nonce: B256, block: u64) -> Result<bool, RpcError> {
        self.view(token, &authorizationStateCall { authorizer: payer, nonce }, &quantity(block)).await
    }

    /// Balance in atomic units in the newest block.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn balance(&self, token: Address, owner: Address) -> Result<U256, RpcError> {
        self.view(token, &balanceOfCall { owner }, "latest").await
    }

    /// What Permit2 may spend of an owner's balance, in the newest block.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn permit2_allowance(&self, token: Address, owner: Address) -> Result<U256, RpcError> {
        self.view(token, &allowanceCall { owner, spender: PERMIT2 }, "latest").await
    }

    /// Whether there is a contract at an address.
    pub(crate) async fn has_code(&self, address: Address) -> Result<bool, RpcError> {
        let code: alloy_primitives::Bytes = self.rpc.call("eth_getCode", json!([address, "latest"])).await?;
        Ok(!code.is_empty())
    }

    async fn view<C: SolCall>(&self, to: Address, call: &C, block: &str) -> Result<C::Return, RpcError> {
        let output: alloy_primitives::Bytes = self.rpc.call("eth_call", json!([{ "to": to, "data": encoded(call) }, block])).await?;
        C::abi_decode_returns(&output).map_err(|error| RpcError::Garbage { cause: tidy(&error.to_string()) })
    }

    /// A transaction that is in a block.
    pub(crate) async fn receipt(&self, hash: B256) -> Result<Option<TransactionReceipt>, RpcError> {
        let receipt: Option<TransactionReceipt> = self.rpc.call("eth_getTransactionReceipt", json!([hash])).await?;
        match receipt {
            Some(receipt) if receipt.transaction_hash != hash => {
                Err(RpcError::Garbage { cause: "the receipt of another transaction".to_owned() })
            }
            receipt => Ok(receipt),
        }
    }

    /// What a transaction in a block shows.
    pub(crate) async fn judge(&self, receipt: &TransactionReceipt, expected: &Expected) -> Result<Verdict, RpcError> {
        if !expected.kind.is_permit2() {
            return Ok(expected.judge(receipt));
        }
        let sent: Option<SentTransaction> = self.rpc.call("eth_getTransactionByHash", json!([receipt.transaction_hash])).await?;
        let sent = sent.filter(|sent| sent.hash == receipt.transaction_hash);
        let sent = sent.ok_or_else(|| RpcError::Garbage { cause: "a receipt without its transaction".to_owned() })?;
        Ok(expected.judge_permit2(receipt, &sent))
    }

    /// A named transaction, if it is in a block and shows the transfer: the block and what moved.
    pub(crate) async fn prove(&self, hash: B256, expected: &Expected) -> Result<Option<(u64, U256)>, RpcError> {
        let Some(receipt) = self.receipt(hash).await? else { return Ok(None) };
        Ok(match self.judge(&receipt, expected).await? {
            Verdict::Ours { amount } => Some((receipt.block(), amount)),
            _ => None,
        })
    }

    /// Finds what a used nonce was used for: for ERC-3009 the token's `AuthorizationUsed` for it, and in the
    /// same transaction the `Transfer` that it authorised; for Permit2 a `Transfer` from payer to payee in a
    /// transaction whose call names the nonce. Searches from `since` (Unix seconds) to
    /// the end of the payment's validity.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn find_transfer(&self, expected: &Expected, since: u64) -> Result<Use, RpcError> {
        let head = self.head().await?;
        let mut from = self.last_block_at(since.saturating_sub(CLOCK_SKEW), &head).await?;
        let last = match expected.valid_before {
            end if end >= head.timestamp() => head.number(),
            end => self.last_block_at(end, &head).await?.saturating_add(2 * STEP).min(head.number()),
        };
        for _ in 0..MAX_CHUNKS {
            if from > last {
                return Ok(Use::Unclear { cause: "the nonce is used, and no event says for what".to_owned() });
            }
            let to = last.min(from + CHUNK - 1);
            for log in self.events_of(expected, from, to).await? {
                let Some(hash) = log.transaction_hash else { continue };
                let Some(receipt) = self.receipt(hash).await? else { continue };
                match self.judge(&receipt, expected).await? {
                    Verdict::Ours { amount } => return Ok(Use::Ours { transaction: hash, amount, block: receipt.block() }),
                    Verdict::Absent if expected.kind.is_permit2() && is_cancelled(expected, &log) => {
                        return Ok(Use::Elsewhere { block: receipt.block() });
                    }
                    Verdict::Elsewhere => return Ok(Use::Elsewhere { block: receipt.block() }),
                    Verdict::Unclear => {
                        let cause = format!("transaction {hash} uses the nonce, and its events do not show for what");
                        return Ok(Use::Unclear { cause });
                    }
                    Verdict::Absent => {}
                }
            }
            from = to + 1;
        }
        Ok(Use::Unclear { cause: format!("more than {} blocks to search", CHUNK * MAX_CHUNKS) })
    }

    /// Events that may be about the nonce; what they say is believed only as part of a receipt.
    async fn events_of(&self, expected: &Expected, from: u64, to: u64) -> Result<Vec<Log>, RpcError> {
        let within = |address: Address, topics: Value| json!([{ "address": address, "topics": topics, "fromBlock": quantity(from), "toBlock": quantity(to) }]);
        let payer = expected.from.into_word();
        let (logs, most): (Vec<Log>, _) = if expected.kind.is_permit2() {
            let transfers = within(expected.token, json!([Transfer::SIGNATURE_HASH, payer, expected.to.into_word()]));
            let cancelled = within(PERMIT2, json!([UnorderedNonceInvalidation::SIGNATURE_HASH, payer]));
            let (transfers, cancelled): (Result<Vec<Log>, _>, Result<Vec<Log>, _>) =
                tokio::join!(self.rpc.call("eth_getLogs", transfers), self.rpc.call("eth_getLogs", cancelled));
            let cancelled = cancelled?.into_iter().filter(|log| is_cancelled(expected, log));
            // A payer who buys often pays the same payee often.
            (cancelled.chain(transfers?).collect(), 256)
        } else {
            let kinds = [AuthorizationUsed::SIGNATURE_HASH, AuthorizationCanceled::SIGNATURE_HASH];
            let used = within(expected.token, json!([kinds, payer, expected.nonce]));
            // A nonce is used once; a node that sends more is not worth more than a few questions.
            (self.rpc.call("eth_getLogs", used).await?, 4)
        };
        Ok(logs.into_iter().filter(|log| !log.removed).take(most).collect())
    }

    /// A block not after `time`, and less than [`STEP`] blocks before the last such one.
    async fn last_block_at(&self, time: u64, head: &Block) -> Result<u64, RpcError> {
        if head.timestamp() <= time {
            return Ok(head.number());
        }
        let (mut low, mut high, mut span) = (head.number(), head.number(), STEP);
        while low > 0 {
            low = head.number().saturating_sub(span);
            if self.block_at(low).await?.timestamp() <= time {
                break;
            }
            (high, span) = (low, span.saturating_mul(4));
        }
        while high - low > STEP {
            let middle = low + (high - low) / 2;
            if self.block_at(middle).await?.timestamp() <= time { low = middle } else { high = middle }
        }
        Ok(low)
    }

    /// The number of an account's next transaction.
    pub(crate) async fn transaction_count(&self, account: Address, tag: &str) -> Result<u64, RpcError> {
        let count: U64 = self.rpc.call("eth_getTransactionCount", json!([account, tag])).await?;
        Ok(count.to())
    }

    /// What an account has for gas, in wei.
    pub(crate) async fn gas_money(&self, account: Address) -> Result<U256, RpcError> {
        self.rpc.call("eth_getBalance", json!([account, "latest"])).await
    }

    /// Executes a call on the newest block with at most so much gas, without its effects.
    pub(crate) async fn simulate<T: DeserializeOwned>(
        &self,
        method: &str,
        from: Address,
        to: Address,
        data: &[u8],
        gas: u64,
    ) -> Result<T, RpcError> {
        let call = json!({ "from": from, "to": to, "data": hex::encode_prefixed(data), "gas": quantity(gas) });
        // On the newest block: some nodes estimate on what is pending, which may never be.
        self.rpc.call(method, json!([call, "latest"])).await
    }
}

/// Precision of a search by time, in blocks.
const STEP: u64 = 500;

/// Whether an event of Permit2 says that the nonce was made worthless.
fn is_cancelled(expected: &Expected, log: &Log) -> bool {
    let (word, bit) = bitmap_place(U256::from_be_bytes(expected.nonce.0));
    let event = UnorderedNonceInvalidation::decode_raw_log_validate(log.topics.iter().copied(), &log.data);
    let fits = |event: UnorderedNonceInvalidation| event.owner == expected.from && event.word == word && !(event.mask & bit).is_zero();
    log.address == PERMIT2 && !log.removed && event.is_ok_and(fits)
}

/// A number as JSON-RPC writes it.
fn quantity(number: u64) -> String {
    format!("0x{number:x}")
}

fn encoded(call: &impl SolCall) -> Value {
    Value::String(hex::encode_prefixed(call.abi_encode()))
}
