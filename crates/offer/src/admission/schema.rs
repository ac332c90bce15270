//! The structural schema that the API server takes, from the JSON schema of the Rust types.

use serde_json::{Map, Value, json};

use super::{
    bounds::{LISTS, TEXTS},
    older::OLDER,
    rules::{Rule, rules},
};
use crate::OfferSpec;

/// Schema of `spec` with every bound, and nothing else that is ours.
pub(super) fn bare() -> Value {
    spec_schema(bound)
}

/// Schema of `spec` with bounds, rules and the older fields.
pub(super) fn full() -> Value {
    let rules = rules();
    spec_schema(|name, schema| {
        for older in OLDER.iter().filter(|older| older.of == name) {
            if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
                properties.insert(older.field.to_owned(), older.schema());
            }
        }
        bound(name, schema);
        rules.iter().filter(|rule| rule.of == name).for_each(|rule| attach(rule, schema));
    })
}

fn spec_schema(decorate: impl Fn(&str, &mut Value)) -> Value {
    let mut root = schemars::schema_for!(OfferSpec).to_value();
    let mut types = match root.get_mut("$defs").map(Value::take) {
        Some(Value::Object(types)) => types,
        _ => Map::new(),
    };
    types.insert("OfferSpec".to_owned(), root);
    types.iter_mut().for_each(|(name, schema)| decorate(name, schema));
    types.get("OfferSpec").map(|root| structural(root, &types)).unwrap_or_default()
}

/// Puts a rule where it belongs: on its type, its field, or each entry of its field.
fn attach(rule: &Rule, schema: &mut Value) {
    let place = match rule.field {
        None => Some(schema),
        Some(field) => schema.pointer_mut(&format!("/properties/{}", field.trim_end_matches("[]"))),
    };
    let place = if rule.field.is_some_and(|field| field.ends_with("[]")) { place.and_then(|list| list.get_mut("items")) } else { place };
    let Some(Value::Object(place)) = place else { return };
    let rules = place.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
    if let Value::Array(rules) = rules {
        rules.push(json!({ "rule": rule.cel, "message": rule.message }));
    }
}

fn bound(name: &str, schema: &mut Value) {
    let mut set = |field: &str, key: &str, most: usize| {
        let Some(property) = schema.pointer_mut(&format!("/properties/{field}")).and_then(Value::as_object_mut) else { return };
        match property.get_mut("items") {
            Some(Value::Object(items)) if key == "maxLength" => items.insert(key.to_owned(), json!(most)),
            _ => property.insert(key.to_owned(), json!(most)),
        };
    };
    TEXTS.iter().filter(|(of, ..)| *of == name).for_each(|(_, field, most)| set(field, "maxLength", *most));
    LISTS.iter().filter(|(of, ..)| *of == name).for_each(|(_, field, most)| set(field, "maxItems", *most));
}

/// What Kubernetes calls structural: no references, no unions, one type per place, fields that are
/// not named are dropped. <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>
fn structural(schema: &Value, types: &Map<String, Value>) -> Value {
    let Value::Object(schema) = schema else { return json!({}) };
    let mut merged = Map::new();
    let referred = schema.get("$ref").and_then(Value::as_str).and_then(|r| types.get(r.trim_start_matches("#/$defs/")));
    let option =
        schema.get("anyOf").and_then(Value::as_array).and_then(|any| any.iter().find(|one| one.get("type") != Some(&json!("null"))));
    for inner in [referred, option].into_iter().flatten() {
        if let Value::Object(inner) = structural(inner, types) {
            merged.extend(inner);
        }
    }
    for (key, value) in schema {
        let kept = match key.as_str() {
            "$ref" | "anyOf" | "$schema" | "title" | "$defs" | "additionalProperties" | "format" | "const" => continue,
            "default" if value.is_null() => continue,
            "oneOf" => {
                merged.insert("type".to_owned(), json!("string"));
                merged.insert("enum".to_owned(), variants(value));
                continue;
            }
            "type" => match value.as_array() {
                Some(any) => any.iter().find(|one| **one != json!("null")).cloned().unwrap_or_default(),
                None => value.clone(),
            },
            "enum" => Value::Array(value.as_array().into_iter().flatten().filter(|one| !one.is_null()).cloned().collect()),
            "properties" => {
                let properties = value.as_object().into_iter().flatten();
                Value::Object(properties.map(|(name, schema)| (name.clone(), structural(schema, types))).collect())
            }
            "items" => structural(value, types),
            _ => value.clone(),
        };
        merged.insert(key.clone(), kept);
    }
    // Kubernetes knows signed formats only; ours are told as bounds.
    let most = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => Some(u64::from(u8::MAX)),
        Some("uint16") => Some(u64::from(u16::MAX)),
        Some("uint32") => Some(u64::from(u32::MAX)),
        // The largest that every reader of JSON takes.
        Some("uint64") => Some((1 << 53) - 1),
        _ => None,
    };
    if let Some(most) = most {
        merged.insert("maximum".to_owned(), json!(most));
    }
    if merged.get("x-kubernetes-validations").is_some() && referred.is_some() {
        // Rules of the type and of the place both hold.
        let own = schema.get("x-kubernetes-validations").and_then(Value::as_array).cloned().unwrap_or_default();
        let of_type = referred.and_then(|r| r.get("x-kubernetes-validations")).and_then(Value::as_array).cloned().unwrap_or_default();
        merged.insert("x-kubernetes-validations".to_owned(), Value::Array(of_type.into_iter().chain(own).collect()));
    }
    Value::Object(merged)
}

/// The words of an enum whose variants are documented one by one.
fn variants(one_of: &Value) -> Value {
    let words = one_of.as_array().into_iter().flatten().flat_map(|one| match (one.get("const"), one.get("enum")) {
        (Some(word), _) => vec![word.clone()],
        (None, Some(Value::Array(words))) => words.clone(),
        _ => Vec::new(),
    });
    Value::Array(words.collect())
}
