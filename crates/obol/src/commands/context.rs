//! What every command works on: the directories, the tree, and the node if one runs.

use obol_backend::{
    cluster::Cluster,
    control::{Client, ControlError},
};
use obol_offer::OfferName;
use obol_stackdir::{Dirs, Slice, StackConfig, StackDir, Walk, WriteLock};

use crate::error::Error;

/// The stack that the environment points at.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where everything lives.
    pub dirs: Dirs,
    /// The tree.
    pub stack: StackDir,
}

/// What serves the offers.
pub enum Running {
    /// The standalone node.
    Node(Client),
    /// A cluster.
    Cluster(Box<Cluster>),
}

impl Context {
    /// From `OBOL_*_DIR` and XDG; nothing is read yet.
    pub fn open() -> Result<Self, Error> {
        let dirs = Dirs::from_env().map_err(|error| {
            Error::failed(error.code(), error.to_string(), "set HOME, or OBOL_CONFIG_DIR, OBOL_DATA_DIR and OBOL_STATE_DIR")
        })?;
        let stack = StackDir::at(&dirs.config);
        Ok(Self { dirs, stack })
    }

    /// `stack.yaml`; defaults when there is none yet.
    pub fn config(&self) -> Result<StackConfig, Error> {
        if !self.stack.exists() {
            return Ok(StackConfig::default());
        }
        self.stack.stack().map_err(Error::Broken)
    }

    /// Refuses to go on without a stack directory.
    pub fn need_stack(&self) -> Result<(), Error> {
        if self.stack.exists() { Ok(()) } else { Err(Error::NoStack(self.dirs.config.clone())) }
    }

    /// Every slice, broken ones too.
    pub fn walk(&self) -> Walk {
        self.stack.walk()
    }

    /// The slice of this name, of whatever kind.
    pub fn slice(&self, name: &str) -> Result<Slice, Error> {
        let slice = name.parse::<OfferName>().ok().and_then(|name| self.stack.find(&name));
        slice.ok_or_else(|| Error::UnknownOffer {
            name: name.to_owned(),
            known: self.walk().slices.into_iter().map(|slice| slice.name).collect(),
        })
    }

    /// The right to change the tree, to be taken before an offer is read that will be changed. A
    /// dry run needs none, and a stack that is not there yet has nothing to protect.
    pub fn lock(&self, dry_run: bool) -> Result<Option<WriteLock>, Error> {
        if dry_run || !self.stack.exists() {
            return Ok(None);
        }
        Ok(Some(self.stack.lock()?))
    }

    /// Whether offers run in a cluster. A broken `stack.yaml` says nothing.
    pub fn is_cluster(&self) -> bool {
        self.config().is_ok_and(|config| config.backend.is_cluster())
    }

    /// The cluster of `stack.yaml`.
    pub async fn cluster(&self) -> Result<Cluster, Error> {
        Ok(Cluster::connect(&self.dirs, &self.config()?).await?)
    }

    /// Whatever serves: the cluster, or the node if one runs.
    pub async fn node_or_cluster(&self) -> Result<Option<Running>, Error> {
        if self.is_cluster() {
            return Ok(Some(Running::Cluster(Box::new(self.cluster().await?))));
        }
        Ok(self.node().await?.map(Running::Node))
    }

    /// The running node, or `None`.
    pub async fn node(&self) -> Result<Option<Client>, Error> {
        match Client::connect(&self.dirs).await {
            Ok(client) => Ok(Some(client)),
            Err(ControlError::NotRunning(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whoever has the journal: the running node, or a gateway in the cluster.
    pub async fn need_books(&self) -> Result<Client, Error> {
        if self.is_cluster() { Ok(self.cluster().await?.books().await?) } else { self.need_node().await }
    }

    /// The running node.
    pub async fn need_node(&self) -> Result<Client, Error> {
        Ok(Client::connect(&self.dirs).await?)
    }
}
