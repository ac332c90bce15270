//! What lives in the cluster against what Helm has put there: somebody else may have changed or
//! deleted it since.

use std::collections::{BTreeSet, HashMap};

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};
use obol_offer::OfferSpec;
use serde_json::Value;

use super::{ClusterError, error::refused};

/// Resources of our charts: version, kind, plural, and whether they live in a namespace.
const KINDS: [(&str, &str, &str, bool); 17] = [
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", false),
    ("apps/v1", "Deployment", "deployments", true),
    ("apps/v1", "StatefulSet", "statefulsets", true),
    ("gateway.networking.k8s.io/v1", "Gateway", "gateways", true),
    ("gateway.networking.k8s.io/v1", "GatewayClass", "gatewayclasses", false),
    ("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", true),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", true),
    ("obol.org/v1alpha1", "ServiceOffer", "serviceoffers", true),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", false),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", false),
    ("rbac.authorization.k8s.io/v1", "Role", "roles", true),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", true),
    ("v1", "ConfigMap", "configmaps", true),
    ("v1", "Secret", "secrets", true),
    ("v1", "Service", "services", true),
    ("v1", "ServiceAccount", "serviceaccounts", true),
];

/// What the API needs to know of a kind; `None` for kinds that no chart of ours has.
pub(super) fn resource(api_version: &str, kind: &str) -> Option<(ApiResource, bool)> {
    let (.., plural, namespaced) = KINDS.into_iter().find(|known| (known.0, known.1) == (api_version, kind))?;
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    Some((ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural), namespaced))
}

/// Version, kind, namespace (empty for none) and name.
type Id = (String, String, String, String);

/// Objects as they are in the cluster.
#[derive(Debug, Default)]
pub(super) struct Live {
    objects: HashMap<Id, Value>,
}

impl Live {
    /// Reads every object of these kinds and namespaces that Helm manages: one call for each kind
    /// and namespace, however many releases there are.
    pub(super) async fn read(client: &Client, objects: &[(Value, String)]) -> Result<Self, ClusterError> {
        let mut wanted = BTreeSet::new();
        for (object, namespace) in objects {
            let (api_version, kind, namespace, _) = id(object, namespace);
            if let Some((_, namespaced)) = resource(&api_version, &kind) {
                wanted.insert((api_version, kind, if namespaced { namespace } else { String::new() }));
            }
        }
        let mut live = Self::default();
        let reads = wanted.into_iter().map(|(api_version, kind, namespace)| list(client, api_version, kind, namespace));
        for found in futures_util::future::try_join_all(reads).await? {
            live.objects.extend(found);
        }
        Ok(live)
    }

    /// What differs from the manifest's object; `None` when nothing does.
    pub(super) fn differs(&self, object: &Value, namespace: &str) -> Option<String> {
        let mut id = id(object, namespace);
        match resource(&id.0, &id.1) {
            Some((_, true)) => {}
            Some((_, false)) => id.2.clear(),
            None => return Some(format!("{} {}: obol does not know this kind", id.1, id.3)),
        }
        let title = format!("{} {}", id.1, id.3);
        let Some(live) = self.objects.get(&id) else { return Some(format!("{title} is missing")) };
        let path = missing(object, live, "").or_else(|| offer_has_more(object, live));
        path.map(|path| format!("{title}: {path}"))
    }

    /// The live counterpart of an object.
    pub(super) fn get(&self, object: &Value, namespace: &str) -> Option<&Value> {
        self.objects.get(&id(object, namespace))
    }
}

async fn list(client: &Client, api_version: String, kind: String, namespace: String) -> Result<Vec<(Id, Value)>, ClusterError> {
    let Some((resource, namespaced)) = resource(&api_version, &kind) else { return Ok(Vec::new()) };
    let api: Api<DynamicObject> =
        if namespaced { Api::namespaced_with(client.clone(), &namespace, &resource) } else { Api::all_with(client.clone(), &resource) };
    let mut params = ListParams::default().labels("app.kubernetes.io/managed-by=Helm").limit(1000);
    let mut found = Vec::new();
    loop {
        let page = match api.list(&params).await {
            Ok(page) => page,
            // The kind itself is not there yet.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(found),
            Err(error) => return Err(refused(format!("list {kind}s"))(error)),
        };
        for object in page.items {
            let name = object.metadata.name.clone().unwrap_or_default();
            let mut value = serde_json::to_value(&object).unwrap_or_default();
            // In a list only the list says what its items are.
            if let Some(fields) = value.as_object_mut() {
                fields.insert("apiVersion".to_owned(), api_version.as_str().into());
                fields.insert("kind".to_owned(), kind.as_str().into());
            }
            found.push(((api_version.clone(), kind.clone(), namespace.clone(), name), value));
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

fn id(object: &Value, namespace: &str) -> Id {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let own = text("/metadata/namespace");
    (text("/apiVersion"), text("/kind"), if own.is_empty() { namespace.to_owned() } else { own }, text("/metadata/name"))
}

/// The first field of `wanted` that `live` lacks or has otherwise. What the API server adds is not
/// looked at.
fn missing(wanted: &Value, live: &Value, path: &str) -> Option<String> {
    match (wanted, live) {
        // Nothing is asked for.
        (Value::Null, _) => None,
        (Value::Object(fields), _) => fields.iter().find_map(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            // An empty mapping or list may not be kept.
            let empty = value.as_object().is_some_and(serde_json::Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
            match live.get(key) {
                None if empty => None,
                found => missing(value, found.unwrap_or(&Value::Null), &path),
            }
        }),
        (Value::Array(wanted), Value::Array(live)) if wanted.len() == live.len() => {
            wanted.iter().zip(live).enumerate().find_map(|(index, (wanted, live))| missing(wanted, live, &format!("{path}[{index}]")))
        }
        (wanted, live) if wanted == live => None,
        (Value::String(wanted), Value::String(live)) if quantity(wanted).is_some_and(|wanted| Some(wanted) == quantity(live)) => None,
        _ => Some(path.to_owned()),
    }
}

/// Fields of a live offer that its file does not have. (A field that Helm never wrote, Helm does not
/// take away.)
fn offer_has_more(wanted: &Value, live: &Value) -> Option<String> {
    if wanted["kind"] != "ServiceOffer" {
        return None;
    }
    let typed = |value: &Value| serde_json::from_value::<OfferSpec>(value["spec"].clone()).ok();
    (typed(wanted)? != typed(live)?).then(|| "spec".to_owned())
}

/// A Kubernetes quantity in thousandths, so that `1000m` is `1`. (apimachinery, `resource.Quantity`;
/// fractions of binary units are not needed here.)
fn quantity(text: &str) -> Option<u128> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u128 = digits.parse().ok()?;
    let factor: u128 = match text.get(digits.len()..)? {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_adds_is_no_drift_and_what_somebody_changed_is() {
        let wanted = json!({ "a": { "b": 1 }, "list": [{ "name": "x" }], "gone": null, "empty": {} });
        assert_eq!(missing(&wanted, &json!({ "a": { "b": 1, "default": 2 }, "list": [{ "name": "x", "y": 1 }], "status": {} }), ""), None);
        for (live, path) in [
            (json!({ "a": { "b": 2 }, "list": [{ "name": "x" }] }), "a.b"),
            (json!({ "a": {}, "list": [{ "name": "x" }] }), "a.b"),
            (json!({ "a": { "b": 1 }, "list": [] }), "list"),
            (json!({ "a": { "b": 1 }, "list": [{ "name": "z" }] }), "list[0].name"),
        ] {
            assert_eq!(missing(&wanted, &live, "").as_deref(), Some(path));
        }
    }

    #[test]
    fn quantities_are_numbers() {
        assert_eq!(missing(&json!({ "cpu": "1000m" }), &json!({ "cpu": "1" }), ""), None);
        assert_eq!(missing(&json!({ "memory": "1024Mi" }), &json!({ "memory": "1Gi" }), ""), None);
        assert_eq!(missing(&json!({ "memory": "1Gi" }), &json!({ "memory": "2Gi" }), "").as_deref(), Some("memory"));
        assert_eq!(missing(&json!({ "word": "m" }), &json!({ "word": "k" }), "").as_deref(), Some("word"));
    }

    #[test]
    fn an_offer_that_somebody_has_added_to_is_told() {
        let offer =
            |spec: Value| json!({ "apiVersion": "obol.org/v1alpha1", "kind": "ServiceOffer", "metadata": { "name": "a" }, "spec": spec });
        let wanted = offer(json!({ "type": "http", "upstream": { "url": "http://x" } }));
        let key = ("obol.org/v1alpha1".to_owned(), "ServiceOffer".to_owned(), "n".to_owned(), "a".to_owned());
        let live = |spec| Live { objects: HashMap::from([(key.clone(), offer(spec))]) };
        let same = json!({ "type": "http", "upstream": { "url": "http://x" } });
        assert_eq!(live(same).differs(&wanted, "n"), None);
        let more = json!({ "type": "http", "upstream": { "url": "http://x" }, "hostname": "a.example" });
        assert_eq!(live(more).differs(&wanted, "n").as_deref(), Some("ServiceOffer a: spec"));
        assert_eq!(Live::default().differs(&wanted, "n").as_deref(), Some("ServiceOffer a is missing"));
    }
}
