//! The chains of `stack.yaml`: how they are read, and who settles there with a key of his own.

use std::{path::Path, sync::Arc};

use obol_chain::{Chain, ChainConfig, KeyError, SelfFacilitator, SettleConfig, SigningKey};
use obol_offer::Network;
use obol_settle::{ChainView, ChainViews, Facilitator, Secret};
use obol_stackdir::{FacilitatorSettings, NetworkSettings, SecretRef, StackConfig, referred};
use url::Url;

use crate::NodeError;

/// Largest file that holds a URL.
const MAX_URL_FILE: usize = 4096;
/// Longest secret.
const MAX_SECRET: usize = 16 * 1024;

/// What the cashier gets.
#[derive(Default)]
pub(crate) struct Chains {
    pub views: ChainViews,
    pub facilitators: Vec<(&'static str, Arc<dyn Facilitator>)>,
    /// Facilitators of one's own in other processes.
    pub own: Vec<(&'static str, Url)>,
    /// Networks on which facilitators are not simply believed.
    pub verified: Vec<&'static str>,
}

impl Chains {
    /// Reads keys and makes clients. No node is asked: one that is down must not keep ours from
    /// starting.
    pub fn open(stack: &StackConfig) -> Result<Self, NodeError> {
        let mut chains = Self::default();
        for (name, settings) in &stack.networks {
            let broken = |cause: String| NodeError::Chain { network: name.clone(), cause };
            let Some(network) = Network::find(name) else { return Err(broken("it is not known".to_owned())) };
            let chain = Arc::new(open_chain(network, settings).map_err(&broken)?);
            if let Some(key) = settings.key() {
                let key = signing_key(key).map_err(|error| broken(error.to_string()))?;
                let facilitator = SelfFacilitator::new(Arc::clone(&chain), key, SettleConfig::default());
                tracing::info!(network = network.name, account = %facilitator.address(), "payments are settled by this node; the account pays for gas");
                chains.facilitators.push((network.name, Arc::new(facilitator)));
            }
            chains.own.extend(settings.facilitator.as_deref().and_then(|url| Some((network.name, url.parse().ok()?))));
            chains.verified.extend(settings.verify_transfers.then_some(network.name));
            let view: Arc<dyn ChainView> = chain;
            chains.views.push((network.name, view));
        }
        Ok(chains)
    }
}

/// The facilitators of a role of its own: of every network with a key, or that can use `key`.
pub(crate) fn facilitators(stack: &StackConfig, key: Option<&SigningKey>) -> Result<Vec<SelfFacilitator>, NodeError> {
    let mut list = Vec::new();
    for (name, settings) in &stack.networks {
        let broken = |cause: String| NodeError::Chain { network: name.clone(), cause };
        let own = settings.key().map(signing_key).transpose().map_err(|error| broken(error.to_string()))?;
        let Some(key) = own.or_else(|| key.cloned()) else { continue };
        let Some(network) = Network::find(name) else { return Err(broken("it is not known".to_owned())) };
        let chain = Arc::new(open_chain(network, settings).map_err(&broken)?);
        list.push(SelfFacilitator::new(chain, key, SettleConfig::default()));
    }
    Ok(list)
}

fn signing_key(at: SecretRef<'_>) -> Result<SigningKey, KeyError> {
    match at {
        SecretRef::File(file) => SigningKey::from_file(file),
        SecretRef::Env(name) => SigningKey::from_env(name),
    }
}

/// The credentials of `facilitators`. No error repeats one.
pub(crate) fn credentials(stack: &StackConfig) -> Result<Vec<(Url, Secret)>, NodeError> {
    let read = |settings: &FacilitatorSettings| {
        let broken = |cause: String| NodeError::Credential { facilitator: settings.url.clone(), cause };
        let url = settings.url.parse().map_err(|_| broken("it is no URL".to_owned()))?;
        let secret = settings.secret().ok_or_else(|| broken("its credential is not named".to_owned()))?;
        Ok((url, Secret::token(&secret_line(secret).map_err(broken)?)))
    };
    stack.facilitators.iter().map(read).collect()
}

/// One line of printable text, without the white space round it. No error repeats it.
pub(crate) fn secret_line(at: SecretRef<'_>) -> Result<String, String> {
    let (text, place) = match at {
        SecretRef::File(file) => (fs_err::read_to_string(file).map_err(|error| error.to_string())?, file.display().to_string()),
        SecretRef::Env(name) => {
            (std::env::var(name).map_err(|_| format!("the variable {name} is not set"))?, format!("the variable {name}"))
        }
    };
    let line = text.trim();
    let plain = !line.is_empty() && line.len() <= MAX_SECRET && line.bytes().all(|b| (b' '..=b'~').contains(&b));
    if plain { Ok(line.to_owned()) } else { Err(format!("{place} holds no single line of printable text")) }
}

fn open_chain(network: &'static Network, settings: &NetworkSettings) -> Result<Chain, String> {
    let rpc = settings.rpc.iter().map(|node| node_url(node)).collect::<Result<_, _>>()?;
    let defaults = ChainConfig::new(network, rpc);
    let confirmations = settings.confirmations.map_or(defaults.confirmations, u64::from);
    Chain::new(ChainConfig { confirmations, ..defaults }).map_err(|error| error.to_string())
}

/// A node's URL, from the file that holds it if need be. No error repeats it: it may be a secret.
fn node_url(text: &str) -> Result<Url, String> {
    let Some(file) = referred(text) else { return text.parse().map_err(|_| "a node is no URL".to_owned()) };
    let told = |path: &Path, what: &str| format!("{}: {what}", path.display());
    let content = fs_err::read_to_string(file).map_err(|error| error.to_string())?;
    let url = content.trim().parse::<Url>().ok().filter(|url| content.len() <= MAX_URL_FILE && matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| told(file, "no http or https URL, and nothing else"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(rpc: &str, key: Option<&Path>) -> StackConfig {
        let settings = NetworkSettings {
            rpc: vec![rpc.to_owned()],
            facilitator_key: key.map(|key| format!("ref+file://{}", key.display())),
            ..NetworkSettings::default()
        };
        StackConfig { networks: [("base-sepolia".to_owned(), settings)].into(), ..StackConfig::default() }
    }

    fn private(path: &Path, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn a_key_makes_a_facilitator_and_nodes_alone_make_a_view() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        private(&key, &format!("0x{:064x}\n", 7));
        let chains = Chains::open(&stack("http://127.0.0.1:9", Some(&key))).unwrap();
        assert_eq!((chains.views.len(), chains.facilitators[0].1.id()), (1, "self:base-sepolia"));
        assert!(Chains::open(&stack("http://127.0.0.1:9", None)).unwrap().facilitators.is_empty());
        assert!(Chains::open(&StackConfig::default()).unwrap().views.is_empty());
    }

    #[test]
    fn a_credential_is_read_from_where_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let stack = |credential: String| {
            let settings = FacilitatorSettings { url: "https://x402.example".to_owned(), credential };
            StackConfig { facilitators: vec![settings], ..StackConfig::default() }
        };
        let named = stack(format!("ref+file://{}", file.display()));
        assert!(credentials(&named).unwrap_err().to_string().contains("token"));
        private(&file, "hunter2\n");
        assert!(credentials(&named).unwrap()[0].1.is(b"Bearer hunter2"));
        private(&file, "hunter2\nhunter3\n");
        assert!(!credentials(&named).unwrap_err().to_string().contains("hunter"));
        let unset = credentials(&stack("ref+env://OBOL_TEST_UNSET".to_owned())).unwrap_err();
        assert_eq!(unset.code(), "credential");
    }

    #[test]
    fn one_key_serves_networks_without_one_of_their_own() {
        let key = SigningKey::parse(&format!("0x{:064x}", 7)).unwrap();
        let stack = stack("http://127.0.0.1:9", None);
        assert!(facilitators(&stack, None).unwrap().is_empty());
        assert_eq!(facilitators(&stack, Some(&key)).unwrap()[0].address(), key.address());
    }

    #[test]
    fn secrets_are_read_from_files_and_never_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rpc");
        let reference = format!("ref+file://{}", file.display());
        let fails = |stack: &StackConfig| Chains::open(stack).err().unwrap().to_string();
        assert!(fails(&stack(&reference, None)).contains("rpc"));
        private(&file, "https://node.example/v2/hunter2\n");
        assert!(Chains::open(&stack(&reference, None)).is_ok());
        private(&file, "wss://node.example/v2/hunter2\n");
        assert!(!fails(&stack(&reference, None)).contains("hunter2"));
        assert!(!fails(&stack("http://127.0.0.1:9", Some(&file))).contains("hunter2"));
    }
}
