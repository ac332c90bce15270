//! The standalone node: one process that keeps what is served equal to what is on disk.

use tokio_util::sync::CancellationToken;

use crate::{Addresses, NodeConfig, NodeError};

/// A node that holds its lock and its addresses, and is ready to run.
pub struct Node {
    addresses: Addresses,
}

impl Node {
    /// Takes the lock, binds the addresses and opens the journal.
    ///
    /// # Errors
    /// [`NodeError`], before anything is served.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let _ = config;
        todo!()
    }

    /// Where it listens.
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `shutdown`, or until `obol stack down` asks for it; then drains.
    ///
    /// # Errors
    /// [`NodeError::Gateway`] when the gateway ends by itself.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), NodeError> {
        let _ = shutdown;
        todo!()
    }
}
