//! `networks` of `stack.yaml`: the nodes that a chain is read through, and the key of a facilitator
//! of one's own. What is secret is not here but in a file that is named here.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use obol_offer::{Network, Violation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// Networks by name, as written.
pub type Networks = BTreeMap<String, NetworkSettings>;

/// How one chain is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSettings {
    /// JSON-RPC nodes in order of preference: URLs, or `ref+file:///path` of a file that holds one,
    /// as many URLs carry a secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rpc: Vec<String>,
    /// The node settles payments itself with the key in this file, `ref+file:///path`, or in this
    /// variable, `ref+env://NAME`. The key pays for gas, never holds what buyers pay, and is this node's alone: it replaces transactions that
    /// hold up its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facilitator_key: Option<String>,
    /// Base URL of a facilitator of one's own that holds the key instead (`obol serve facilitator`): it is asked
    /// before those that offers name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facilitator: Option<String>,
    /// Blocks that must hold a transfer before it counts, the first one included; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmations: Option<u32>,
    /// Hold what facilitators say against the chain: a success counts once a node shows the transfer, a
    /// refusal when it shows none. Costs a read or two per payment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify_transfers: bool,
}

const MAX_NODES: usize = 8;
const MAX_CONFIRMATIONS: u32 = 1_000;
const REFERENCE: &str = "ref+file://";

/// Where a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretRef<'a> {
    /// In this file; the path is absolute.
    File(&'a Path),
    /// In this environment variable.
    Env(&'a str),
}

impl<'a> SecretRef<'a> {
    /// What is wrong with a text that is none. It may be the secret itself, so it is not repeated.
    pub(crate) const WANTED: &'static str = "no ref+file:// with an absolute path, and no ref+env://";

    /// Reads `ref+file:///path`, `ref+env://NAME` or `env:NAME`.
    pub fn parse(text: &'a str) -> Option<Self> {
        let name = |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let variable = text.strip_prefix("ref+env://").or_else(|| text.strip_prefix("env:"));
        variable.filter(name).map(Self::Env).or_else(|| referred(text).map(Self::File))
    }
}

impl NetworkSettings {
    /// Where the facilitator's key is.
    pub fn key(&self) -> Option<SecretRef<'_>> {
        self.facilitator_key.as_deref().and_then(SecretRef::parse)
    }

    /// File of the facilitator's key.
    pub fn key_file(&self) -> Option<&Path> {
        self.facilitator_key.as_deref().and_then(referred)
    }
}

/// The absolute path in `ref+file:///path`.
pub fn referred(text: &str) -> Option<&Path> {
    text.strip_prefix(REFERENCE).map(Path::new).filter(|path| path.is_absolute())
}

/// Every rule that needs no file system.
pub(crate) fn check(networks: &Networks) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let known: Vec<_> = obol_offer::networks().iter().filter(|network| !network.is_sandbox()).map(|network| network.name).collect();
    let known = format!("write one of {}", known.join(", "));
    for (name, settings) in networks {
        let mut refuse = |field: String, code, message: String, fix: &str| {
            found.push(Violation { code, field: format!("networks.{name}{field}"), message, fix: fix.to_owned() });
        };
        match Network::find(name) {
            None => refuse(String::new(), "network_unknown", format!("`{name}` is no network"), &known),
            Some(network) if network.is_sandbox() => {
                refuse(String::new(), "network_sandbox", "the sandbox is in the node, it has no other".to_owned(), "remove it");
            }
            Some(network) if !seen.insert(network.chain_id) => {
                refuse(String::new(), "network_twice", format!("{} is written twice", network.name), "write it once, under one name");
            }
            Some(_) => {}
        }
        if settings.rpc.is_empty() || settings.rpc.len() > MAX_NODES {
            let message = format!("{} nodes; there must be 1 to {MAX_NODES}", settings.rpc.len());
            refuse(".rpc".to_owned(), "rpc_count", message, "write `rpc:` and below it a line such as `- https://sepolia.base.org`");
        }
        for (index, node) in settings.rpc.iter().enumerate() {
            let is_url = Url::parse(node).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            if !is_url && referred(node).is_none() {
                let message = "no http or https URL, and no ref+file:///path".to_owned();
                refuse(format!(".rpc[{index}]"), "rpc_url", message, "write a URL, or the file that holds one, as ref+file:///path");
            }
        }
        if settings.facilitator_key.is_some() && settings.key().is_none() {
            // What is written there may be the key itself.
            let message = SecretRef::WANTED.to_owned();
            let fix = "put the key into a file that only you can read, outside this folder, and write ref+file:///path/to/it";
            refuse(".facilitatorKey".to_owned(), "key_reference", message, fix);
        }
        if settings.facilitator.is_some() && settings.facilitator_key.is_some() {
            let message = "a key settles here, and so does a facilitator".to_owned();
            refuse(".facilitator".to_owned(), "facilitator_twice", message, "keep one of `facilitator` and `facilitatorKey`");
        }
        if settings.facilitator.as_deref().is_some_and(|url| !obol_offer::is_facilitator_url(url)) {
            let fix = "write https://…; plain http is allowed for loopback and for Services (http://NAME.NAMESPACE.svc)";
            refuse(".facilitator".to_owned(), "facilitator_url", "no base URL of a facilitator".to_owned(), fix);
        }
        if settings.confirmations.is_some_and(|count| !(1..=MAX_CONFIRMATIONS).contains(&count)) {
            refuse(
                ".confirmations".to_owned(),
                "confirmations_range",
                format!("not 1 to {MAX_CONFIRMATIONS}"),
                "write 1, or more on a chain that reorganises",
            );
        }
    }
    found
}

/// Secrets that lie inside the stack directory, which is made to be shared.
pub(crate) fn inside(networks: &Networks, root: &Path) -> Vec<Violation> {
    let mut found = Vec::new();
    for (name, settings) in networks {
        let nodes = settings.rpc.iter().enumerate().map(|(index, node)| (format!("rpc[{index}]"), referred(node)));
        let fields = nodes.chain([("facilitatorKey".to_owned(), settings.key_file())]);
        for (field, path) in fields.filter_map(|(field, path)| Some((field, path?))) {
            found.extend(inside_root(format!("networks.{name}.{field}"), path, root));
        }
    }
    found
}

/// Refuses a file of a secret that lies inside the stack directory.
pub(crate) fn inside_root(field: String, path: &Path, root: &Path) -> Option<Violation> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| PathBuf::from(path));
    let root = real(root);
    // The file may be missing yet; its folder tells as much.
    let folder = path.parent().map(&real).unwrap_or_default();
    let is_inside = real(path).starts_with(&root) || folder.starts_with(&root) || path.starts_with(&root);
    is_inside.then(|| Violation {
        code: "secret_inside",
        field,
        message: format!("{} is in the stack directory, which holds no secrets", path.display()),
        fix: "move the file elsewhere, such as to secrets/ in the data directory, and name it there".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use crate::{StackDir, parse_stack};

    const FILE: &str = "stack.yaml";

    #[test]
    fn a_network_has_nodes_and_perhaps_a_key() {
        let text = "id: shop\nnetworks:\n  base-sepolia:\n    rpc: [https://sepolia.base.org, \"ref+file:///run/secrets/rpc\"]\n    \
                    facilitatorKey: ref+file:///run/secrets/key\n    confirmations: 2\n";
        let config = parse_stack(text, FILE.as_ref()).unwrap();
        let settings = &config.networks["base-sepolia"];
        assert_eq!((settings.rpc.len(), settings.confirmations), (2, Some(2)));
        assert_eq!(settings.key_file().unwrap(), std::path::Path::new("/run/secrets/key"));
    }

    #[test]
    fn every_mistake_has_its_line_and_no_message_repeats_what_may_be_a_key() {
        let key = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        let text = format!(
            "id: shop\nnetworks:\n  bose:\n    rpc: [ftp://x]\n  eip155:8453:\n    rpc: []\n  base:\n    rpc: [http://127.0.0.1:8545]\n    \
             facilitatorKey: \"{key}\"\n    confirmations: 0\n  obol-sandbox:\n    rcp: 7\n"
        );
        let unknown = parse_stack(&text, FILE.as_ref()).unwrap_err();
        assert_eq!(unknown.iter().map(|d| (d.line, d.code.as_str())).collect::<Vec<_>>(), [(12, "field_unknown")]);
        let found = parse_stack(&text.replace("rcp: 7", "rpc: [http://x]"), FILE.as_ref()).unwrap_err();
        let codes: Vec<_> = found.iter().map(|d| (d.line, d.code.as_str())).collect();
        let expected = [
            (3, "network_unknown"),
            (4, "rpc_url"),
            (5, "network_twice"),
            (6, "rpc_count"),
            (9, "key_reference"),
            (10, "confirmations_range"),
            (11, "network_sandbox"),
        ];
        let mut codes_sorted = codes.clone();
        codes_sorted.sort_unstable();
        assert_eq!(codes_sorted.len(), expected.len(), "{codes:?}");
        for (line, code) in expected {
            // Of two names of one network the later in the alphabet is the second.
            assert!(codes.iter().any(|(l, c)| *c == code && (*l == line || code == "network_twice")), "{code}: {codes:?}");
        }
        assert!(!found.iter().any(|d| d.to_string().contains(&key[2..12])));
    }

    #[test]
    fn a_key_inside_the_stack_directory_is_refused_at_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let put = |key: &std::path::Path| {
            let text =
                format!("id: shop\nnetworks:\n  base:\n    rpc: [http://127.0.0.1:1]\n    facilitatorKey: ref+file://{}\n", key.display());
            std::fs::write(folder.path().join(FILE), text).unwrap();
            StackDir::at(folder.path()).stack()
        };
        std::fs::create_dir(folder.path().join("secrets")).unwrap();
        for inside in ["key", "secrets/key", "secrets/../key"] {
            let found = put(&folder.path().join(inside)).unwrap_err();
            assert_eq!((found[0].code.as_str(), found[0].line), ("secret_inside", 5), "{inside}");
        }
        let outside = tempfile::tempdir().unwrap();
        assert!(put(&outside.path().join("key")).is_ok());
        // A link out of the folder is as bad as a file in it is: it is git that would carry it.
        #[cfg(unix)]
        {
            std::fs::write(outside.path().join("key"), "").unwrap();
            std::os::unix::fs::symlink(outside.path().join("key"), folder.path().join("link")).unwrap();
            assert!(put(&folder.path().join("link")).is_err());
        }
    }
}
