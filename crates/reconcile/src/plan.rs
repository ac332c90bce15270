//! What a pass would change: the files against what is served.

use std::collections::{BTreeMap, BTreeSet};

use obol_offer::{OfferKind, OfferName, OfferSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One offer on either side of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanItem {
    /// Name.
    pub name: OfferName,
    /// Kind.
    pub kind: OfferKind,
    /// Its spec, as in `values-offer.yaml`. `null` on the side of the files means that the slice is
    /// broken, so the pass leaves alone whatever is served.
    pub spec: Value,
}

impl PlanItem {
    /// An item from a spec; `None` for a broken slice.
    pub fn new(name: &OfferName, kind: OfferKind, spec: Option<&OfferSpec>) -> Self {
        let spec = spec.and_then(|spec| serde_json::to_value(spec).ok()).unwrap_or_default();
        Self { name: name.clone(), kind, spec }
    }
}

/// What the pass would do to one offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is not served yet.
    Create,
    /// It is served otherwise.
    Update,
    /// Its slice is gone.
    Delete,
    /// It is served as written, or its slice is broken.
    None,
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Path in the file, e.g. `spec.payment.price.perRequest`.
    pub field: String,
    /// As served; absent when the field is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// As written; absent when the field goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// One offer of the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedChange {
    /// Name.
    pub name: OfferName,
    /// Kind.
    pub kind: OfferKind,
    /// What would be done.
    pub action: Action,
    /// Which fields differ, in the order of their paths.
    pub fields: Vec<FieldChange>,
}

/// Compares what is written with what is served. Every offer of either side appears once, in the
/// order of name and kind.
pub fn plan(desired: &[PlanItem], observed: &[PlanItem]) -> Vec<PlannedChange> {
    let desired = by_key(desired);
    let observed = by_key(observed);
    let keys: BTreeSet<_> = desired.keys().chain(observed.keys()).copied().collect();
    keys.into_iter()
        .map(|key| {
            let (from, to) = (observed.get(&key).copied(), desired.get(&key).copied());
            let fields = match to {
                Some(Value::Null) => Vec::new(),
                _ => differences(from, to),
            };
            let action = match (from, to) {
                (_, Some(Value::Null)) => Action::None,
                (None, _) => Action::Create,
                (_, None) => Action::Delete,
                _ if fields.is_empty() => Action::None,
                _ => Action::Update,
            };
            PlannedChange { name: key.0.clone(), kind: key.1, action, fields }
        })
        .collect()
}

fn by_key(items: &[PlanItem]) -> BTreeMap<(&OfferName, OfferKind), &Value> {
    items.iter().map(|item| ((&item.name, item.kind), &item.spec)).collect()
}

fn differences(from: Option<&Value>, to: Option<&Value>) -> Vec<FieldChange> {
    let (from, to) = (leaves(from), leaves(to));
    let fields: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    fields
        .into_iter()
        .filter(|field| from.get(*field) != to.get(*field))
        .map(|field| FieldChange {
            field: field.clone(),
            from: from.get(field).map(|v| (*v).clone()),
            to: to.get(field).map(|v| (*v).clone()),
        })
        .collect()
}

/// Every leaf by its path; an empty object or list is a leaf.
fn leaves(spec: Option<&Value>) -> BTreeMap<String, &Value> {
    let mut found = BTreeMap::new();
    let mut todo: Vec<(String, &Value)> = spec.map(|spec| ("spec".to_owned(), spec)).into_iter().collect();
    while let Some((path, value)) = todo.pop() {
        match value {
            Value::Object(fields) if !fields.is_empty() => todo.extend(fields.iter().map(|(key, value)| (format!("{path}.{key}"), value))),
            Value::Array(items) if !items.is_empty() => {
                todo.extend(items.iter().enumerate().map(|(index, value)| (format!("{path}[{index}]"), value)));
            }
            leaf => {
                found.insert(path, leaf);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn item(name: &str, spec: Value) -> PlanItem {
        PlanItem { name: name.parse().unwrap(), kind: OfferKind::Http, spec }
    }

    #[test]
    fn a_plan_names_every_offer_once_and_every_field_that_differs() {
        let desired = [
            item("new", json!({"path": "/new"})),
            item("same", json!({"path": "/same", "limits": {}})),
            item("broken", Value::Null),
            item("edited", json!({"payment": {"price": {"perRequest": "0.002"}}, "facilitators": ["https://a.example"]})),
        ];
        let observed = [
            item(
                "edited",
                json!({"payment": {"price": {"perRequest": "0.001"}}, "hostname": "a.example", "facilitators": ["https://a.example"]}),
            ),
            item("gone", json!({"path": "/gone"})),
            item("broken", json!({"path": "/broken"})),
            item("same", json!({"limits": {}, "path": "/same"})),
        ];
        let plan = plan(&desired, &observed);
        let told: Vec<String> = plan
            .iter()
            .map(|change| {
                let value = |v: &Option<Value>| v.as_ref().map_or("-".to_owned(), Value::to_string);
                let fields: Vec<_> = change.fields.iter().map(|f| format!("{} {}>{}", f.field, value(&f.from), value(&f.to))).collect();
                format!("{} {:?} {}", change.name, change.action, fields.join(", "))
            })
            .collect();
        assert_eq!(
            told,
            [
                "broken None ",
                "edited Update spec.hostname \"a.example\">-, spec.payment.price.perRequest \"0.001\">\"0.002\"",
                "gone Delete spec.path \"/gone\">-",
                "new Create spec.path ->\"/new\"",
                "same None ",
            ]
        );
        assert!(self::plan(&desired, &desired[..1]).iter().any(|c| c.action == Action::Create));
    }

    #[test]
    fn a_plan_survives_json() {
        let plan = plan(&[item("a", json!({"x": [1, {"y": null}]}))], &[]);
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Vec<PlannedChange>>(&text).unwrap()[0].fields[0].field, "spec.x[0]");
        assert!(text.contains(r#""action":"create""#), "{text}");
    }
}
