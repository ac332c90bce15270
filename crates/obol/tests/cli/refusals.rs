//! Every bad value is refused with code, sentence, place and fix, before anything is written.

use std::{fmt::Write as _, fs};

use crate::{
    golden,
    support::{SELLER, Stack},
};

/// Runs `sell http` in a tree with the offer `weather`; each run must be refused and change nothing.
fn refused(cases: &[&[&str]]) -> String {
    let stack = Stack::with_offer();
    let before = stack.tree();
    let mut shown = String::new();
    for case in cases {
        let run = stack.run(&[&["sell", "http"], *case].concat());
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{case:?}: {}", run.stderr);
        assert_eq!(stack.tree(), before, "{case:?} changed the tree");
        writeln!(shown, "$ obol sell http {}\n{}", case.join(" "), run.stderr).unwrap();
    }
    shown
}

/// A fresh offer that is right but for what is added.
const GOOD: [&str; 5] = ["rain", "--upstream", "http://localhost:9001", "--price", "0.001"];

fn one_bad_flag(flag: &str, values: &[&str]) -> String {
    let cases: Vec<Vec<&str>> = values.iter().map(|value| [&GOOD[..], &[flag, value]].concat()).collect();
    refused(&cases.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

#[test]
fn names() {
    let bad = ["Rain", "-rain-", "rain_er", "../rain", "räin", "a.b", "", &"a".repeat(54)];
    let cases: Vec<Vec<&str>> = bad.iter().map(|name| [&["--upstream", "http://a", "--price", "1", "--"][..], &[name]].concat()).collect();
    golden!("refused-names", refused(&cases.iter().map(Vec::as_slice).collect::<Vec<_>>()));
}

#[test]
fn prices() {
    let new = |price: &'static str| ["rain", "--upstream", "http://localhost:9001", "--price", price];
    let cases = ["0", "-1", "1e3", "0.0000001", "1,5", "free", ""].map(new);
    let missing: &[&str] = &["rain", "--upstream", "http://localhost:9001"];
    let cases: Vec<&[&str]> = cases.iter().map(|case| case.as_slice()).chain([missing]).collect();
    golden!("refused-prices", refused(&cases));
}

#[test]
fn addresses() {
    let zero = format!("0x{}", "0".repeat(40));
    let mistyped = SELLER.replace("3C44C", "3c44C");
    golden!("refused-addresses", one_bad_flag("--pay-to", &["0x12", "alice.eth", &zero, &mistyped]));
}

#[test]
fn networks() {
    golden!("refused-networks", one_bad_flag("--network", &["basee", "eip155:99999999", "solana"]));
}

#[test]
fn paths() {
    let reserved = ["/", "/services", "/api/x", "/openapi.json", "/skill.md", "/rpc", "/.well-known/x402"];
    let ambiguous = ["rain", "/a//b", "/a/../b", "/a/", "/a%2fb", "/a b", "/a\\b"];
    golden!("refused-paths", one_bad_flag("--path", &[&reserved[..], &ambiguous[..]].concat()));
}

#[test]
fn hostnames() {
    golden!("refused-hostnames", one_bad_flag("--hostname", &["Rain.example", "rain.example:80", "*.example", "a..b"]));
}

#[test]
fn upstreams() {
    let new = |url: &'static str| ["rain", "--price", "1", "--upstream", url];
    let cases = ["localhost:9001", "ftp://a", "http://u:p@a", "http://a?x=1", "http://localhost:0", "nonsense"].map(new);
    let missing: &[&str] = &["rain", "--price", "1"];
    let cases: Vec<&[&str]> = cases.iter().map(|case| case.as_slice()).chain([missing]).collect();
    golden!("refused-upstreams", refused(&cases));
}

#[test]
fn other_flags() {
    let mut shown = one_bad_flag("--facilitator", &["http://f.example", "f.example"]);
    shown += &one_bad_flag("--route", &["/health", "path=/health,gate=open", "gate=free", "path=health", "path=/x,gate=free,price=1"]);
    shown += &one_bad_flag("--max-timeout", &["5"]);
    shown += &one_bad_flag("--rps", &["0"]);
    shown += &one_bad_flag("--health-path", &["health"]);
    shown += &one_bad_flag("--description", &["two\nlines"]);
    golden!("refused-flags", shown);
}

#[test]
fn several_payments() {
    let base: &[&str] = &["rain", "--upstream", "http://localhost:9001"];
    let with = |more: &[&'static str]| [base, more].concat();
    let cases = [
        with(&["--accept", "network=base,prize=1"]),
        with(&["--accept", "network=base,price=1", "--network", "polygon"]),
        with(&["--accept", "network=base,price=1", "--accept", "network=base,price=2"]),
        with(&["--accept", "network=base,price=1", "--accept", "network=obol-sandbox,price=2"]),
        with(&["--accept", "network=base,price=1", "--accept", "network=polygon"]),
    ];
    golden!("refused-accepts", refused(&cases.iter().map(Vec::as_slice).collect::<Vec<_>>()));
}

#[test]
fn collisions() {
    let cases: [&[&str]; 1] = [&["rain", "--upstream", "http://localhost:9001", "--price", "1", "--path", "/services/weather"]];
    golden!("refused-collisions", refused(&cases));
    let stack = Stack::with_offer();
    let folder = stack.path("config/applications/sell-inference");
    fs::create_dir_all(&folder).unwrap();
    fs::rename(stack.path("config/applications/sell-http/weather"), folder.join("weather")).unwrap();
    let run = stack.run(&["sell", "http", "weather", "--upstream", "http://localhost:1", "--price", "1", "-o", "json"]);
    assert_eq!((run.code, run.error_code()), (2, "name_taken".to_owned()));
}

#[test]
fn everything_is_told_at_once() {
    let cases: [&[&str]; 1] = [&["Rain!", "--upstream", "ftp://a", "--price", "0", "--path", "/api", "--rps", "0", "--pay-to", "me"]];
    golden!("refused-all-at-once", refused(&cases));
    let stack = Stack::with_offer();
    let args = ["sell", "http", "rain", "--upstream", "ftp://a", "--price", "0", "--output", "json"];
    golden!("refused-json", stack.run(&args).shown());
}

#[test]
fn what_is_missing_names_both_ways_to_give_it() {
    let stack = Stack::empty();
    let run = stack.run(&["sell", "http", "rain", "--upstream", "http://localhost:9001", "--price", "1"]);
    golden!("refused-missing", run.shown());
    assert!(!stack.path("config").exists(), "a refused command made a stack");
}

#[test]
fn from_json() {
    let spec = r#"{"upstream":{"host":{"port":9000}},"payment":{"network":"base","payTo":"SELLER","price":{"perRequest":"1"}}}"#
        .replace("SELLER", SELLER);
    let manifest =
        |name: &str| format!(r#"{{"apiVersion":"obol.org/v1alpha1","kind":"ServiceOffer","metadata":{{"name":"{name}"}},"spec":{spec}}}"#);
    let cases = [
        ("rain", "{".to_owned()),
        ("rain", "[]".to_owned()),
        ("rain", r#"{"kind":"List","items":[]}"#.to_owned()),
        ("rain", manifest("snow")),
        ("rain", manifest("rain").replace("v1alpha1", "v2")),
        ("rain", spec.replace("9000", "\"9000\"")),
        ("rain", spec.replace("payTo", "payto")),
        ("rain", spec.replace("{\"upstream\"", "{\"type\":\"inference\",\"upstream\"")),
        ("", spec.clone()),
        ("", manifest("Rain")),
        ("rain", " ".repeat(2 << 20)),
    ];
    let stack = Stack::with_offer();
    let before = stack.tree();
    let mut shown = String::new();
    for (name, json) in &cases {
        let name: &[&str] = if name.is_empty() { &[] } else { &[name] };
        let run = stack.run_stdin(&[&["sell", "http"], name, &["--from-json", "-"]].concat(), json);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{json}: {}", run.stderr);
        assert_eq!(stack.tree(), before, "{json} changed the tree");
        writeln!(shown, "$ {}\n{}", json.trim_start().chars().take(200).collect::<String>(), run.stderr).unwrap();
    }
    golden!("refused-from-json", shown);
    let run = stack.run(&["sell", "http", "rain", "--from-json", "missing.json", "-o", "json"]);
    assert_eq!((run.code, run.error_code()), (1, "io".to_owned()));
}

#[test]
fn offers_that_are_not_there() {
    let stack = Stack::with_offer();
    for verb in
        [&["status", "rain"][..], &["edit", "rain"], &["stop", "rain"], &["start", "rain"], &["delete", "rain", "--yes"], &["test", "rain"]]
    {
        let run = stack.run(&[&["sell"], verb, &["-o", "json"]].concat());
        assert_eq!((run.code, run.error_code()), (1, "offer_unknown".to_owned()), "{verb:?}");
    }
    golden!("refused-unknown-offer", stack.run(&["sell", "delete", "../../etc", "--yes"]).shown());
}

#[test]
fn a_program_must_say_yes() {
    let stack = Stack::with_offer();
    let before = stack.tree();
    golden!("refused-delete", stack.run(&["sell", "delete", "weather"]).shown());
    assert_eq!(stack.tree(), before);
}

#[test]
fn the_defaults_of_the_stack() {
    let stack = Stack::new();
    let before = stack.tree();
    let mut shown = String::new();
    for flags in [["--network", "basee"], ["--pay-to", "0x12"], ["--facilitator", "http://f.example"], ["--public-url", "shop"]] {
        let run = stack.run(&[&["stack", "init"], &flags[..]].concat());
        assert_eq!(run.code, 2, "{flags:?}: {}", run.stderr);
        assert_eq!(stack.tree(), before, "{flags:?}");
        writeln!(shown, "$ obol stack init {}\n{}", flags.join(" "), run.stderr).unwrap();
    }
    golden!("refused-stack-init", shown);
}

#[test]
fn payments_that_cannot_be_begun() {
    let stack = Stack::empty();
    let code = |args: &[&str]| {
        let run = stack.run(&[&["pay"], args, &["-o", "json"]].concat());
        (run.code, run.error_code())
    };
    assert_eq!(code(&["http://localhost:1"]), (2, "key_missing".into()));
    assert_eq!(code(&["localhost:1"]), (2, "url".into()));
    assert_eq!(code(&["http://localhost:1", "--max", "0"]), (2, "max".into()));
    assert_eq!(code(&["http://localhost:1", "--network", "basee"]), (2, "network_unknown".into()));
    assert_eq!(code(&["http://localhost:1", "--header", "nonsense"]), (2, "header".into()));
    assert_eq!(code(&["http://localhost:1", "--method", "GET IT"]), (2, "method".into()));
    assert_eq!(code(&["http://localhost:1", "--data", "@missing"]), (1, "io".into()));
    assert_eq!(code(&["http://localhost:1", "--dry-run"]), (1, "unreachable".into()));
    let key = stack.path("key");
    fs::write(&key, "0x12").unwrap();
    assert_eq!(code(&["http://localhost:1", "--key-file", key.to_str().unwrap()]), (2, "wallet_exposed".into()));
}
