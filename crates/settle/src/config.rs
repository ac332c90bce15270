//! How a cashier works, and why one could not open.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::{ChainViews, Facilitator};

/// How a [`Cashier`](crate::Cashier) works. [`CashierConfig::new`] has the defaults.
pub struct CashierConfig {
    /// Journal file; created when missing, locked while open. With [`shared`](Self::shared) only
    /// what facilitators support is kept beside it.
    pub journal: PathBuf,
    /// The journal is in a database instead, which several processes share.
    pub shared: Option<SharedJournal>,
    /// Facilitator base URLs for offers that name none, in order of preference.
    pub default_facilitators: Vec<url::Url>,
    /// Facilitators inside this process, by network name; they go before any URL.
    pub local: Vec<(&'static str, Arc<dyn Facilitator>)>,
    /// Facilitators of one's own in other processes, by network name; they go next.
    pub own: Vec<(&'static str, url::Url)>,
    /// Chains that can be read, by network name: asked before the facilitator when an outcome is
    /// unknown.
    pub chains: ChainViews,
    /// Networks on which a facilitator's word is held against the chain: its success counts once the
    /// chain shows the transfer, its refusal when the chain shows none. Takes one of [`chains`](Self::chains).
    pub verify_transfers: Vec<&'static str>,
    /// Bound on one `/verify`.
    pub verify_timeout: Duration,
    /// Bound on one `/settle`; an answer later than this is unknown.
    pub settle_timeout: Duration,
    /// Value of the `Authorization` header by facilitator base URL.
    pub credentials: Vec<(url::Url, Secret)>,
    /// When an unknown settlement is asked about again.
    pub recovery: Recovery,
    /// How long [`Cashier::recovered`](crate::Cashier::recovered) waits for the first look at what
    /// an earlier run left open.
    pub first_look: Duration,
    /// How long a retry of a payment for the same request waits for the outcome of the first.
    pub hold: Duration,
    /// When closed payments leave the journal.
    pub archiving: Archiving,
    /// What one payer may owe of one token at most, in whole units: the ceilings of metered payments whose answers
    /// leave before they are settled. A single payment may be larger.
    pub max_exposure: u64,
}

impl CashierConfig {
    /// The defaults: no facilitator, 5 s for `/verify`, 60 s for `/settle`.
    pub fn new(journal: impl Into<PathBuf>) -> Self {
        Self {
            journal: journal.into(),
            shared: None,
            default_facilitators: Vec::new(),
            local: Vec::new(),
            own: Vec::new(),
            chains: Vec::new(),
            verify_transfers: Vec::new(),
            verify_timeout: Duration::from_secs(5),
            settle_timeout: Duration::from_secs(60),
            credentials: Vec::new(),
            recovery: Recovery::default(),
            first_look: Duration::from_secs(10),
            hold: Duration::from_secs(30),
            archiving: Archiving::default(),
            max_exposure: 100,
        }
    }
}

/// A journal in a PostgreSQL database (13 or later), in its schema `obol`.
#[derive(Clone, Debug)]
pub struct SharedJournal {
    /// `postgres://user:password@host/database`.
    pub url: Secret,
    /// How long a process may be gone before another takes its payments over. A database that starts
    /// again is back within it.
    pub takeover: Duration,
}

impl SharedJournal {
    /// With the default of 5 s.
    pub const fn new(url: Secret) -> Self {
        Self { url, takeover: Duration::from_secs(5) }
    }
}

/// When closed payments move from the journal into the archive of their month, a file of one JSON
/// line per payment in the folder `<journal>.archive`. A payment that could be presented again,
/// that is not closed, or for which an answer is owed stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archiving {
    /// Age at which a closed payment leaves.
    pub after: Duration,
    /// How often that is looked for.
    pub every: Duration,
}

impl Default for Archiving {
    fn default() -> Self {
        Self { after: Duration::from_secs(90 * 24 * 3600), every: Duration::from_secs(3600) }
    }
}

/// When an unknown settlement is asked about again: after `first`, then at doubled intervals up to
/// `longest`, `tries` times in all. A restart begins anew, with one look at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Wait before the first question.
    pub first: Duration,
    /// Longest wait between two.
    pub longest: Duration,
    /// Questions in all.
    pub tries: u32,
}

impl Default for Recovery {
    fn default() -> Self {
        Self { first: Duration::from_secs(10), longest: Duration::from_secs(600), tries: 16 }
    }
}

impl Recovery {
    /// Wait before question `n`, counted from 0; `None` when there are no more.
    pub(crate) fn wait(&self, n: u32) -> Option<Duration> {
        (n < self.tries).then(|| self.first.saturating_mul(2u32.saturating_pow(n)).min(self.longest))
    }
}

/// A credential. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps the value of an `Authorization` header, e.g. `Bearer …`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// A token as `Bearer`; a value that names another scheme (`Basic …`) stays as it is.
    pub fn token(text: &str) -> Self {
        let text = text.trim();
        Self(if text.contains(' ') { text.to_owned() } else { format!("Bearer {text}") })
    }

    /// Whether a header has this value, in a time that does not depend on where they differ.
    pub fn is(&self, given: &[u8]) -> bool {
        let ours = self.0.as_bytes();
        let differing = ours.iter().zip(given).fold(0, |differing, (a, b)| differing | (a ^ b));
        ours.len() == given.len() && std::hint::black_box(differing) == 0
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a cashier could not open. Nothing is ever deleted or overwritten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the journal.
    #[error("the journal {0} is in use by another process; stop that one first, one journal serves one process")]
    InUse(PathBuf),
    /// It cannot be read or written.
    #[error("the journal {path} cannot be opened: {cause}")]
    Journal {
        /// Journal file.
        path: PathBuf,
        /// What the store said.
        cause: String,
    },
    /// Its database cannot be used, and trying again would not help.
    #[error("the journal's database cannot be used: {cause}; see `journal` in stack.yaml, or OBOL_JOURNAL_URL")]
    Database {
        /// What is wrong, without the URL.
        cause: String,
    },
    /// It is damaged.
    #[error(
        "the journal {path} is damaged: {cause}; it was left as it is. Keep a copy of it, then restore a backup in its place. \
         Moving it away lets obol start with an empty one, which no longer knows which payments were used"
    )]
    Corrupt {
        /// Journal file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// Another version of obol wrote it.
    #[error("the journal {path} has format {found}, this obol knows format {known}; use the version of obol that wrote it, or a newer one")]
    Format {
        /// Journal file.
        path: PathBuf,
        /// Format of the file.
        found: u64,
        /// Format of this program.
        known: u64,
    },
    /// The HTTP client for facilitators could not be made.
    #[error("no HTTP client for facilitators: {0}")]
    Client(String),
}

impl OpenError {
    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InUse(_) => "journal_in_use",
            Self::Journal { .. } | Self::Database { .. } => "journal_unavailable",
            Self::Corrupt { .. } => "journal_corrupt",
            Self::Format { .. } => "journal_format",
            Self::Client(_) => "facilitator_client",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new("Bearer hunter2")), "Secret(…)");
    }

    #[test]
    fn a_token_is_a_bearer_and_only_itself() {
        let secret = Secret::token("hunter2\n");
        assert!(secret.is(b"Bearer hunter2"));
        for other in ["Bearer hunter3", "Bearer hunter", "Bearer hunter22", "hunter2", ""] {
            assert!(!secret.is(other.as_bytes()), "{other}");
        }
        assert!(Secret::token("Basic abc").is(b"Basic abc"));
    }

    #[test]
    fn questions_become_rarer_and_end() {
        let waits: Vec<_> = (0..18).filter_map(|n| Recovery::default().wait(n)).map(|w| w.as_secs()).collect();
        assert_eq!(waits[..8], [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(waits.len(), 16);
    }
}
