//! What nodes send, as far as it is read here; unknown fields are ignored.

use alloy_primitives::{Address, B256, Bytes, U64, U256};
use serde::Deserialize;

/// A block's head.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Block {
    pub number: U64,
    pub timestamp: U64,
    #[serde(default)]
    pub base_fee_per_gas: Option<U256>,
}

impl Block {
    pub fn number(&self) -> u64 {
        self.number.to()
    }

    /// Unix seconds.
    pub fn timestamp(&self) -> u64 {
        self.timestamp.to()
    }
}

/// An event of a contract.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Log {
    pub address: Address,
    #[serde(default)]
    pub topics: Vec<B256>,
    #[serde(default)]
    pub data: Bytes,
    #[serde(default)]
    pub transaction_hash: Option<B256>,
    #[serde(default)]
    pub removed: bool,
}

/// A transaction as it was sent.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SentTransaction {
    pub hash: B256,
    /// Nobody for the creation of a contract.
    #[serde(default)]
    pub to: Option<Address>,
    #[serde(default)]
    pub input: Bytes,
}

/// A transaction that is in a block.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TransactionReceipt {
    pub transaction_hash: B256,
    pub block_number: U64,
    pub status: U64,
    #[serde(default)]
    pub logs: Vec<Log>,
}

impl TransactionReceipt {
    pub fn block(&self) -> u64 {
        self.block_number.to()
    }

    pub fn succeeded(&self) -> bool {
        self.status == U64::from(1)
    }
}
