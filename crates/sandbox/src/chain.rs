//! The chain: state, blocks of one transaction each, and calls that change nothing.

use std::collections::HashMap;

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::{SolCall, decode_revert_reason};
use obol_offer::{Asset, Network};
use revm::{
    Context, DatabaseCommit, ExecuteEvm, MainBuilder, MainContext,
    context::{TxEnv, result::ExecutionResult},
    database::{CacheDB, EmptyDB},
    database_interface::WrapDatabaseRef,
    primitives::{TxKind, hardfork::SpecId},
    state::{AccountInfo, Bytecode, EvmState},
};

use crate::{
    SandboxError,
    token::{self, TestUsd},
    transaction::{GAS_LIMIT, Relayer, Transaction},
};

/// An EVM chain in memory with one contract of interest: the token.
pub struct Chain {
    db: CacheDB<EmptyDB>,
    chain_id: u64,
    token: Address,
    relayer: Relayer,
    height: u64,
    /// Time of the last block.
    timestamp: u64,
    transactions: HashMap<B256, Transaction>,
}

/// A transaction that was executed on top of the last block and is not on the chain yet.
pub struct Prepared {
    pub transaction: Transaction,
    state: EvmState,
}

impl Chain {
    /// A chain whose first block gives the token its names.
    pub fn new(network: &Network, asset: &Asset) -> Result<Self, SandboxError> {
        let mut db = CacheDB::new(EmptyDB::default());
        let code = Bytecode::new_raw(token::runtime_code()?);
        db.insert_account_info(asset.address, AccountInfo::default().with_code(code));
        let mut chain = Self {
            db,
            chain_id: network.chain_id,
            token: asset.address,
            relayer: Relayer::new()?,
            height: 0,
            timestamp: 0,
            transactions: HashMap::new(),
        };
        let names = TestUsd::initializeCall {
            name: asset.domain_name.clone(),
            version: asset.domain_version.clone(),
            symbol: asset.symbol.clone(),
        };
        let first = chain.prepare(names.abi_encode().into(), 0)?;
        chain.commit(first);
        Ok(chain)
    }

    /// Calls the token at a time; nothing changes.
    pub fn call<C: SolCall>(&self, call: &C, now: u64) -> Result<C::Return, SandboxError> {
        let (output, ..) = self.execute(call.abi_encode().into(), now)?;
        C::abi_decode_returns(&output).map_err(|cause| SandboxError::Evm { cause: cause.to_string() })
    }

    /// Executes a transaction to the token as the next block would, at `now` or the last block's
    /// time if that is later.
    pub fn prepare(&self, input: Bytes, now: u64) -> Result<Prepared, SandboxError> {
        let timestamp = now.max(self.timestamp);
        let (_, logs, state) = self.execute(input.clone(), timestamp)?;
        // The relayer sends every transaction and there is one in each block.
        let (hash, raw) = self.relayer.sign(self.chain_id, self.height, self.token, &input);
        let (block, from) = (self.height + 1, self.relayer.address);
        Ok(Prepared { transaction: Transaction { hash, raw, block, timestamp, from, input, logs }, state })
    }

    /// Makes a prepared transaction the next block.
    pub fn commit(&mut self, prepared: Prepared) {
        let Prepared { transaction, state } = prepared;
        self.db.commit(state);
        self.height = transaction.block;
        self.timestamp = transaction.timestamp;
        self.transactions.insert(transaction.hash, transaction);
    }

    /// A transaction by its hash.
    pub fn transaction(&self, hash: &B256) -> Option<&Transaction> {
        self.transactions.get(hash)
    }

    /// Every transaction, in no order.
    pub fn transactions(&self) -> impl Iterator<Item = &Transaction> {
        self.transactions.values()
    }

    /// Places code at an address, as a deployed contract would have it.
    #[cfg(test)]
    pub fn etch(&mut self, address: Address, code: Bytes) {
        self.db.insert_account_info(address, AccountInfo::default().with_code(Bytecode::new_raw(code)));
    }

    fn execute(&self, input: Bytes, timestamp: u64) -> Result<(Bytes, Vec<alloy_primitives::Log>, EvmState), SandboxError> {
        let evm_error = |cause: String| SandboxError::Evm { cause };
        let mut evm = Context::mainnet()
            .with_db(WrapDatabaseRef(&self.db))
            .modify_cfg_chained(|cfg| {
                cfg.chain_id = self.chain_id;
                cfg.set_spec_and_mainnet_gas_params(SpecId::PRAGUE);
            })
            .modify_block_chained(|block| {
                block.number = U256::from(self.height + 1);
                block.timestamp = U256::from(timestamp);
            })
            .build_mainnet();
        let tx = TxEnv::builder()
            .caller(self.relayer.address)
            .kind(TxKind::Call(self.token))
            .nonce(self.height)
            .chain_id(Some(self.chain_id))
            .gas_limit(GAS_LIMIT)
            .data(input)
            .build()
            .map_err(|cause| evm_error(format!("{cause:?}")))?;
        let executed = evm.transact(tx).map_err(|cause| evm_error(cause.to_string()))?;
        match executed.result {
            ExecutionResult::Success { output, logs, .. } => Ok((output.into_data(), logs, executed.state)),
            ExecutionResult::Revert { output, .. } => {
                let reason = decode_revert_reason(&output).unwrap_or_else(|| output.to_string());
                Err(SandboxError::Reverted { reason: reason.trim_start_matches("revert: ").to_owned() })
            }
            ExecutionResult::Halt { reason, .. } => Err(SandboxError::Reverted { reason: format!("{reason:?}") }),
        }
    }
}
