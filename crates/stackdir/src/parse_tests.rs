//! What people see when a file is wrong: file, line, column, rule and fix.

use std::{fmt::Write, path::Path};

use obol_offer::OfferKind;
use proptest::prelude::*;

use crate::{BackendKind, Ingress, parse_offer, parse_stack, slice_tests::name};

const FILE: &str = "applications/sell-http/weather/values-offer.yaml";
const GOOD: &str = "\
# Weather for a city.
name: weather
spec:
  type: http
  upstream:
    url: http://127.0.0.1:9000   # the service itself
  payment:
    network: base-sepolia
    payTo: 0x209693Bc6afc0C5328bA36FaF03C514EF312287C
    price: { perRequest: \"0.001\" }
  routes:
    - path: /docs/*
      gate: free
";

fn report(text: &str) -> String {
    let found = parse_offer(text, Path::new(FILE), OfferKind::Http, &name("weather"));
    let diagnostics = found.expect_err("the file is broken");
    assert!(!diagnostics.is_empty());
    diagnostics.iter().fold(String::new(), |mut out, diagnostic| {
        writeln!(out, "{}", diagnostic.to_string().replace("applications/sell-http/weather/", "")).unwrap();
        out
    })
}

/// `GOOD` with one thing replaced.
fn with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    GOOD.replace(old, new)
}

#[test]
fn the_good_file_is_good() {
    for text in [GOOD.to_owned(), GOOD.replace('\n', "\r\n"), format!("\u{feff}---\n{GOOD}...\n")] {
        let (spec, offer) = parse_offer(&text, Path::new(FILE), OfferKind::Http, &name("weather")).unwrap();
        assert_eq!(spec.payment.unwrap().price.per_request.as_deref(), Some("0.001"));
        assert_eq!(offer.payments[0].terms.amount.to_string(), "1000");
    }
}

#[test]
fn every_mistake_has_its_place_and_its_fix() {
    let address = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";
    let broken = [
        ("price without quotes", with("\"0.001\"", "0.001")),
        ("price in another notation", with("\"0.001\"", "\"1e-3\"")),
        ("price with too many decimals", with("\"0.001\"", "\"0.0000001\"")),
        ("metered price without quotes", with("perRequest: \"0.001\"", "perMTok: 0.15")),
        ("price per token without a model", with("perRequest", "perMTok")),
        ("price per unit without a maximum", with("perRequest", "perUnit")),
        ("price by time", with("perRequest", "perHour")),
        (
            "model with a bad field",
            with("  type: http", "  type: inference\n  model: {name: llama, maxTokens: 0, runtime: llama.cpp, upstream: x}"),
        ),
        ("key in a model", with("  type: http", "  type: http\n  model: {name: llama, credential: sk-1234}")),
        ("unknown field, nearly right", with("payTo", "payto")),
        ("unknown field, far off", with("  type: http", "  colour: red")),
        ("two mistakes at once", with("base-sepolia", "base-seplia").replace("/docs/*", "docs")),
        ("unknown word", with("gate: free", "gate: freee")),
        ("address with a typo", with(address, "0x209693Bc6afc0C5328bA36FaF03C514EF312287D")),
        ("reserved path", with("  type: http", "  type: http\n  path: /api/x")),
        ("missing payment", GOOD.split("  payment:").next().unwrap().to_owned()),
        ("missing network", with("    network: base-sepolia\n", "")),
        ("missing spec", "name: weather\n".to_owned()),
        ("another name", with("name: weather", "name: wether")),
        ("another kind", with("type: http", "type: inference")),
        ("port as text", with("url: http://127.0.0.1:9000 ", "host: { port: \"9000\" }")),
        ("port out of range", with("url: http://127.0.0.1:9000 ", "host: { port: 99999 }")),
        ("port in octal", with("url: http://127.0.0.1:9000 ", "host: { port: 0755 }")),
        ("value where fields belong", with("price: { perRequest: \"0.001\" }", "price: \"0.001\"")),
        ("fields where a value belongs", with("network: base-sepolia", "network:\n      name: base-sepolia")),
        ("list where fields belong", with("url: http", "- url: http")),
        ("no value", with(" base-sepolia", "")),
        ("key twice", with("  type: http\n", "  type: http\n  type: http\n")),
        ("tab as indentation", with("    network", "\tnetwork")),
        ("bad indentation", with("    network", "      network")),
        ("open quote", with("\"0.001\" }", "\"0.001 }")),
        ("anchor and alias", with("gate: free", "gate: &a free\n    - path: /x\n      gate: *a")),
        ("unknown alias", with("gate: free", "gate: *nobody")),
        ("merge key", with("  type: http", "  <<: { type: http }")),
        ("tag", with("\"0.001\"", "!!str 0.001")),
        ("two documents", format!("{GOOD}---\n{GOOD}")),
        ("directive", format!("%YAML 1.1\n---\n{GOOD}")),
        ("template", with("base-sepolia", "{{ .Values.network }}")),
        ("complex key", with("  type: http", "  ? [a, b]\n  : c")),
        ("empty", String::new()),
        ("only comments", "# nothing here\n".to_owned()),
        ("no mapping", "- a\n- b\n".to_owned()),
        ("one word", "weather\n".to_owned()),
        ("control character", with("weather", "wea\u{0}ther")),
        ("too deep", format!("name: {}1{}\n", "[".repeat(200), "]".repeat(200))),
        ("too big", format!("{GOOD}# {}\n", "x".repeat(256 * 1024))),
    ];
    let mut out = String::new();
    for (title, text) in broken {
        writeln!(out, "== {title}\n{}", report(&text)).unwrap();
    }
    insta::assert_snapshot!(out);
}

#[test]
fn the_stacks_own_file_has_places_and_fixes_too() {
    let broken = [
        "id: My Shop\nbackend: kubernetes\nlisten: localhost\nadmin: 127.0.0.1:8402\n",
        "id: shop\nbackend: docker\nlisten: 127.0.0.1:9402\n",
        "id: shop\npublicUrl: shop.example\nlimits:\n  challengeRate: many\n  maxConections: 10\n",
        "id: shop\npublicUrl: https://me:pw@shop.example/?a\n",
        "id: shop\ndefaults:\n  payTo: \"0x12\"\n  network: base-seplia\n  facilitators:\n    - http://shop.example\n",
        "backend: standalone\n",
        "id: shop\nbackend: k3d\ncontext: prod\n",
        "id: shop\nbackend: kubernetes\ncontext: prod\ningress:\n  install: false\n  section: Web\n",
        "id: shop\nbackend: kubernetes\ncontext: prod\ningress:\n  gateway: my-gateway\n",
        "id: shop\nbackend: kubernetes\ncontext: prod\ningress:\n  gateway: infra/shared\n",
    ];
    let mut out = String::new();
    for text in broken {
        for diagnostic in parse_stack(text, Path::new("stack.yaml")).expect_err("the file is broken") {
            writeln!(out, "{diagnostic}").unwrap();
        }
        out.push('\n');
    }
    insta::assert_snapshot!(out);
}

#[test]
fn the_smallest_stack_file_is_enough() {
    let config = parse_stack("id: shop\nlimits: { challengeRate: 5, maxExposure: 20 }\n", Path::new("stack.yaml")).unwrap();
    assert_eq!((config.listen.to_string().as_str(), config.admin.to_string().as_str()), ("127.0.0.1:8402", "127.0.0.1:9402"));
    assert_eq!((config.limits.challenge_rate, config.limits.max_exposure), (Some(5), Some(20)));
}

#[test]
fn a_cluster_is_named_and_its_gateway_may_be_ones_own() {
    let text = "id: shop\nbackend: kubernetes\ncontext: prod\ningress: {install: false, gateway: infra/shared}\n";
    let config = parse_stack(text, Path::new("stack.yaml")).unwrap();
    assert_eq!((config.backend, config.context.as_deref()), (BackendKind::Kubernetes, Some("prod")));
    let expected = Ingress { install: false, gateway: ("infra".to_owned(), "shared".to_owned()), section: None };
    assert_eq!(config.ingress, expected);
    assert_eq!(parse_stack("id: shop\n", Path::new("stack.yaml")).unwrap().ingress.section.as_deref(), Some("web"));
}

proptest! {
    /// Nothing that can stand in a file makes the parser panic, and whatever is refused says why.
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        prop_assert!(parse_offer(&text, Path::new(FILE), OfferKind::Http, &name("weather")).err().is_some_and(|found| !found.is_empty()));
    }

    /// A good file with a few bytes changed: never a panic, and places are inside the file.
    #[test]
    fn mutilated_files_are_read_or_refused(edits in prop::collection::vec((0..GOOD.len(), prop::sample::select(vec!["", " ", "\n", "\t", ":", "- ", "#", "\"", "'", "{", "}", "[", "]", "&a ", "*a", "|", ">", "!", "%", "?", ",", "\0", "é", "\r", "---\n"]), 0..4_usize), 1..4)) {
        let mut text = GOOD.to_owned();
        for (at, new, cut) in edits {
            let at = at.min(text.len());
            let end = (at + cut).min(text.len());
            if text.is_char_boundary(at) && text.is_char_boundary(end) {
                text.replace_range(at..end, new);
            }
        }
        let lines = u32::try_from(text.lines().count()).unwrap() + 1;
        for found in parse_offer(&text, Path::new(FILE), OfferKind::Http, &name("weather")).err().unwrap_or_default() {
            prop_assert!(found.line <= lines, "{found} in {lines} lines");
            prop_assert!(!found.code.is_empty() && !found.message.is_empty() && !found.fix.is_empty());
        }
    }
}
