//! The stack directory: finding it, walking it, reading slices with line numbers, editing them
//! without losing a comment, and writing them so that a crash leaves the old file or the new one.

use std::path::{Path, PathBuf};

use obol_offer::{Offer, OfferKind, OfferName, OfferSpec};

/// Where everything lives (XDG; `OBOL_CONFIG_DIR`, `OBOL_DATA_DIR`, `OBOL_STATE_DIR` win).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    /// The stack directory: plain text, safe to keep in git, no secrets.
    pub config: PathBuf,
    /// Journal and secrets.
    pub data: PathBuf,
    /// Lock, control socket, logs.
    pub state: PathBuf,
}

/// Something wrong in a file, for people and for machines.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Diagnostic {
    /// File, relative to the stack directory.
    pub file: PathBuf,
    /// 1-based; 0 when the whole file is meant.
    pub line: u32,
    /// 1-based; 0 when the whole line is meant.
    pub column: u32,
    /// Stable identifier of the rule.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

/// One slice as found on disk.
#[derive(Clone, Debug)]
pub struct Slice {
    /// By folder.
    pub kind: OfferKind,
    /// By folder.
    pub name: OfferName,
    /// `values-offer.yaml`, relative to the stack directory.
    pub file: PathBuf,
    /// The file's text.
    pub text: String,
    /// The offer as written and as resolved, or everything that is wrong with it.
    pub offer: Result<(OfferSpec, Offer), Vec<Diagnostic>>,
}

/// A stack directory.
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
}
