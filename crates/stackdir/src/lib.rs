//! The stack directory: finding it, walking it, reading slices with line numbers, editing them
//! without losing a comment, and writing them so that a crash leaves the old file or the new one.
//!
//! Whatever is in this directory is what is running; there is no second store. See [`StackDir`].

mod atomic;
#[cfg(test)]
mod crash;
mod credentials;
mod diagnostic;
mod dirs;
mod edit;
mod error;
mod facilitators;
#[cfg(fuzzing)]
pub mod fuzzing;
mod generated;
mod init;
mod journal;
mod lock;
mod networks;
mod parse;
mod put_text;
mod scalar;
mod schema;
mod stack;
mod tree;
mod value;
mod values;
mod walk;
mod write;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use credentials::{Credentials, is_credential_name};
pub use diagnostic::{Diagnostic, Severity};
pub use dirs::{Dirs, DirsError};
pub use error::StackError;
pub use facilitators::FacilitatorSettings;
pub use generated::{OFFERS_NAMESPACE, shipped_line};
pub use init::InitOutcome;
pub use journal::JournalSettings;
pub use lock::WriteLock;
pub use networks::{NetworkSettings, Networks, SecretRef, referred};
pub use parse::{MAX_FILE_BYTES, OfferFile, offer_schema, parse_offer};
pub use stack::{
    BackendKind, DEFAULT_ADMIN_PORT, DEFAULT_FACILITATOR, DEFAULT_PORT, Ingress, SellerDefaults, StackConfig, StackLimits, parse_stack,
};
pub use values::chart_schemas;
pub use walk::{Slice, Walk};
pub use write::Change;

/// A stack directory.
///
/// Reading needs no lock: every write is one rename, so a reader sees the old slice or the new one.
#[derive(Clone, Debug)]
pub struct StackDir {
    root: PathBuf,
}

impl StackDir {
    /// The directory at `root`; nothing is read yet.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the right to change the directory, waiting up to ten seconds for another command.
    ///
    /// # Errors
    /// [`StackError::Locked`] when that command takes longer, and [`StackError::Io`].
    pub fn lock(&self) -> Result<WriteLock, StackError> {
        let lock = WriteLock::take(&self.root, Duration::from_secs(10))?;
        for kind in walk::KINDS {
            atomic::sweep(&self.root.join("applications").join(kind.folder()));
        }
        Ok(lock)
    }
}

#[cfg(test)]
mod slice_tests;
