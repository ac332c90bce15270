//! The chain on disk: an append-only file with one line of JSON per transaction, replayed at start.
//!
//! Replaying runs the very same code at the very same block times, so balances, used nonces and
//! transaction hashes come back as they were. A line that a crash cut short never became a block.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use alloy_primitives::{B256, Bytes};
use serde::{Deserialize, Serialize};

use crate::{SandboxError, chain::Chain, transaction::Transaction};

#[derive(Serialize, Deserialize)]
struct Line {
    hash: B256,
    timestamp: u64,
    input: Bytes,
}

/// The file, positioned at its end.
pub struct ChainLog {
    file: File,
    path: PathBuf,
    /// Set when a write failed: what is on disk is not known, so nothing more is added.
    broken: bool,
}

impl ChainLog {
    /// Opens or creates the file and replays it onto a new chain.
    pub fn open(path: &Path, chain: &mut Chain) -> Result<Self, SandboxError> {
        let io = |cause: std::io::Error| SandboxError::Log { path: path.to_owned(), cause: cause.to_string() };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(io)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for (number, line) in text.get(..whole).unwrap_or_default().lines().enumerate() {
            let corrupt = |cause: String| SandboxError::Corrupt { path: path.to_owned(), line: number + 1, cause };
            let line: Line = serde_json::from_str(line).map_err(|cause| corrupt(cause.to_string()))?;
            let prepared = chain.prepare(line.input, line.timestamp).map_err(|cause| corrupt(cause.to_string()))?;
            if prepared.transaction.hash != line.hash {
                return Err(corrupt(format!("it replays as transaction {}", prepared.transaction.hash)));
            }
            chain.commit(prepared);
        }
        file.set_len(whole as u64).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok(Self { file, path: path.to_owned(), broken: false })
    }

    /// Makes a transaction durable. It may be committed only after this.
    pub fn append(&mut self, transaction: &Transaction) -> Result<(), SandboxError> {
        let failed = |cause: String| SandboxError::Log { path: self.path.clone(), cause };
        if self.broken {
            return Err(failed("an earlier write failed".to_owned()));
        }
        let line = Line { hash: transaction.hash, timestamp: transaction.timestamp, input: transaction.input.clone() };
        let mut text = serde_json::to_string(&line).map_err(|cause| failed(cause.to_string()))?;
        text.push('\n');
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        self.broken = written.is_err();
        written.map_err(|cause| SandboxError::Log { path: self.path.clone(), cause: cause.to_string() })
    }
}
