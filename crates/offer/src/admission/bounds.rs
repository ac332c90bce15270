//! How long texts and lists may be. The API server needs such bounds to know what its rules cost at
//! most; the same numbers bound what is read from files.

use std::sync::LazyLock;

use serde_json::Value;

use super::schema;
use crate::{OfferSpec, Violation};

/// Most characters of a text, by type and field. For a list of texts: of each of them.
pub(super) const TEXTS: &[(&str, &str, usize)] = &[
    ("OfferSpec", "facilitators", 512),
    ("OfferSpec", "path", 512),
    ("OfferSpec", "hostname", 253),
    ("OfferSpec", "drainAt", 40),
    ("OfferSpec", "drainGracePeriod", 20),
    ("UpstreamSpec", "url", 1024),
    ("UpstreamSpec", "service", 253),
    ("UpstreamSpec", "namespace", 253),
    ("UpstreamSpec", "healthPath", 512),
    ("PaymentSpec", "network", 32),
    ("PaymentSpec", "payTo", 42),
    ("AssetSpec", "address", 42),
    ("AssetSpec", "symbol", 16),
    ("AssetSpec", "eip712Name", 128),
    ("AssetSpec", "eip712Version", 16),
    ("PriceSpec", "perRequest", MAX_PRICE),
    ("PriceSpec", "perMTok", MAX_PRICE),
    ("PriceSpec", "perMTokOutput", MAX_PRICE),
    ("PriceSpec", "perUnit", MAX_PRICE),
    ("PriceSpec", "unit", 32),
    ("PriceSpec", "perHour", MAX_PRICE),
    ("PriceSpec", "perEpoch", MAX_PRICE),
    ("ModelSpec", "name", 256),
    ("ModelSpec", "upstreamName", 256),
    ("ModelSpec", "firstTokenTimeout", 20),
    ("ModelSpec", "tokenTimeout", 20),
    ("ModelSpec", "credential", 512),
    ("RouteSpec", "path", 512),
    ("RouteSpec", "price", MAX_PRICE),
    ("RegistrationSpec", "name", 128),
    ("RegistrationSpec", "description", 1024),
    ("RegistrationSpec", "mimeType", 128),
];

/// Most entries of a list, by type and field.
pub(super) const LISTS: &[(&str, &str, usize)] =
    &[("OfferSpec", "facilitators", 16), ("OfferSpec", "payments", 16), ("OfferSpec", "routes", 128)];

/// Digits of a price: with [`MAX_DECIMALS`] it always fits 200 bits of atomic units.
const MAX_PRICE: usize = 36;
/// Decimals of an asset.
pub(crate) const MAX_DECIMALS: u8 = 24;

/// Everything in `spec` that is longer than it may be.
pub(crate) fn check(spec: &OfferSpec) -> Vec<Violation> {
    static SCHEMA: LazyLock<Value> = LazyLock::new(schema::bare);
    let mut found = Vec::new();
    walk("spec", &serde_json::to_value(spec).unwrap_or_default(), &SCHEMA, &mut found);
    found
}

fn walk(at: &str, value: &Value, schema: &Value, found: &mut Vec<Violation>) {
    let mut refuse = |what: &str, most: u64| {
        let violation = crate::rules::violation("too_long", at, format!("has more than {most} {what}"), "make it shorter");
        found.push(violation);
    };
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64).unwrap_or(u64::MAX);
    match value {
        Value::String(text) if text.chars().count() as u64 > bound("maxLength") => refuse("characters", bound("maxLength")),
        Value::Array(items) if items.len() as u64 > bound("maxItems") => refuse("entries", bound("maxItems")),
        Value::Array(items) => {
            let Some(of_items) = schema.get("items") else { return };
            items.iter().enumerate().for_each(|(index, item)| walk(&format!("{at}[{index}]"), item, of_items, found));
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(schema) = schema.get("properties").and_then(|all| all.get(name)) {
                    walk(&format!("{at}.{name}"), value, schema, found);
                }
            }
        }
        _ => {}
    }
}
