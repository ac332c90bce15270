//! From everything that is known to the writes that are due. Pure: a test needs no cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use kube::api::DynamicObject;
use obol_reconcile::{Finding, State};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    Id, ServiceOffer, Settings, build,
    gate::Gates,
    mirror::Objects,
    object::{Read, id},
    status,
};

/// What others found out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub upstreams: BTreeMap<Id, Finding>,
    pub models: BTreeMap<Id, Finding>,
    pub gates: Option<Result<Arc<Gates>, String>>,
}

/// Everything that is known.
pub(crate) struct World<'a> {
    pub settings: &'a Settings,
    pub offers: &'a Objects<ServiceOffer>,
    pub read: &'a BTreeMap<Id, Arc<Read>>,
    pub state: &'a State,
    /// `None` before the first full list, so that nothing is deleted or made in ignorance.
    pub routes: Option<&'a Objects<DynamicObject>>,
    pub routes_trouble: Option<&'a str>,
    pub grants: Option<&'a Objects<DynamicObject>>,
    /// Why an offer's route could not be written.
    pub failures: &'a BTreeMap<Id, String>,
    pub seen: Seen,
}

/// One write.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// Server-side apply; with the offer that it is for.
    Route(Id, DynamicObject),
    Grant(DynamicObject),
    DeleteRoute(Id, Gone),
    DeleteGrant(Id, Gone),
    Status(Id, StatusWrite),
}

/// Which object is to be deleted, exactly.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Gone {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// A new status, and what is told of it.
#[derive(Clone, Debug)]
pub(crate) struct StatusWrite {
    pub uid: Option<String>,
    pub status: Value,
    pub event: Option<Notice>,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub is_good: bool,
    pub reason: String,
    pub note: String,
}

impl Write {
    /// What is written to, for telling repeated writes.
    pub(crate) fn target(&self) -> String {
        match self {
            Self::Route((namespace, name), _) => format!("apply route {namespace}/{name}"),
            Self::Grant(grant) => format!("apply grant {}", grant.metadata.name.as_deref().unwrap_or_default()),
            Self::DeleteRoute((namespace, name), _) => format!("delete route {namespace}/{name}"),
            Self::DeleteGrant((_, name), _) => format!("delete grant {name}"),
            Self::Status((namespace, name), _) => format!("status {namespace}/{name}"),
        }
    }

    /// Equal for writes of the same.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self {
            Self::Route(_, object) | Self::Grant(object) => object.data.to_string().hash(&mut hasher),
            Self::DeleteRoute(_, gone) | Self::DeleteGrant(_, gone) => gone.hash(&mut hasher),
            Self::Status(_, write) => write.status.to_string().hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// The writes that are due, in order; none when everything is as it should be.
pub(crate) fn plan(world: &World<'_>, now: OffsetDateTime) -> Vec<Write> {
    let mut writes = Vec::new();
    routes(world, &mut writes);
    grants(world, &mut writes);
    for (id, read) in world.read {
        let Some(object) = world.offers.get(id) else { continue };
        writes.extend(status_write(id, object, read, world, now).map(|write| Write::Status(id.clone(), write)));
    }
    writes
}

fn routes(world: &World<'_>, writes: &mut Vec<Write>) {
    let Some(found) = world.routes else { return };
    let mut wanted: BTreeSet<Id> = BTreeSet::new();
    for (id, read) in world.read {
        let key = (id.0.clone(), build::route_name(&id.1));
        let state = read.key().and_then(|key| world.state.offers.get(&key));
        let served = state.filter(|state| state.is_routed()).and_then(|state| state.served.as_ref());
        let Some((version, object)) = served.zip(world.offers.get(id)) else {
            // A spec that cannot be read says nothing about the route of the one before it.
            let is_unreadable = read.slice.as_ref().is_none_or(|slice| slice.version.is_err());
            if is_unreadable {
                wanted.insert(key);
            }
            continue;
        };
        let route = build::route(object, &version.offer, world.settings);
        if found.get(&key).is_none_or(|found| !build::is_as_wanted(&route, found)) {
            writes.push(Write::Route(id.clone(), route));
        }
        wanted.insert(key);
    }
    let stray = |(id, route): (&Id, &Arc<DynamicObject>)| {
        let is_stray = !wanted.contains(id) && build::is_ours(route.metadata.labels.as_ref()) && build::offer_of(route).is_some();
        (is_stray && route.metadata.deletion_timestamp.is_none()).then(|| Write::DeleteRoute(id.clone(), gone(route)))
    };
    writes.extend(found.iter().filter_map(stray));
}

fn grants(world: &World<'_>, writes: &mut Vec<Write>) {
    let Some(found) = world.grants else { return };
    let namespaces: BTreeSet<&str> = world.read.keys().map(|(namespace, _)| namespace.as_str()).collect();
    let wanted = build::grants_for(namespaces, world.settings);
    for grant in &wanted {
        if found.get(&id(grant)).is_none_or(|found| !build::is_as_wanted(grant, found)) {
            writes.push(Write::Grant(grant.clone()));
        }
    }
    let names: BTreeSet<Id> = wanted.iter().map(id).collect();
    let stray = found.iter().filter(|(id, grant)| {
        !names.contains(id) && build::is_ours(grant.metadata.labels.as_ref()) && grant.metadata.deletion_timestamp.is_none()
    });
    writes.extend(stray.map(|(id, grant)| Write::DeleteGrant(id.clone(), gone(grant))));
}

fn gone(object: &DynamicObject) -> Gone {
    Gone { uid: object.metadata.uid.clone(), resource_version: object.metadata.resource_version.clone() }
}

fn status_write(id: &Id, object: &ServiceOffer, read: &Read, world: &World<'_>, now: OffsetDateTime) -> Option<StatusWrite> {
    let state = read.key().and_then(|key| world.state.offers.get(&key)).map(Arc::as_ref);
    let conditions = status::conditions(id, object, read, state, world);
    let status = status::to_json(object, &conditions, state, now);
    if is_told(&status, &object.status) {
        return None;
    }
    Some(StatusWrite { uid: object.metadata.uid.clone(), event: notice(&object.status, &status), status })
}

/// Whether a status says already what it should. Conditions of others are theirs.
fn is_told(wanted: &Value, found: &Value) -> bool {
    let all = |status: &Value| status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let conditions = all(found);
    let plain = |status: &Value| {
        let fields = status.as_object().into_iter().flatten().filter(|(name, _)| *name != "conditions");
        fields.map(|(name, value)| (name.clone(), value.clone())).collect::<BTreeMap<_, _>>()
    };
    let found = plain(found);
    plain(wanted).iter().all(|(name, value)| found.get(name) == Some(value))
        && all(wanted).iter().all(|wanted| conditions.iter().any(|found| found == wanted))
}

/// What changed about whether it can be bought, if that did.
fn notice(before: &Value, after: &Value) -> Option<Notice> {
    let ready = |status: &Value| {
        let all = status.get("conditions").and_then(Value::as_array);
        let ready = all.into_iter().flatten().find(|condition| condition.get("type").and_then(Value::as_str) == Some("Ready"))?;
        let text = |key: &str| ready.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some((text("status"), text("reason"), text("message")))
    };
    let (status, reason, message) = ready(after)?;
    match ready(before) {
        Some((old_status, old_reason, _)) if old_status == status && old_reason == reason => None,
        None if status == "Unknown" => None,
        _ => Some(Notice { is_good: status == "True", reason: if status == "True" { "Ready".to_owned() } else { reason }, note: message }),
    }
}

/// A status as it is applied.
pub(crate) fn status_patch(id: &Id, write: &StatusWrite) -> Value {
    json!({
        "apiVersion": "obol.org/v1alpha1",
        "kind": "ServiceOffer",
        // With the uid, the status of an object never ends on another of its name.
        "metadata": { "name": id.1, "namespace": id.0, "uid": write.uid },
        "status": write.status,
    })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
