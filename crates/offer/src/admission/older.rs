//! Fields of older `ServiceOffer`s that have no meaning here. What only adorns an offer is accepted,
//! ignored and named in the status; what promises buyers something is refused.

use serde_json::{Value, json};

use crate::{OfferSpec, Violation, rules::violation};

/// A field that only older objects have.
pub(super) struct Older {
    pub of: &'static str,
    pub field: &'static str,
    /// What the API server takes.
    kind: &'static str,
    pub refusal: Option<Refused>,
}

/// When a field is refused.
pub(super) struct Refused {
    /// Whether a value promises nothing.
    is_empty: fn(&Value) -> bool,
    /// The same as a rule on the field.
    pub cel: &'static str,
    pub message: &'static str,
    fix: &'static str,
}

const fn ignored(of: &'static str, field: &'static str, kind: &'static str) -> Older {
    Older { of, field, kind, refusal: None }
}

pub(super) const OLDER: &[Older] = &[
    ignored("OfferSpec", "listing", "object"),
    ignored("OfferSpec", "branding", "object"),
    ignored("OfferSpec", "provenance", "object"),
    ignored("RegistrationSpec", "image", "string"),
    ignored("RegistrationSpec", "services", "objects"),
    ignored("RegistrationSpec", "supportedTrust", "strings"),
    ignored("RegistrationSpec", "skills", "strings"),
    ignored("RegistrationSpec", "domains", "strings"),
    ignored("RegistrationSpec", "metadata", "object"),
    ignored("RouteSpec", "summary", "string"),
    Older {
        of: "OfferSpec",
        field: "async",
        kind: "async",
        refusal: Some(Refused {
            is_empty: |value| value.get("enabled") != Some(&Value::Bool(true)),
            cel: "!has(self.enabled) || !self.enabled",
            message: "answers are given in the same exchange; jobs are not sold",
            fix: "remove `async`",
        }),
    },
    Older {
        of: "RouteSpec",
        field: "methods",
        kind: "strings",
        refusal: Some(Refused {
            is_empty: |value| value.as_array().is_none_or(Vec::is_empty),
            cel: "self.size() == 0",
            message: "a route holds for every method",
            fix: "remove `methods`",
        }),
    },
    Older {
        of: "RouteSpec",
        field: "freeQuota",
        kind: "integer",
        refusal: Some(Refused {
            is_empty: |value| value.as_u64().is_none_or(|quota| quota == 0),
            cel: "self == 0",
            message: "there are no free requests on a paid route",
            fix: "remove `freeQuota`",
        }),
    },
];

impl Older {
    pub(super) fn schema(&self) -> Value {
        let texts = json!({ "type": "string", "maxLength": 64 });
        let mut schema = match self.kind {
            "string" => json!({ "type": "string", "maxLength": 1024 }),
            "strings" => json!({ "type": "array", "maxItems": 64, "items": texts }),
            "integer" => json!({ "type": "integer", "minimum": 0 }),
            "objects" => {
                json!({ "type": "array", "maxItems": 64, "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } })
            }
            "async" => {
                json!({ "type": "object", "properties": { "enabled": { "type": "boolean" } }, "x-kubernetes-preserve-unknown-fields": true })
            }
            _ => json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }),
        };
        if let Value::Object(schema) = &mut schema {
            let told = if self.refusal.is_some() { "Of older objects; refused unless it is empty." } else { "Of older objects; ignored." };
            schema.insert("description".to_owned(), json!(told));
        }
        schema
    }
}

/// Reads `spec` as an API server hands it out: current fields strictly, older ones by their table.
/// Beside the spec: the older fields that are ignored, such as `spec.branding`.
///
/// # Errors
/// Older fields that are refused, or else the first field that cannot be read.
pub fn read_spec(spec: &Value) -> Result<(OfferSpec, Vec<String>), Vec<Violation>> {
    let mut spec = spec.clone();
    let (mut ignored, mut refused) = (Vec::new(), Vec::new());
    take("OfferSpec", "spec", &mut spec, &mut ignored, &mut refused);
    if let Some(registration) = spec.get_mut("registration") {
        take("RegistrationSpec", "spec.registration", registration, &mut ignored, &mut refused);
    }
    for (index, route) in spec.get_mut("routes").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        take("RouteSpec", &format!("spec.routes[{index}]"), route, &mut ignored, &mut refused);
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    match serde_json::from_value(spec) {
        Ok(spec) => Ok((spec, ignored)),
        Err(error) => Err(vec![violation("unreadable", "spec", error.to_string(), "see `kubectl explain serviceoffers.spec`")]),
    }
}

fn take(of: &str, at: &str, value: &mut Value, ignored: &mut Vec<String>, refused: &mut Vec<Violation>) {
    let Value::Object(fields) = value else { return };
    for older in OLDER.iter().filter(|older| older.of == of) {
        let Some(value) = fields.remove(older.field) else { continue };
        let at = format!("{at}.{}", older.field);
        match &older.refusal {
            Some(rule) if !(rule.is_empty)(&value) => refused.push(violation("older_field", at, rule.message, rule.fix)),
            _ => ignored.push(at),
        }
    }
}
