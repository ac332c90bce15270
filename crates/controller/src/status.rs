//! `status` of an offer: what was observed, in the shape of the Kubernetes API conventions.

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use obol_offer::{Condition, ConditionKind, ConditionStatus, ModelState, OfferKind, OfferStatus};
use obol_reconcile::{Finding, Health, Observed, OfferState};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    Id, ServiceOffer,
    build::parent,
    gate::Gates,
    object::Read,
    plan::{Seen, World},
};

/// The conditions of an offer.
pub(crate) fn conditions(id: &Id, object: &ServiceOffer, read: &Read, state: Option<&OfferState>, world: &World<'_>) -> OfferStatus {
    let invalid_name;
    let state = match state {
        Some(state) => state,
        None => {
            let message = "a name has at most 53 of a-z, 0-9 and `-`, and starts and ends with a letter or digit";
            invalid_name = OfferState::nameless(read.kind, obol_reconcile::Refusal::new("InvalidName", message));
            &invalid_name
        }
    };
    let seen = &world.seen;
    let mut status = state.observed(Observed {
        model: (read.kind == OfferKind::Inference).then(|| seen.models.get(id).cloned().unwrap_or_else(|| (&ModelState::Unknown).into())),
        upstream: Some(seen.upstreams.get(id).cloned().unwrap_or_else(|| upstream(None))),
        gate: Some(gate(id, object, seen)),
        route: Some(route(id, world)),
    });
    if !read.ignored.is_empty()
        && let Some(ready) = status.conditions.iter_mut().find(|condition| condition.kind == ConditionKind::Ready)
    {
        ready.message = format!("{}; ignored, since they mean nothing here: {}", ready.message, read.ignored.join(", "));
    }
    status
}

/// Of the last health probe. No time is told: a status that changes with every probe is a write with every probe.
pub(crate) fn upstream(health: Option<&Health>) -> Finding {
    match health {
        None => Finding(ConditionStatus::Unknown, "NotProbed", "nobody has looked yet".into()),
        Some(Health::Healthy) => Finding(ConditionStatus::True, "Healthy", "the last health probe was answered with 2xx".into()),
        Some(Health::Reachable) => Finding(ConditionStatus::True, "Reachable", "it answers; name a healthPath to know more".into()),
        Some(Health::Unhealthy(cause)) => Finding(ConditionStatus::False, "Unhealthy", cause.clone()),
    }
}

/// Whether the gateway has this very version.
fn gate(id: &Id, object: &ServiceOffer, seen: &Seen) -> Finding {
    let gates = match &seen.gates {
        None => return Finding(ConditionStatus::Unknown, "NotAsked", "the x402 gateway has not been asked yet".into()),
        Some(Err(why)) => {
            return Finding(ConditionStatus::Unknown, "GatewayUnreachable", format!("the x402 gateway does not answer: {why}"));
        }
        Some(Ok(gates)) => gates,
    };
    match is_loaded(id, object, gates) {
        None => {
            let generation = object.metadata.generation.unwrap_or_default();
            let message = format!("the x402 gateway has not loaded generation {generation} yet");
            Finding(ConditionStatus::False, "WaitingForGateway", message)
        }
        Some(false) => Finding(ConditionStatus::False, "NotRouted", "the x402 gateway has loaded the offer and does not serve it".into()),
        Some(true) => Finding(ConditionStatus::True, "Reconciled", "the gate stands before every paid route".into()),
    }
}

/// Whether the gateway serves it, once it has loaded it.
pub(crate) fn is_loaded(id: &Id, object: &ServiceOffer, gates: &Gates) -> Option<bool> {
    let loaded = gates.get(id)?;
    let is_this = Some(&loaded.uid) == object.metadata.uid.as_ref() && loaded.generation >= object.metadata.generation.unwrap_or_default();
    is_this.then_some(loaded.routed)
}

/// Whether the ingress has taken the route.
fn route(id: &Id, world: &World<'_>) -> Finding {
    let no = |reason, message: String| Finding(ConditionStatus::False, reason, message);
    if let Some(failure) = world.failures.get(id) {
        return no("ApplyFailed", failure.clone());
    }
    let Some(routes) = world.routes else {
        let why = world.routes_trouble.unwrap_or("routes have not been listed yet");
        return Finding(ConditionStatus::Unknown, "RoutesUnknown", format!("{why}; is the Gateway API installed?"));
    };
    let Some(route) = routes.get(&(id.0.clone(), crate::build::route_name(&id.1))) else {
        return no("WaitingForRoute", "the route is not written yet".into());
    };
    accepted(route, &parent(world.settings), world)
}

fn accepted(route: &DynamicObject, parent: &Value, world: &World<'_>) -> Finding {
    let ingress = &world.settings.ingress;
    let name = format!("{}/{}", ingress.namespace, ingress.name);
    let waiting = |message: String| Finding(ConditionStatus::False, "WaitingForAcceptance", message);
    let is_parent = |status: &&Value| {
        let of = status.get("parentRef").unwrap_or(&Value::Null);
        let namespace = of.get("namespace").and_then(Value::as_str).or(route.metadata.namespace.as_deref());
        of.get("name") == parent.get("name") && namespace == Some(&ingress.namespace) && of.get("sectionName") == parent.get("sectionName")
    };
    let parents = route.data.pointer("/status/parents").and_then(Value::as_array);
    let taken: Vec<&Value> = parents.into_iter().flatten().filter(is_parent).collect();
    let mut findings = taken.iter().map(|status| {
        let condition = |kind: &str| {
            let all = status.get("conditions").and_then(Value::as_array);
            all.into_iter().flatten().find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))
        };
        let text = |condition: &Value, key: &str| condition.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(accepted) = condition("Accepted") else { return waiting(format!("Gateway {name} has not judged the route yet")) };
        let generation = accepted.get("observedGeneration").and_then(Value::as_i64);
        if generation.zip(route.metadata.generation).is_some_and(|(seen, current)| seen < current) {
            return waiting(format!("Gateway {name} has not seen the last change yet"));
        }
        for condition in [Some(accepted), condition("ResolvedRefs")].into_iter().flatten() {
            if text(condition, "status") != "True" {
                let (reason, message) = (text(condition, "reason"), text(condition, "message"));
                return Finding(ConditionStatus::False, "RouteRefused", format!("Gateway {name} says {reason}: {message}"));
            }
        }
        Finding(ConditionStatus::True, "Reconciled", "buyers reach the offer".into())
    });
    let first = findings.next().unwrap_or_else(|| waiting(format!("no ingress has taken the route; is there a Gateway {name}?")));
    // With several controllers on one Gateway the good news counts.
    if first.0 == ConditionStatus::True { first } else { findings.find(|other| other.0 == ConditionStatus::True).unwrap_or(first) }
}

/// The status as JSON. Conditions keep the time of their last transition.
pub(crate) fn to_json(object: &ServiceOffer, status: &OfferStatus, state: Option<&OfferState>, now: OffsetDateTime) -> Value {
    let generation = object.metadata.generation.unwrap_or_default();
    let before: BTreeMap<&str, &Value> = object
        .status
        .get("conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|condition| Some((condition.get("type")?.as_str()?, condition)))
        .collect();
    let stamp = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default();
    let one = |condition: &Condition| {
        let mut json = serde_json::to_value(condition).unwrap_or_default();
        let kind = json.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let old = before.get(kind.as_str()).filter(|old| old.get("status") == json.get("status"));
        let since = old.and_then(|old| old.get("lastTransitionTime")).cloned().unwrap_or_else(|| json!(stamp));
        if let Value::Object(fields) = &mut json {
            fields.insert("lastTransitionTime".to_owned(), since);
            fields.insert("observedGeneration".to_owned(), json!(generation));
        }
        json
    };
    let offer = state.and_then(OfferState::shown).map(|version| version.offer.as_ref());
    let mut networks: Vec<&str> = offer.iter().flat_map(|offer| &offer.payments).map(|tag| tag.terms.network.name).collect();
    networks.dedup();
    json!({
        "observedGeneration": generation,
        "endpoint": status.endpoint,
        "price": offer.map(obol_offer::Offer::price).unwrap_or_default(),
        "network": networks.join(", "),
        "conditions": status.conditions.iter().map(one).collect::<Vec<_>>(),
    })
}
