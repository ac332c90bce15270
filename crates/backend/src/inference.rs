//! The models that are sold, each served in this process on one loopback listener.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use obol_gateway::{Inference, InferencePlace};
use obol_inference::{Directory, Model, ModelConfig, Secret, probe, serve};
use obol_offer::{ModelState, Offer};
use obol_stackdir::{Credentials, SecretRef};
use tokio::{net::TcpListener, runtime::Handle};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{NodeError, chains::secret_line};

/// The models on sale. Kept equal to the offers by the keeper.
pub(crate) struct Models {
    directory: Directory,
    /// By offer, with the task that looks at the model.
    running: BTreeMap<String, (Arc<Model>, AbortOnDropHandle<()>)>,
    /// Why an offer's model cannot be served.
    broken: BTreeMap<String, ModelState>,
    runtime: Handle,
    /// Where the keys are that offers name.
    credentials: Credentials,
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
    pub(crate) fn new(runtime: Handle, credentials: Credentials) -> Self {
        Self { directory: Directory::default(), running: BTreeMap::new(), broken: BTreeMap::new(), runtime, credentials }
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
            match configure(offer, &self.credentials) {
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

fn configure(offer: &Offer, credentials: &Credentials) -> Result<Option<ModelConfig>, String> {
    let credential = offer.model.as_ref().and_then(|model| model.credential.as_deref());
    let key = credential.map(|name| secret_line(key(name, credentials)).map_err(|cause| format!("spec.model.credential: {cause}")));
    Ok(ModelConfig::of(offer, key.transpose()?.map(|key| Secret::new(&key))))
}

/// Where the key of an offer is: the offer names its file, or `stack.yaml` says so, or it is a variable of
/// the environment.
pub(crate) fn key<'a>(name: &'a str, credentials: &'a Credentials) -> SecretRef<'a> {
    let written = credentials.get(name).map_or(name, String::as_str);
    SecretRef::parse(written).unwrap_or(SecretRef::Env(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_files_and_never_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let reference = format!("ref+file://{}", file.display());
        let known = Credentials::from([("OPENAI_KEY".to_owned(), reference.clone())]);
        let read = |name: &str| secret_line(key(name, &known));
        assert!(read(&reference).unwrap_err().contains("key"));
        std::fs::write(&file, "hunter2\n").unwrap();
        assert_eq!((read(&reference), read("OPENAI_KEY")), (Ok("hunter2".to_owned()), Ok("hunter2".to_owned())));
        std::fs::write(&file, "\n").unwrap();
        assert!(read(&reference).is_err());
        std::fs::write(&file, "hunter2\nhunter3\n").unwrap();
        assert!(!read("OPENAI_KEY").unwrap_err().contains("hunter"));
        assert!(read("OBOL_NO_SUCH_KEY").unwrap_err().contains("OBOL_NO_SUCH_KEY"));
    }
}
