//! `ServiceOffer` as the API server hands it out, and how it becomes a slice for the pass.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use obol_offer::{Namespace, Offer, OfferKind, OfferName, Upstream, admission::read_spec};
use obol_reconcile::{Key, Refusal, Slice, Version};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

/// Namespace and name of an object.
pub type Id = (String, String);

/// One offer. Spec and status are kept as they are, so that no object, however malformed, can stop a
/// watch; [`Reader`] says what is wrong with it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServiceOffer {
    /// As of every object.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// As written.
    #[serde(default)]
    pub spec: Value,
    /// As the controller wrote it last.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub status: Value,
}

impl Resource for ServiceOffer {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "ServiceOffer".into()
    }
    fn group((): &()) -> Cow<'_, str> {
        "obol.org".into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1alpha1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        "serviceoffers".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Namespace and name.
pub fn id<K: Resource>(object: &K) -> Id {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// An object as read.
#[derive(Clone, Debug)]
pub struct Read {
    /// What the pass works on; absent when the object's name is none of an offer.
    pub slice: Option<Slice>,
    /// What is sold, as far as that can be told.
    pub kind: OfferKind,
    /// Fields of older objects that have no meaning here.
    pub ignored: Vec<String>,
}

impl Read {
    /// Key of the offer in a [`State`](obol_reconcile::State).
    pub fn key(&self) -> Option<Key> {
        self.slice.as_ref().map(|slice| (slice.name.clone(), slice.kind))
    }
}

/// Where offers are at home, for [`Reader`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Namespace of the offers that go by their plain name.
    pub offers: String,
    /// Namespace of the controller and the gateway.
    pub system: String,
}

impl Default for Home {
    fn default() -> Self {
        Self { offers: "obol-offers".to_owned(), system: "x402".to_owned() }
    }
}

/// Service, in the system namespace, that stands for the machine of a local cluster.
pub const HOST_SERVICE: &str = "obol-host";

/// What identifies one version of one spec.
type Stamp = (Option<String>, Option<i64>);

/// Reads objects, each version of each once.
#[derive(Debug)]
pub struct Reader {
    home: Home,
    known: HashMap<Id, (Stamp, Arc<Read>)>,
}

impl Reader {
    /// A reader that knows nothing yet.
    pub fn new(home: Home) -> Self {
        Self { home, known: HashMap::new() }
    }

    /// Reads everything, and forgets what is no more. Objects that are being deleted are no offers.
    pub fn read(&mut self, objects: &BTreeMap<Id, Arc<ServiceOffer>>) -> BTreeMap<Id, Arc<Read>> {
        self.known.retain(|id, _| objects.contains_key(id));
        let alive = objects.iter().filter(|(_, object)| object.metadata.deletion_timestamp.is_none());
        alive.map(|(id, object)| (id.clone(), self.one(id, object))).collect()
    }

    fn one(&mut self, id: &Id, object: &ServiceOffer) -> Arc<Read> {
        let stamp = (object.metadata.uid.clone(), object.metadata.generation);
        match self.known.get(id) {
            Some((known, read)) if *known == stamp => read.clone(),
            _ => {
                let read = Arc::new(read(object, &self.home));
                self.known.insert(id.clone(), (stamp, read.clone()));
                read
            }
        }
    }
}

fn read(object: &ServiceOffer, home: &Home) -> Read {
    let (namespace, name) = id(object);
    let kind = match object.spec.get("type").and_then(Value::as_str) {
        Some("inference") => OfferKind::Inference,
        _ => OfferKind::Http,
    };
    let (Ok(plain), Ok(within)) = (name.parse::<OfferName>(), namespace.parse::<Namespace>()) else {
        return Read { slice: None, kind, ignored: Vec::new() };
    };
    let name = if namespace == home.offers { plain.clone() } else { plain.within(&within) };
    let since = object.metadata.creation_timestamp.as_ref();
    let since = since.and_then(|at| OffsetDateTime::from_unix_timestamp(at.0.as_second()).ok()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (version, ignored) = match read_spec(&object.spec) {
        Ok((spec, ignored)) => {
            let version = Offer::validate(&plain, &spec).map(|mut offer| {
                offer.name = name.clone();
                settle_upstream(&mut offer.upstream, &namespace, &spec.upstream.namespace, home);
                Version { offer: Arc::new(offer), spec: Arc::new(spec) }
            });
            (version, ignored)
        }
        Err(violations) => (Err(violations), Vec::new()),
    };
    let version = version.map_err(|violations| {
        let reserved = violations.iter().any(|violation| violation.code == "path_reserved");
        let told: Vec<String> = violations.iter().take(5).map(ToString::to_string).collect();
        Refusal::new(if reserved { "ReservedPath" } else { "InvalidSpec" }, told.join("; "))
    });
    let since = Some((since, format!("{namespace}/{plain}")));
    Read { slice: Some(Slice { name, kind, version, since }), kind, ignored }
}

/// In a cluster a Service without a namespace is the offer's neighbour, and the machine is a Service.
fn settle_upstream(upstream: &mut Upstream, own: &str, given: &Option<String>, home: &Home) {
    match upstream {
        Upstream::Service { namespace, .. } if given.is_none() => own.clone_into(namespace),
        Upstream::Host { port } => {
            *upstream = Upstream::Service { name: HOST_SERVICE.to_owned(), namespace: home.system.clone(), port: *port };
        }
        _ => {}
    }
}
