use serde_json::{Value, json};

use super::{rules::rules, *};
use crate::{Offer, OfferName};

fn places<'a>(schema: &'a Value, at: &str, visit: &mut dyn FnMut(&str, &'a Value)) {
    visit(at, schema);
    for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        places(inner, &format!("{at}.{name}"), visit);
    }
    if let Some(items) = schema.get("items") {
        places(items, &format!("{at}[]"), visit);
    }
}

fn spec() -> &'static Value {
    static CRD: std::sync::LazyLock<Value> = std::sync::LazyLock::new(crd);
    &CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
}

#[test]
fn every_place_has_one_type_and_every_text_and_list_a_bound() {
    let mut count = 0;
    places(spec(), "spec", &mut |at, schema| {
        count += 1;
        let kind = schema["type"].as_str().unwrap_or_else(|| panic!("{at} has no type: {schema}"));
        if kind == "string" && schema.get("enum").is_none() {
            assert!(schema.get("maxLength").is_some(), "{at} has no bound");
        }
        if kind == "array" {
            assert!(schema.get("maxItems").is_some(), "{at} has no bound");
        }
        for word in ["$ref", "oneOf", "anyOf", "const", "format", "additionalProperties"] {
            assert!(schema.get(word).is_none(), "{at} has {word}");
        }
    });
    assert!(count > 50, "{count}");
}

#[test]
fn every_rule_finds_its_place() {
    let mut attached = 0;
    // `PaymentSpec` and what is below it stand at `payment` and at `payments`.
    places(spec(), "spec", &mut |at, schema| {
        if !at.starts_with("spec.payments[]") {
            attached += schema.get("x-kubernetes-validations").and_then(Value::as_array).map_or(0, Vec::len);
        }
    });
    assert_eq!(attached, rules().len());
}

/// Every code that the checks use has a rule, or is told by the schema's own words.
#[test]
fn every_check_is_told_to_the_api_server() {
    let sources = [
        include_str!("../rules/bounds.rs"),
        include_str!("../rules/model.rs"),
        include_str!("../rules/payment.rs"),
        include_str!("../rules/price.rs"),
        include_str!("../rules/place.rs"),
        include_str!("../rules/upstream.rs"),
    ];
    let told: std::collections::BTreeSet<&str> = rules().iter().map(|rule| rule.code).collect();
    // `upstream_credentials` is the shape of a URL; `routes` is a bound.
    let otherwise = ["upstream_credentials", "routes"];
    let mut seen = 0;
    for source in sources {
        let calls = source.split("self.refuse(").skip(1).chain(source.split("self.address(").skip(1));
        for code in calls.filter_map(|call| {
            call.split(')').next()?.split('"').find(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !word.is_empty())
        }) {
            seen += 1;
            assert!(told.contains(code) || otherwise.contains(&code), "the API server is not told of `{code}`");
        }
    }
    assert!(seen > 40, "{seen}");
    // And nothing is refused there that is accepted here.
    for code in told.iter().filter(|code| !["older_field"].contains(code)) {
        assert!(sources.iter().any(|source| source.contains(&format!("\"{code}\""))), "no check refuses `{code}`");
    }
}

#[test]
fn the_definition_in_the_chart_is_the_generated_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/obol-crds/templates/serviceoffer.yaml");
    let committed = std::fs::read_to_string(file).unwrap();
    assert!(committed == crd_yaml(), "run `cargo xtask crd`");
    // Helm reads it as a template.
    assert!(!committed.contains("{{"));
}

/// Objects as the predecessor's command line and users wrote them.
fn older(spec: Value) -> Result<(Vec<String>, Vec<String>), Vec<String>> {
    let told = |violations: Vec<crate::Violation>| violations.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (read, ignored) = read_spec(&spec).map_err(told)?;
    let name: OfferName = "older".parse().unwrap();
    let offer = Offer::validate(&name, &read).map_err(told)?;
    // What is read can be written, and reads the same.
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(read_spec(&written).unwrap(), (read, Vec::new()));
    Ok((vec![offer.price()], ignored))
}

fn plain() -> Value {
    json!({
        "type": "http",
        "upstream": { "service": "quant", "namespace": "default", "port": 8080, "healthPath": "/health" },
        "payment": {
            "scheme": "exact", "network": "base-sepolia", "payTo": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
            "maxTimeoutSeconds": 300, "price": { "perRequest": "0.001" }
        },
        "path": "/services/quant"
    })
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut spec = plain();
    change(&mut spec);
    spec
}

#[test]
fn older_objects_stay_readable() {
    let price = |prices: &[&str]| prices.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
    assert_eq!(older(plain()), Ok((price(&["0.001 USDC"]), vec![])));
    let several = with(|spec| {
        spec["payments"] =
            json!([spec["payment"], { "network": "base", "payTo": spec["payment"]["payTo"], "price": { "perRequest": "0.002" } }]);
    });
    assert_eq!(older(several), Ok((price(&["0.001 USDC, 0.002 USDC"]), vec![])));
    let adorned = with(|spec| {
        spec["branding"] = json!({ "displayName": "Quant", "theme": "dark" });
        spec["listing"] = json!({ "weight": 3, "category": "finance" });
        spec["provenance"] = json!({ "framework": "vllm" });
        spec["registration"] =
            json!({ "enabled": true, "name": "Quant", "description": "Numbers", "skills": ["math"], "metadata": { "a": "b" } });
        spec["routes"] = json!([{ "path": "/docs/*", "gate": "free", "summary": "What there is", "methods": [], "freeQuota": 0 }]);
        spec["async"] = json!({ "enabled": false, "ttl": "72h" });
        spec["limits"] = json!({ "maxInFlight": 4, "rps": 10 });
        spec["drainAt"] = json!("2026-05-01T00:00:00Z");
        spec["drainGracePeriod"] = json!("1h0m0s");
    });
    let ignored = [
        "spec.listing",
        "spec.branding",
        "spec.provenance",
        "spec.async",
        "spec.registration.skills",
        "spec.registration.metadata",
        "spec.routes[0].summary",
        "spec.routes[0].methods",
        "spec.routes[0].freeQuota",
    ];
    assert_eq!(older(adorned), Ok((price(&["0.001 USDC"]), price(&ignored))));
}

#[test]
fn what_an_older_object_promised_and_cannot_be_kept_is_refused() {
    let refused = |change: fn(&mut Value)| older(with(change)).unwrap_err();
    let methods = refused(|spec| spec["routes"] = json!([{ "path": "/x", "methods": ["POST"], "gate": "free" }]));
    assert_eq!(methods, ["spec.routes[0].methods: a route holds for every method (older_field); remove `methods`"]);
    let quota = refused(|spec| spec["routes"] = json!([{ "path": "/x", "freeQuota": 5 }]));
    assert!(quota[0].starts_with("spec.routes[0].freeQuota"), "{quota:?}");
    assert!(refused(|spec| spec["async"] = json!({ "enabled": true }))[0].starts_with("spec.async"));
    assert!(refused(|spec| spec["type"] = json!("agent"))[0].contains("agent"));
    assert!(refused(|spec| spec["routes"] = json!([{ "path": "/x", "gate": "auth" }]))[0].contains("auth"));
    assert!(refused(|spec| spec["maxInflight"] = json!(3))[0].contains("maxInflight"));
}
