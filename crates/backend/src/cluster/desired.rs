//! What should be installed: the tree, as releases.

use std::path::{Path, PathBuf};

use fs_err as fs;
use obol_offer::{Offer, OfferKind, OfferName, OfferSpec, Upstream};
use obol_stackdir::{Diagnostic, OFFERS_NAMESPACE, SecretRef, Slice, StackConfig, StackDir, Walk, is_credential_name, referred};
use serde_json::{Value, json};

use super::{
    ClusterError, SYSTEM_NAMESPACE,
    chart::{Chart, merge, yaml},
    secrets::{GATEWAY, credential_variable},
};

/// One release as it should be.
#[derive(Clone, Debug)]
pub(super) struct Desired {
    pub(super) name: String,
    pub(super) namespace: String,
    /// Folder below `charts/`.
    pub(super) chart: &'static str,
    /// All values, laid over each other.
    pub(super) values: Value,
}

/// The whole tree.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) releases: Vec<Desired>,
    /// Slices that are broken, and so left as they are in the cluster.
    pub(super) left_out: Vec<(OfferName, OfferKind, Vec<Diagnostic>)>,
    /// Helmfiles that are not ours, or not any more: helmfile runs them as they are.
    pub(super) own: Vec<PathBuf>,
}

/// Name of the release of the CRD.
pub(super) const CRDS: &str = "obol-crds";
/// Name of the release of gateway and controller.
pub(super) const SYSTEM: &str = "obol";
/// Name of the release, the chart and the namespace of Traefik.
pub(super) const TRAEFIK: &str = "traefik";

const INFRASTRUCTURE: &str = "infrastructure/helmfile.yaml.gotmpl";

/// Where a local cluster finds the machine it runs on; `None` where nobody can tell.
pub(super) type HasHost = bool;

impl Tree {
    /// The whole stack directory. `edited` are the generated files that somebody has changed.
    pub(super) fn of(
        dir: &StackDir,
        config: &StackConfig,
        walk: &Walk,
        edited: &[Diagnostic],
        host: HasHost,
    ) -> Result<Self, ClusterError> {
        let mut tree = Self::default();
        if edited.iter().any(|warning| warning.file == Path::new(INFRASTRUCTURE)) {
            tree.own.push(dir.root().join(INFRASTRUCTURE));
        } else {
            tree.releases = infrastructure(dir, config)?;
        }
        for slice in &walk.slices {
            tree.add(dir, slice, host)?;
        }
        for folder in walk.skipped.iter().filter(|folder| *folder != "infrastructure") {
            helmfiles(&dir.root().join(folder), 2, &mut tree.own);
        }
        Ok(tree)
    }

    /// One slice by itself.
    pub(super) fn of_slice(dir: &StackDir, slice: &Slice, host: HasHost) -> Result<Self, ClusterError> {
        let mut tree = Self::default();
        tree.add(dir, slice, host)?;
        Ok(tree)
    }

    /// Leaves out what was to be installed, with the reason.
    pub(super) fn leave_out(&mut self, name: &OfferName, problem: Diagnostic) {
        self.releases.retain(|release| release.namespace != OFFERS_NAMESPACE || release.name != name.as_str());
        self.left_out.push((name.clone(), OfferKind::Inference, vec![problem]));
    }

    fn add(&mut self, dir: &StackDir, slice: &Slice, host: HasHost) -> Result<(), ClusterError> {
        let problems = match &slice.offer {
            Ok((spec, offer)) => unfit(slice, spec, offer, host),
            Err(problems) => problems.clone(),
        };
        if !problems.is_empty() {
            self.left_out.push((slice.name.clone(), slice.kind, problems));
        } else if slice.warnings.is_empty() {
            self.releases.push(offer(dir, slice)?);
        } else if let Some(folder) = slice.file.parent() {
            self.own.push(dir.root().join(folder).join("helmfile.yaml"));
        }
        Ok(())
    }
}

/// What a single offer may say elsewhere and not in a cluster.
fn unfit(slice: &Slice, spec: &OfferSpec, offer: &Offer, host: HasHost) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    if matches!(offer.upstream, Upstream::Host { .. }) && !host {
        let message = "the upstream is on the machine that runs the cluster, and this cluster runs elsewhere";
        let fix = "give `service` or `url` below `upstream:`";
        problems.push(Diagnostic::file(&slice.file, "needs_local_cluster", message, fix));
    }
    let credential = offer.model.as_ref().and_then(|model| model.credential.as_deref());
    if credential.is_some_and(|credential| SecretRef::parse(credential).is_some() || !is_credential_name(credential)) {
        let message = "in a cluster the key of a model server is in a Secret, by a name; a file is on one machine alone";
        let fix = "write `credential: OPENAI_KEY` here, and in stack.yaml `credentials:` with `OPENAI_KEY: ref+file:///path/to/the/key`";
        problems.push(Diagnostic::file(&slice.file, "credential_reference", message, fix));
    } else if serde_json::to_string(spec).is_ok_and(|text| text.contains("ref+") || text.contains("secretref+")) {
        // Helmfile would put the secret itself into the ServiceOffer.
        let message = "helmfile would take `ref+` for a reference to a secret and write the secret into the cluster";
        problems.push(Diagnostic::file(&slice.file, "reference_in_offer", message, "keep `ref+` out of offers that are sold in a cluster"));
    }
    problems
}

fn offer(dir: &StackDir, slice: &Slice) -> Result<Desired, ClusterError> {
    let path = dir.root().join(&slice.file);
    let mut values = json!({});
    if slice.kind == OfferKind::Inference {
        overlay(&mut values, &dir.root().join("infrastructure/values-image.yaml"))?;
    }
    merge(&mut values, yaml(&path, &slice.text)?);
    let name = slice.name.to_string();
    Ok(Desired { name, namespace: OFFERS_NAMESPACE.to_owned(), chart: slice.kind.folder(), values })
}

/// The releases of `infrastructure/helmfile.yaml.gotmpl`.
pub(super) fn infrastructure(dir: &StackDir, config: &StackConfig) -> Result<Vec<Desired>, ClusterError> {
    let folder = dir.root().join("infrastructure");
    let release = |name: &'static str, namespace: &str, values| Desired {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        chart: name,
        values,
    };
    let mut values = json!({ "stack": stack_values(dir)? });
    merge(&mut values, chosen(config));
    overlay(&mut values, &folder.join("values-image.yaml"))?;
    overlay(&mut values, &folder.join("values-obol.yaml"))?;
    let mut releases = vec![release(CRDS, SYSTEM_NAMESPACE, json!({})), release(SYSTEM, SYSTEM_NAMESPACE, values)];
    if config.ingress.install {
        let mut values = json!({});
        overlay(&mut values, &folder.join("values-traefik.yaml"))?;
        releases.push(release(TRAEFIK, TRAEFIK, values));
    }
    Ok(releases)
}

/// What `stack.yaml` decides of the charts.
fn chosen(config: &StackConfig) -> Value {
    let mut values = json!({});
    if config.journal.database().is_some() {
        merge(&mut values, json!({ "gateway": { "postgres": { "secretName": GATEWAY, "key": crate::JOURNAL_URL } } }));
    }
    let settled: Vec<&String> = config.networks.iter().filter(|(_, network)| network.key().is_some()).map(|(name, _)| name).collect();
    if !settled.is_empty() {
        merge(&mut values, json!({ "facilitator": { "networks": settled } }));
    }
    values
}

/// What the programs in the cluster need of `stack.yaml`. Nodes are told with the URL in their file, as helmfile
/// does; what else is secret goes another way ([`super::secrets`]).
fn stack_values(dir: &StackDir) -> Result<Value, ClusterError> {
    let path = dir.root().join("stack.yaml");
    let mut stack = yaml(&path, &read(&path)?.unwrap_or_default())?;
    if let Some(fields) = stack.as_object_mut() {
        for own in ["backend", "context", "listen", "admin", "journal", "credentials"] {
            fields.remove(own);
        }
    }
    for facilitator in stack.get_mut("facilitators").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
        let variable = credential_variable(facilitator.get("url").and_then(Value::as_str).unwrap_or_default());
        facilitator.insert("credential".to_owned(), format!("env:{variable}").into());
    }
    for network in stack.get_mut("networks").and_then(Value::as_object_mut).into_iter().flat_map(|networks| networks.values_mut()) {
        if let Some(network) = network.as_object_mut() {
            network.remove("facilitatorKey");
        }
        for node in network.get_mut("rpc").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(file) = node.as_str().and_then(referred) {
                *node = read(file)?.unwrap_or_default().into();
            }
        }
    }
    Ok(stack)
}

fn overlay(values: &mut Value, file: &Path) -> Result<(), ClusterError> {
    if let Some(text) = read(file)? {
        merge(values, yaml(file, &text)?);
    }
    Ok(())
}

fn read(file: &Path) -> Result<Option<String>, ClusterError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ClusterError::File { path: file.to_owned(), source }),
    }
}

/// The helmfiles in a folder and `depth` levels below.
fn helmfiles(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let here = ["helmfile.yaml", "helmfile.yaml.gotmpl"].map(|name| folder.join(name));
    if let Some(file) = here.into_iter().find(|file| file.is_file()) {
        found.push(file);
        return;
    }
    if depth == 0 {
        return;
    }
    let mut folders: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    folders.iter().for_each(|folder| helmfiles(folder, depth - 1, found));
}

impl Desired {
    /// The chart, as it stands on disk.
    pub(super) fn read_chart(&self, dir: &StackDir) -> Result<Chart, ClusterError> {
        Chart::read(&dir.root().join("charts").join(self.chart))
    }
}
