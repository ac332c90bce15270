//! What `stack.yaml` only refers to, put where the Pods find it: into Secrets, past helm, so that it stands in no
//! values, no ConfigMap and no release.
//!
//! Whoever runs a pass need not have every secret: what cannot be read here stays as the cluster has it.

use std::{collections::BTreeMap, path::PathBuf};

use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::Secret,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams},
};
use obol_chain::SigningKey;
use obol_offer::OfferName;
use obol_stackdir::{Diagnostic, OFFERS_NAMESPACE, SecretRef, StackConfig, Walk};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    ClusterError, MANAGER, SYSTEM_NAMESPACE,
    error::refused,
    ground::{self, OURS},
};
use crate::{JOURNAL_URL, chains::secret_line, inference};

/// Of the x402 gateway: the URL of the journal's database, credentials of facilitators.
pub(super) const GATEWAY: &str = "obol-gateway";
/// Of the facilitator of one's own: its keys, and the credential that gateways show it.
const FACILITATOR: &str = "obol-facilitator";
/// Of the inference gateways: keys of model servers, by the name that offers have for them.
const CREDENTIALS: &str = "obol-credentials";
/// Name of the credential, for both who show and who want it.
const OWN_CREDENTIAL: &str = "OBOL_FACILITATOR_CREDENTIAL";

/// What a Secret should hold by key, or why that cannot be read here.
type Wanted = BTreeMap<String, Result<String, String>>;

/// Variable with a facilitator's credential, and its key in [`GATEWAY`]; injective, as it decides who is shown what.
pub(super) fn credential_variable(url: &str) -> String {
    use sha2::{Digest as _, Sha256};
    let digest = Sha256::digest(url);
    format!("OBOL_CREDENTIAL_{}", digest.iter().take(8).map(|byte| format!("{byte:02X}")).collect::<String>())
}

/// Variable with the key of a network, and its key in [`FACILITATOR`]. The chart makes the same of it.
fn key_variable(network: &str) -> String {
    let word: String = network.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!("OBOL_FACILITATOR_KEY_{word}")
}

/// A Secret that a pass would write, and the keys in it that would get another value, come or go. Never a value.
#[derive(Clone, Debug, Serialize)]
pub struct SecretPlan {
    /// Its namespace.
    pub namespace: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its keys.
    pub keys: Vec<String>,
}

/// What a pass would write.
pub(super) async fn plan(client: &Client, config: &StackConfig, walk: &Walk) -> Result<Vec<SecretPlan>, ClusterError> {
    let [gateway, facilitator] = of_system(client, config).await?;
    let models = of_models(client, config, walk, &users(walk)).await?;
    let mut plans = Vec::new();
    for (namespace, name, wanted) in
        [(SYSTEM_NAMESPACE, GATEWAY, gateway), (SYSTEM_NAMESPACE, FACILITATOR, facilitator), (OFFERS_NAMESPACE, CREDENTIALS, models)]
    {
        let plan = Held::read(client, namespace, name).await?.plan(wanted);
        let keys: Vec<String> = plan.changed.into_iter().chain(plan.stale).collect();
        if !keys.is_empty() {
            plans.push(SecretPlan { namespace, name, keys });
        }
    }
    Ok(plans)
}

/// What gateway and facilitator want.
async fn of_system(client: &Client, config: &StackConfig) -> Result<[Wanted; 2], ClusterError> {
    let mut gateway = Wanted::new();
    gateway.extend(config.journal.database().map(|at| (JOURNAL_URL.to_owned(), secret_line(at))));
    let named = config.facilitators.iter().filter_map(|known| Some((credential_variable(&known.url), secret_line(known.secret()?))));
    gateway.extend(named);
    let keys = config.networks.iter().filter_map(|(network, settings)| Some((key_variable(network), signing_key(settings.key()?))));
    let mut facilitator: Wanted = keys.collect();
    if !facilitator.is_empty() {
        // Made once: what cannot be read is kept.
        let held = get(client, SYSTEM_NAMESPACE, FACILITATOR).await?.and_then(|secret| secret.data).unwrap_or_default();
        let held = held.get(OWN_CREDENTIAL).and_then(|held| String::from_utf8(held.0.clone()).ok()).filter(|held| !held.is_empty());
        facilitator.insert(OWN_CREDENTIAL.to_owned(), Ok(held.unwrap_or_else(ground::fresh_secret)));
    }
    Ok([gateway, facilitator])
}

/// Puts the secrets of gateway and facilitator into the cluster, and has Pods that run with others begin anew.
pub(super) async fn system(client: &Client, config: &StackConfig, warnings: &mut Vec<Diagnostic>) -> Result<(), ClusterError> {
    let [gateway, facilitator] = of_system(client, config).await?;
    for (name, wanted, deployments) in
        [(GATEWAY, gateway, &["x402-gateway"][..]), (FACILITATOR, facilitator, &["facilitator", "x402-gateway"])]
    {
        let Some(kept) = keep(client, SYSTEM_NAMESPACE, name, wanted).await? else { continue };
        warnings.extend(kept.unread.iter().map(|(key, cause)| unread(key, cause)));
        if let Some((key, cause)) = kept.lacking.into_iter().next() {
            return Err(ClusterError::Secret { key, cause });
        }
        if kept.changed.is_empty() {
            continue;
        }
        for deployment in deployments {
            restart::<Deployment>(client, SYSTEM_NAMESPACE, deployment, &kept.version).await?;
            restart::<StatefulSet>(client, SYSTEM_NAMESPACE, deployment, &kept.version).await?;
        }
    }
    Ok(())
}

/// A key that is one, in the form in which it was written.
fn signing_key(at: SecretRef<'_>) -> Result<String, String> {
    let key = match at {
        SecretRef::File(file) => SigningKey::from_file(file),
        SecretRef::Env(name) => SigningKey::from_env(name),
    };
    key.map_err(|error| error.to_string())?;
    secret_line(at)
}

/// Offers by the name that they have for the key of their model server.
type Users<'a> = BTreeMap<&'a str, Vec<(&'a OfferName, &'a PathBuf)>>;

fn users(walk: &Walk) -> Users<'_> {
    let mut users = Users::new();
    let offers = walk.slices.iter().filter_map(|slice| Some((slice, &slice.offer.as_ref().ok()?.1)));
    for (slice, offer) in offers {
        let name = offer.model.as_ref().and_then(|model| model.credential.as_deref());
        if let Some(name) = name.filter(|name| SecretRef::parse(name).is_none()) {
            users.entry(name).or_default().push((&slice.name, &slice.file));
        }
    }
    users
}

/// What inference gateways want.
async fn of_models(client: &Client, config: &StackConfig, walk: &Walk, users: &Users<'_>) -> Result<Wanted, ClusterError> {
    let mut wanted: Wanted =
        users.keys().map(|name| ((*name).to_owned(), secret_line(inference::key(name, &config.credentials)))).collect();
    if walk.slices.iter().any(|slice| slice.offer.is_err()) {
        // A broken slice does not say which key its offer in the cluster needs.
        let held = get(client, OFFERS_NAMESPACE, CREDENTIALS).await?.and_then(|secret| secret.data).unwrap_or_default();
        for key in held.into_keys() {
            wanted.entry(key).or_insert_with(|| Err(String::new()));
        }
    }
    Ok(wanted)
}

/// Puts the keys of model servers into the cluster. Returns the offers whose key is neither here nor there, with
/// what to tell of them.
pub(super) async fn credentials(
    client: &Client,
    config: &StackConfig,
    walk: &Walk,
    warnings: &mut Vec<Diagnostic>,
) -> Result<Vec<(OfferName, Diagnostic)>, ClusterError> {
    let users = users(walk);
    let wanted = of_models(client, config, walk, &users).await?;
    let Some(kept) = keep(client, OFFERS_NAMESPACE, CREDENTIALS, wanted).await? else { return Ok(Vec::new()) };
    warnings.extend(kept.unread.iter().filter(|(key, _)| users.contains_key(key.as_str())).map(|(key, cause)| unread(key, cause)));
    for (offer, _) in kept.changed.iter().filter_map(|key| users.get(key.as_str())).flatten() {
        restart::<Deployment>(client, OFFERS_NAMESPACE, &format!("{offer}-inference"), &kept.version).await?;
    }
    let lacking = kept.lacking.iter().filter_map(|(key, cause)| Some((key, cause, users.get(key.as_str())?)));
    let told = |key: &str, cause: &str, file: &PathBuf| {
        let fix = format!("write `credentials: {{{key}: ref+file:///path/to/the/key}}` in stack.yaml, or set the variable {key}");
        Diagnostic::file(file, "credential_missing", format!("the key `{key}` of the model server is not known: {cause}"), fix)
    };
    Ok(lacking.flat_map(|(key, cause, users)| users.iter().map(move |(name, file)| ((*name).clone(), told(key, cause, file)))).collect())
}

fn unread(key: &str, cause: &str) -> Diagnostic {
    let message = format!("{key} stays as the cluster has it: {cause}");
    Diagnostic::file("stack.yaml", "secret_unread", message, "run the pass where it can be read to change it").warning()
}

/// What became of a Secret.
struct Kept {
    /// Keys whose value is another now.
    changed: Vec<String>,
    /// What could not be read here and is in the cluster, with the reason.
    unread: Vec<(String, String)>,
    /// What could not be read here and is not in the cluster either.
    lacking: Vec<(String, String)>,
    /// Of the Secret, as it is now.
    version: String,
}

async fn get(client: &Client, namespace: &str, name: &str) -> Result<Option<Secret>, ClusterError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    api.get_opt(name).await.map_err(refused(format!("read the secret {name}")))
}

/// A Secret as it is.
struct Held {
    found: Option<Secret>,
    /// Or there is none.
    is_ours: bool,
}

impl Held {
    async fn read(client: &Client, namespace: &str, name: &str) -> Result<Self, ClusterError> {
        let found = get(client, namespace, name).await?;
        let by_us = |secret: &Secret| secret.metadata.labels.as_ref().is_some_and(|l| l.get(OURS.0).is_some_and(|by| by == OURS.1));
        Ok(Self { is_ours: found.as_ref().is_none_or(by_us), found })
    }

    fn plan(&self, wanted: Wanted) -> Plan {
        let held = self.found.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default();
        Plan::of(wanted, &held, self.is_ours)
    }
}

/// Makes a Secret hold these values, and nothing else of ours; `None` when there is none and none is needed.
async fn keep(client: &Client, namespace: &str, name: &str, wanted: Wanted) -> Result<Option<Kept>, ClusterError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let action = || format!("keep the secret {name}");
    let held = Held::read(client, namespace, name).await?;
    let (plan, is_ours, found) = (held.plan(wanted), held.is_ours, held.found);
    let version = |secret: &Secret| secret.metadata.resource_version.clone().unwrap_or_default();
    let is_due = plan.is_due();
    let mut kept = Kept { changed: plan.changed, unread: plan.unread, lacking: plan.lacking, version: String::new() };
    if plan.data.is_empty() {
        let Some(found) = found else { return Ok((!kept.lacking.is_empty()).then_some(kept)) };
        if is_ours && is_due {
            api.delete(name, &DeleteParams::default()).await.map_err(refused(action()))?;
        }
        kept.version = version(&found);
        return Ok(Some(kept));
    }
    if is_due {
        let metadata = if is_ours { ground::meta(name) } else { ObjectMeta { name: Some(name.to_owned()), ..Default::default() } };
        let secret = Secret { metadata, data: Some(plan.data), ..Default::default() };
        let params = PatchParams::apply(MANAGER).force();
        let applied = api.patch(name, &params, &Patch::Apply(&secret)).await.map_err(refused(action()))?;
        kept.version = version(&applied);
    }
    Ok(Some(kept))
}

/// What is to be done to one Secret.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    /// All that is ours in it.
    data: BTreeMap<String, ByteString>,
    changed: Vec<String>,
    unread: Vec<(String, String)>,
    lacking: Vec<(String, String)>,
    /// Keys that nobody wants any more.
    stale: Vec<String>,
}

impl Plan {
    fn of(wanted: Wanted, held: &BTreeMap<String, ByteString>, is_ours: bool) -> Self {
        let mut plan = Self::default();
        let known: Vec<String> = wanted.keys().cloned().collect();
        for (key, value) in wanted {
            match (value, held.get(&key)) {
                (Ok(value), old) => {
                    let value = ByteString(value.into_bytes());
                    if old != Some(&value) {
                        plan.changed.push(key.clone());
                    }
                    plan.data.insert(key, value);
                }
                (Err(cause), Some(old)) => {
                    // What somebody else has put there is his to keep.
                    if is_ours {
                        plan.data.insert(key.clone(), old.clone());
                    }
                    plan.unread.push((key, cause));
                }
                (Err(cause), None) => plan.lacking.push((key, cause)),
            }
        }
        plan.stale = held.keys().filter(|key| is_ours && !known.contains(key)).cloned().collect();
        plan
    }

    /// Whether it must be written.
    const fn is_due(&self) -> bool {
        !self.changed.is_empty() || !self.stale.is_empty()
    }
}

/// Has a workload's Pods begin anew, which read their secrets at the start; nothing where there is none.
async fn restart<K>(client: &Client, namespace: &str, name: &str, version: &str) -> Result<(), ClusterError>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let patch = json!({ "spec": { "template": { "metadata": { "annotations": { "obol.org/secret": version } } } } });
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
    match api.patch(name, &params, &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(refused(format!("restart {namespace}/{name}"))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> ByteString {
        ByteString(text.as_bytes().to_vec())
    }

    fn wanted(values: &[(&str, Result<&str, &str>)]) -> Wanted {
        values.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned).map_err(str::to_owned))).collect()
    }

    #[test]
    fn what_cannot_be_read_here_stays_and_what_nobody_wants_goes() {
        let held = BTreeMap::from([("a", "1"), ("b", "2"), ("stale", "3")].map(|(key, value)| (key.to_owned(), bytes(value))));
        let plan = Plan::of(wanted(&[("a", Ok("1")), ("b", Err("no file")), ("c", Err("no variable"))]), &held, true);
        assert_eq!(plan.data, BTreeMap::from([("a".to_owned(), bytes("1")), ("b".to_owned(), bytes("2"))]));
        assert_eq!(plan.unread, [("b".to_owned(), "no file".to_owned())]);
        assert_eq!(plan.lacking, [("c".to_owned(), "no variable".to_owned())]);
        assert!(plan.changed.is_empty() && plan.stale == ["stale"], "only the stale one goes");

        let plan = Plan::of(wanted(&[("a", Ok("1")), ("b", Ok("2")), ("stale", Ok("3"))]), &held, true);
        assert!(!plan.is_due(), "nothing is written when everything is as it should be");
        let plan = Plan::of(wanted(&[("a", Ok("other"))]), &held, true);
        assert_eq!((plan.changed.as_slice(), plan.is_due()), (&["a".to_owned()][..], true));
    }

    #[test]
    fn a_secret_that_somebody_else_made_keeps_what_he_put_there() {
        let held = BTreeMap::from([("theirs".to_owned(), bytes("1"))]);
        let plan = Plan::of(wanted(&[("theirs", Err("no variable"))]), &held, false);
        assert!(plan.data.is_empty() && !plan.is_due() && plan.lacking.is_empty());
        let plan = Plan::of(wanted(&[("theirs", Err("no variable")), ("ours", Ok("2"))]), &held, false);
        assert_eq!(plan.data, BTreeMap::from([("ours".to_owned(), bytes("2"))]), "only ours is applied");
    }

    #[test]
    fn names_of_variables_are_those_of_the_chart() {
        assert_eq!(key_variable("base-sepolia"), "OBOL_FACILITATOR_KEY_BASE_SEPOLIA");
        assert_eq!(key_variable("eip155:8453"), "OBOL_FACILITATOR_KEY_EIP155_8453");
        // `printf https://x402.example | sha256sum`
        assert_eq!(credential_variable("https://x402.example"), "OBOL_CREDENTIAL_61B2B9AFDE1D47A7");
        assert_ne!(credential_variable("https://a-b.example"), credential_variable("https://a.b.example"));
    }
}
