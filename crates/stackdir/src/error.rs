use std::{io, path::PathBuf, time::Duration};

use obol_offer::{OfferKind, OfferName};

use crate::Diagnostic;

/// Why the stack directory could not be read or changed. Nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// There is no `stack.yaml`.
    #[error("{} is no stack directory", root.display())]
    NotInitialised {
        /// The directory.
        root: PathBuf,
    },
    /// Somebody else is changing the directory.
    #[error("{} has been locked by another obol command for {} s", path.display(), waited.as_secs())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long we waited.
        waited: Duration,
    },
    /// The file to be changed cannot be read as it is; it is left alone.
    #[error("{} cannot be changed, because it is broken", file.display())]
    Broken {
        /// Relative to the stack directory.
        file: PathBuf,
        /// What is wrong with it.
        diagnostics: Vec<Diagnostic>,
    },
    /// The new content breaks a rule.
    #[error("{} would be broken", file.display())]
    Invalid {
        /// Relative to the stack directory.
        file: PathBuf,
        /// What would be wrong.
        diagnostics: Vec<Diagnostic>,
    },
    /// The other kind has an offer of this name.
    #[error("`{name}` is already sold as {}", kind.as_str())]
    NameTaken {
        /// The name.
        name: OfferName,
        /// Who has it.
        kind: OfferKind,
    },
    /// The place leads out of the stack directory.
    #[error("{} leads out of the stack directory", path.display())]
    Outside {
        /// Relative to the stack directory.
        path: PathBuf,
    },
    /// The system said no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StackError {
    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotInitialised { .. } => "stack_not_initialised",
            Self::Locked { .. } => "stack_locked",
            Self::Broken { .. } => "slice_broken",
            Self::Invalid { .. } => "slice_invalid",
            Self::NameTaken { .. } => "name_taken",
            Self::Outside { .. } => "outside_stack",
            Self::Io { .. } => "io",
        }
    }

    /// What to do about it, as a sentence.
    pub fn fix(&self) -> String {
        match self {
            Self::NotInitialised { .. } => "run `obol stack init`, or set OBOL_CONFIG_DIR".to_owned(),
            Self::Locked { .. } => "wait for the other command to end, then try again".to_owned(),
            Self::Broken { file, .. } => format!("correct {} by hand, then run the command again", file.display()),
            Self::Invalid { .. } => "correct what is listed, then run the command again".to_owned(),
            Self::NameTaken { .. } => "choose another name".to_owned(),
            Self::Outside { .. } => "replace the symbolic link by the folder or file itself".to_owned(),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => "give your user the right to read and write there".to_owned(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some disk space".to_owned(),
                io::ErrorKind::ReadOnlyFilesystem => "set OBOL_CONFIG_DIR to a writable place".to_owned(),
                _ => "check the path".to_owned(),
            },
        }
    }

    /// The diagnostics inside, if any.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Broken { diagnostics, .. } | Self::Invalid { diagnostics, .. } => diagnostics,
            _ => &[],
        }
    }
}
