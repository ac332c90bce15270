//! What the fuzz targets reach of this crate. Exists only under `--cfg fuzzing`.

use alloy_primitives::{Bytes, U64, U256};
use alloy_sol_types::SolValue;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Expected, RpcError,
    erc6492::{MAGIC, Wrapped},
    proof::Verdict,
    rpc::read_answer,
    wire::{Block, Log, SentTransaction, TransactionReceipt},
};

/// Reads a node's answer as everything that is ever asked for; whether it is a receipt that proves
/// the expected transfer.
///
/// # Errors
/// [`RpcError`] when it is no answer.
pub fn answer(status: u16, body: &[u8], id: u64, expected: &Expected) -> Result<bool, RpcError> {
    fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
        serde_json::from_value(value.clone()).ok()
    }
    let value = read_answer(status, body, id)?;
    let block: Option<Block> = read(&value);
    let _ = block.map(|block| (block.number(), block.timestamp()));
    let _: (Option<Vec<Log>>, Option<Bytes>, Option<U64>, Option<U256>) = (read(&value), read(&value), read(&value), read(&value));
    Ok(read::<TransactionReceipt>(&value).is_some_and(|receipt| {
        let _ = receipt.block();
        let sent: Option<SentTransaction> = read(&value);
        let permit2 = sent.map(|sent| expected.judge_permit2(&receipt, &sent));
        let ours = |verdict| matches!(verdict, Verdict::Ours { .. });
        ours(expected.judge(&receipt)) || permit2.is_some_and(ours)
    }))
}

/// Reads a payer's signature as one of ERC-6492 and, where it is one, writes it and reads it again; whether
/// that says the same.
pub fn signature(bytes: &[u8]) -> bool {
    let Ok(Some(wrapped)) = Wrapped::read(bytes) else { return true };
    let held = (wrapped.factory, wrapped.calldata.clone(), wrapped.signature.clone()).abi_encode_params();
    let written = [&held[..], &MAGIC[..]].concat();
    // Both parts may lie in the same bytes, and no byte is made up.
    wrapped.calldata.len().max(wrapped.signature.len()) <= bytes.len() && Wrapped::read(&written) == Ok(Some(wrapped))
}
