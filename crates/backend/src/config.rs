//! How a node is started, and every way that fails.

use std::{net::SocketAddr, path::PathBuf};

use obol_stackdir::Dirs;

/// How a [`Node`](crate::Node) works.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The stack directory, and where journal, lock and control socket are.
    pub dirs: Dirs,
    /// Public listen address; that of `stack.yaml` when absent, else `127.0.0.1:8402`.
    pub listen: Option<SocketAddr>,
    /// Admin listen address (health and metrics); that of `stack.yaml` when absent, else
    /// `127.0.0.1:9402`.
    pub admin: Option<SocketAddr>,
    /// Whether edits by hand are noticed; without, only `sync` changes what is served.
    pub watch: bool,
}

impl NodeConfig {
    /// A node that watches its tree and listens where `stack.yaml` says.
    pub const fn new(dirs: Dirs) -> Self {
        Self { dirs, listen: None, admin: None, watch: true }
    }
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For buyers.
    pub public: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
}

/// Why a node cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Another node has the lock.
    #[error("a node is already running on {0}; see `obol stack status`")]
    AlreadyRunning(PathBuf),
    /// A file or folder of the node cannot be used.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; {fix}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        fix: &'static str,
    },
    /// `stack.yaml` is broken.
    #[error("{0}")]
    Stack(String),
    /// The path of the control socket is longer than the system allows.
    #[error("the path of the control socket, {0}, is too long; choose a shorter OBOL_STATE_DIR")]
    SocketPath(PathBuf),
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] obol_settle::OpenError),
    /// The URL of the journal's database cannot be read.
    #[error("the URL of the journal's database: {0}")]
    JournalUrl(String),
    /// The sandbox cannot start.
    #[error("the sandbox cannot start: {0}")]
    Sandbox(String),
    /// A network of `stack.yaml` cannot be used.
    #[error("network {network} of stack.yaml: {cause}")]
    Chain {
        /// Its name there.
        network: String,
        /// Why; holds no secret.
        cause: String,
    },
    /// The credential of a facilitator cannot be read.
    #[error("facilitator {facilitator} of stack.yaml: {cause}")]
    Credential {
        /// Its URL there.
        facilitator: String,
        /// Why; holds no secret.
        cause: String,
    },
    /// The gateway ended by itself.
    #[error("the gateway failed: {0}")]
    Gateway(std::io::Error),
    /// The thread that follows the files ended by itself: a bug.
    #[error("the node lost track of its files; this is a bug, see the log")]
    Lost,
}

impl NodeError {
    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AlreadyRunning(_) => "already_running",
            Self::File { .. } => "node_file",
            Self::Listen { .. } => "listen",
            Self::Stack(_) => "stack_invalid",
            Self::SocketPath(_) => "socket_path",
            Self::Journal(_) | Self::JournalUrl(_) => "journal",
            Self::Sandbox(_) => "sandbox",
            Self::Chain { .. } => "chain",
            Self::Credential { .. } => "credential",
            Self::Gateway(_) => "gateway",
            Self::Lost => "lost",
        }
    }
}
