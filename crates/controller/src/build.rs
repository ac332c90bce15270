//! The objects that make an offer reachable. Pure, and cannot fail.

use kube::{
    Resource as _,
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
};
use obol_offer::Offer;
use serde_json::{Value, json};

use crate::{Id, ServiceOffer, Settings};

/// Field manager of everything that is written.
pub const MANAGER: &str = "obol-controller";
/// Label on everything that is made here; what has it and is not wanted is deleted.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label with the offer's name on its route.
pub const OFFER: &str = "obol.org/offer";
/// Name of the grant, and of those that follow when one is full.
pub const GRANT: &str = "obol-offers-to-gateway";
/// Most entries of `spec.from` (Gateway API).
const MAX_FROM: usize = 16;

/// `HTTPRoute` of the Gateway API.
pub fn routes() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"), "httproutes")
}

/// `ReferenceGrant` of the Gateway API.
pub fn grants() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1beta1", "ReferenceGrant"), "referencegrants")
}

/// Name of an offer's route; injective within a namespace.
pub fn route_name(offer: &str) -> String {
    format!("so-{offer}")
}

/// The route that leads an offer's buyers to the x402 gateway.
pub(crate) fn route(object: &ServiceOffer, offer: &Offer, settings: &Settings) -> DynamicObject {
    let (namespace, name) = crate::object::id(object);
    let host: Vec<&str> = offer.hostname.iter().map(AsRef::as_ref).collect();
    let backend = json!({
        "group": "", "kind": "Service", "name": settings.gate.service, "namespace": settings.home.system,
        "port": settings.gate.port, "weight": 1
    });
    let spec = json!({
        "parentRefs": [parent(settings)],
        "hostnames": host,
        "rules": [{ "matches": [{ "path": { "type": "PathPrefix", "value": offer.path.as_str() } }], "backendRefs": [backend] }]
    });
    let mut route = object_of(&routes(), &namespace, &route_name(&name), spec);
    route.labels_mut().insert(OFFER.to_owned(), name);
    // Kubernetes deletes what is owned together with its owner: no finalizer is needed.
    route.metadata.owner_references = object.controller_owner_ref(&()).map(|mut owner| {
        owner.block_owner_deletion = None;
        vec![owner]
    });
    route
}

pub(crate) fn parent(settings: &Settings) -> Value {
    let ingress = &settings.ingress;
    let mut parent =
        json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": ingress.namespace, "name": ingress.name });
    if let (Some(section), Value::Object(parent)) = (&ingress.section, &mut parent) {
        parent.insert("sectionName".to_owned(), json!(section));
    }
    parent
}

/// The grants that let routes of these namespaces lead to the gateway; as few as there can be.
pub(crate) fn grants_for<'a>(namespaces: impl IntoIterator<Item = &'a str>, settings: &Settings) -> Vec<DynamicObject> {
    let from = namespaces.into_iter().filter(|namespace| *namespace != settings.home.system);
    let from: Vec<Value> =
        from.map(|namespace| json!({ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": namespace })).collect();
    let grant = |(index, from): (usize, &[Value])| {
        let name = if index == 0 { GRANT.to_owned() } else { format!("{GRANT}-{}", index + 1) };
        let spec = json!({ "from": from, "to": [{ "group": "", "kind": "Service", "name": settings.gate.service }] });
        object_of(&grants(), &settings.home.system, &name, spec)
    };
    from.chunks(MAX_FROM).enumerate().map(grant).collect()
}

fn object_of(kind: &ApiResource, namespace: &str, name: &str, spec: Value) -> DynamicObject {
    let mut object = DynamicObject::new(name, kind).within(namespace).data(json!({ "spec": spec }));
    object.metadata.labels = Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into());
    object
}

trait Labels {
    fn labels_mut(&mut self) -> &mut std::collections::BTreeMap<String, String>;
}

impl Labels for DynamicObject {
    fn labels_mut(&mut self) -> &mut std::collections::BTreeMap<String, String> {
        self.metadata.labels.get_or_insert_default()
    }
}

/// Whether an object is as wanted. Fields that the API server or others added do not matter.
pub(crate) fn is_as_wanted(wanted: &DynamicObject, found: &DynamicObject) -> bool {
    let labels = |object: &DynamicObject| object.metadata.labels.clone().unwrap_or_default();
    let found_labels = labels(found);
    let owners =
        |object: &DynamicObject| object.metadata.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect::<Vec<_>>();
    labels(wanted).iter().all(|(key, value)| found_labels.get(key) == Some(value))
        && owners(wanted).iter().all(|owner| owners(found).contains(owner))
        && covers(wanted.data.get("spec").unwrap_or(&Value::Null), found.data.get("spec").unwrap_or(&Value::Null))
}

/// Whether every wanted field is there. An empty list is as good as none.
fn covers(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), found) => wanted.iter().all(|(key, value)| covers(value, found.get(key).unwrap_or(&Value::Null))),
        (Value::Array(wanted), Value::Null) => wanted.is_empty(),
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len() && wanted.iter().zip(found).all(|(wanted, found)| covers(wanted, found))
        }
        (wanted, found) => wanted == found,
    }
}

/// Whether an object was made here.
pub(crate) fn is_ours(labels: Option<&std::collections::BTreeMap<String, String>>) -> bool {
    labels.is_some_and(|labels| labels.get(MANAGED_BY).is_some_and(|by| by == MANAGER))
}

/// The offer that a route belongs to.
pub(crate) fn offer_of(route: &DynamicObject) -> Option<Id> {
    let name = route.metadata.labels.as_ref()?.get(OFFER)?.clone();
    Some((route.metadata.namespace.clone()?, name))
}
