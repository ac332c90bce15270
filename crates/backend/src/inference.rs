//! The models that are sold, each served in this process on one loopback listener.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::Path,
    sync::Arc,
};

use obol_gateway::{Inference, InferencePlace};
use obol_inference::{Directory, Model, ModelConfig, Secret, probe, serve};
use obol_offer::{ModelState, Offer};
use obol_stackdir::referred;
use tokio::{net::TcpListener, runtime::Handle};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::NodeError;

/// Largest file that holds a key.
const MAX_KEY_FILE: u64 = 16 * 1024;

/// The models on sale. Kept equal to the offers by the keeper.
pub(crate) struct Models {
    directory: Directory,
    /// By offer, with the task that looks at the model.
    running: BTreeMap<String, (Arc<Model>, AbortOnDropHandle<()>)>,
    /// Why an offer's model cannot be served.
    broken: BTreeMap<String, ModelState>,
    runtime: Handle,
}

/// The listener of the models, and the secret that opens it.
pub(crate) struct Door {
    listener: TcpListener,
    address: SocketAddr,
    secret: String,
}

impl Door {
    /// Listens on a free loopback port, for the gateway in this process alone.
    pub(crate) async fn open() -> Result<Self, NodeError> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.map_err(NodeError::Gateway)?;
        let address = listener.local_addr().map_err(NodeError::Gateway)?;
        let secret = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { listener, address, secret })
    }

    /// What the gateway is told.
    pub(crate) fn key(&self) -> Inference {
        Inference { place: InferencePlace::At(self.address), secret: self.secret.clone() }
    }

    /// Serves until `shutdown`.
    pub(crate) async fn serve(self, directory: Directory, shutdown: CancellationToken) {
        serve::serve(self.listener, directory, Secret::new(&self.secret), shutdown).await;
    }
}

impl Models {
    /// No models yet; those to come are looked at on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { directory: Directory::default(), running: BTreeMap::new(), broken: BTreeMap::new(), runtime }
    }

    pub(crate) fn directory(&self) -> Directory {
        self.directory.clone()
    }

    /// Serves the models of `offers`, and no others. One that is as before goes on undisturbed.
    pub(crate) fn set<'a>(&mut self, offers: impl Iterator<Item = &'a Offer>) {
        let mut before = std::mem::take(&mut self.running);
        self.broken.clear();
        for offer in offers {
            let name = offer.name.to_string();
            match configure(offer) {
                Ok(Some(config)) => {
                    let same = before.remove(&name).filter(|(model, _)| model.config == config);
                    match same.map_or_else(|| self.start(config), Ok) {
                        Ok(running) => drop(self.running.insert(name, running)),
                        Err(message) => drop(self.broken.insert(name, ModelState::Unreachable { message })),
                    }
                }
                Ok(None) => {}
                Err(message) => drop(self.broken.insert(name, ModelState::Unreachable { message })),
            }
        }
        let served: HashMap<_, _> = self.running.iter().map(|(name, (model, _))| (name.clone(), model.clone())).collect();
        self.directory.store(Arc::new(served));
    }

    fn start(&self, config: ModelConfig) -> Result<(Arc<Model>, AbortOnDropHandle<()>), String> {
        let model = Arc::new(Model::new(config).map_err(|error| format!("no client for the model server: {error}"))?);
        let watching = self.runtime.spawn(probe::watch(model.clone()));
        Ok((model, AbortOnDropHandle::new(watching)))
    }

    /// What is known of an offer's model.
    pub(crate) fn state(&self, offer: &str) -> Option<ModelState> {
        self.running.get(offer).map(|(model, _)| model.state()).or_else(|| self.broken.get(offer).cloned())
    }
}

fn configure(offer: &Offer) -> Result<Option<ModelConfig>, String> {
    let credential = offer.model.as_ref().and_then(|model| model.credential.as_deref()).map(key).transpose()?;
    Ok(ModelConfig::of(offer, credential))
}

/// The key that `reference` names: a file, or a variable of the environment. No error repeats it.
fn key(reference: &str) -> Result<Secret, String> {
    let key = match referred(reference) {
        Some(file) => read(file)?,
        None => std::env::var(reference).map_err(|_| format!("spec.model.credential: the node's environment has no {reference}"))?,
    };
    let key = Secret::new(&key);
    if key.is_empty() { Err("spec.model.credential: the key is empty".to_owned()) } else { Ok(key) }
}

fn read(file: &Path) -> Result<String, String> {
    let length = fs_err::metadata(file).map_err(|error| error.to_string())?.len();
    if length > MAX_KEY_FILE {
        return Err(format!("{}: too long for a key", file.display()));
    }
    fs_err::read_to_string(file).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_files_and_never_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let reference = format!("ref+file://{}", file.display());
        assert!(key(&reference).unwrap_err().contains("key"));
        std::fs::write(&file, "hunter2\n").unwrap();
        assert!(key(&reference).unwrap().is(b"hunter2"));
        std::fs::write(&file, "\n").unwrap();
        assert!(key(&reference).is_err());
        assert!(key("OBOL_NO_SUCH_KEY").unwrap_err().contains("OBOL_NO_SUCH_KEY"));
    }
}
