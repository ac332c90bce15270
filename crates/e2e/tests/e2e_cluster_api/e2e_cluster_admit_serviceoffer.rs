//! The API server takes exactly the offers that the command line takes.

use obol_offer::{Offer, OfferName, admission::read_spec};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

use crate::apiserver::{ApiServer, offers};

const PAY_TO: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

fn plain() -> Value {
    json!({
        "type": "http",
        "upstream": { "url": "http://10.0.0.7:9000" },
        "payment": { "network": "base-sepolia", "payTo": PAY_TO, "price": { "perRequest": "0.001" } },
    })
}

fn pick(all: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::sample::select(all).prop_map(|text| json!(text))
}

/// One change of a spec: a field by its path, and a value that may or may not be allowed there.
fn mutation() -> impl Strategy<Value = (&'static str, Value)> {
    let text = |at: &'static str, all: &'static [&'static str]| pick(all).prop_map(move |value| (at, value)).boxed();
    let number = |at: &'static str, all: &'static [i64]| prop::sample::select(all).prop_map(move |n| (at, json!(n))).boxed();
    let free = |at: &'static str| "[ -~é\t]{0,24}".prop_map(move |text: String| (at, json!(text))).boxed();
    const URLS: &[&str] = &[
        "http://a",
        "https://api.example.com/v1/",
        "http://127.0.0.1:65535",
        "http://127.0.0.1:65536",
        "http://[::1]:80/x%20y",
        "ftp://a",
        "http://u:p@a",
        "http://a?x=1",
        "http://a#f",
        "http://1",
        "http://0x7f.1",
        "http://256.1.1.1",
        "http://a:0",
        "",
        "http://",
        "http://a b",
        "HTTP://a",
        "http:/a",
        "http://localhost:4000/x",
        "http://127.0.0.1.evil",
        "http://[::1]",
        "https://a_b-c.Example",
    ];
    const PATHS: &[&str] = &[
        "/",
        "/x",
        "/services/weather",
        "/services",
        "/api",
        "/api/x",
        "/apis",
        "/openapi.json",
        "/skill.md",
        "/rpc/base",
        "/.well-known/x402",
        "services/x",
        "/a//b",
        "/a/../b",
        "/a/./b",
        "/a%20b",
        "/a/",
        "/a\\b",
        "/a b",
        "/x/%2e",
        "/a.b/..c",
        "/é",
        "",
        "/a;b=1,c",
    ];
    const ROUTES: &[&str] = &[
        "/x", "/x/*", "/*", "", "x", "/a/*/b", "/../x", "/a/", "*", "/a%20b/*", "/a%2fb", "/%41", "/%C3%A9", "/%c3%a9", "/a/./b", "/x?y",
        "/",
    ];
    const PRICES: &[&str] = &[
        "0.001",
        "1",
        "0",
        "0.000",
        "1.",
        ".5",
        "-1",
        "1e3",
        "0.0000001",
        "0.1000000000",
        "007.5",
        "",
        "999999999999999999999999999999999999",
        "9999999999999999999999999999999999999",
        " 1",
        "1,5",
    ];
    const TIMES: &[&str] = &["1h", "90s", "1h30m", "0s", "", "1", "h", "-1s", "1d", "720h", "721h", "00000001s", "1h1h1h", "1.5h", "500ms"];
    prop_oneof![
        text("type", &["http", "inference", "agent", ""]),
        text("upstream.url", URLS),
        text("facilitators.0", URLS),
        text("upstream.healthPath", &["/health", "/", "/a//b", "/x/../y", "/a%20b", "/%41", "up", "/a?b", "/h/"]),
        text("upstream.service", &["web", "Web", "a.b", "-a", "", "web_1"]),
        text("upstream.namespace", &["default", "x/y", ""]),
        number("upstream.port", &[0, 1, 65535, 65536, -1]),
        number("upstream.host.port", &[0, 1, 65535, 65536]),
        Just(("upstream.url", Value::Null)),
        text(
            "payment.network",
            &["base", "base-sepolia", "eip155:8453", "eip155:08453", "eip155:1", "mainnet", "solana", "", "obol-sandbox"]
        ),
        text(
            "payment.payTo",
            &[
                PAY_TO,
                "0x12",
                "0x0000000000000000000000000000000000000000",
                "0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc",
                "",
                "0X3C44CDDDB6A900FA2B585DD299E03D12FA4293BC"
            ]
        ),
        number("payment.maxTimeoutSeconds", &[0, 9, 10, 300, 86_400, 86_401, -1, 4_294_967_296]),
        text("payment.scheme", &["exact", "upto", "deferred"]),
        text("payment.price.perRequest", PRICES),
        text("payment.price.perMTok", PRICES),
        text("payment.price.perMTokOutput", PRICES),
        text("payment.price.perUnit", PRICES),
        text("payment.price.perHour", PRICES),
        text("payment.price.unit", &["page", "Seite", "página", "a b", "", "x-1"]),
        number("payment.price.maxUnits", &[0, 1, 100]),
        Just(("payment.price.perRequest", Value::Null)),
        Just(("payment", Value::Null)),
        (asset(), Just(())).prop_map(|(asset, ())| ("payment.asset", asset)),
        prop::collection::vec(payment(), 0..4).prop_map(|list| ("payments", json!(list))),
        text("path", PATHS),
        free("path"),
        text("hostname", &["api.example.com", "Api.example.com", "a:80", "*.example.com", "a.", "", "a..b", "x"]),
        prop::collection::vec(route(ROUTES, PRICES), 0..4).prop_map(|list| ("routes", json!(list))),
        number("limits.maxInFlight", &[0, 1, 4_294_967_295, 4_294_967_296]),
        number("limits.rps", &[0, 1, -1]),
        text("delivery.onLost", &["receipt", "storedAnswer", "refund"]),
        free("registration.name"),
        free("registration.description"),
        Just(("registration.enabled", json!(true))),
        text(
            "drainAt",
            &[
                "2026-11-23T12:00:00Z",
                "2026-11-23T12:00:00.5+01:00",
                "soon",
                "2026-02-30T00:00:00Z",
                "2026-11-23",
                "2026-11-23t12:00:00z",
                ""
            ]
        ),
        text("drainGracePeriod", TIMES),
        text("model.name", &["qwen3:8b", "a b", "", "org/model"]),
        text("model.upstreamName", &["qwen3:8b", "a\tb", ""]),
        number("model.maxTokens", &[0, 1, 10_000_000, 10_000_001]),
        number("model.maxPromptBytes", &[0, 8_388_608, 8_388_609]),
        text("model.runtime", &["ollama", "vllm", "tgi", "llamacpp", "cuda"]),
        number("model.concurrency", &[0, 1]),
        text("model.firstTokenTimeout", TIMES),
        text("model.credential", &["OPENAI_API_KEY", "ref+file:///x", "sk-abc", "a b", "", "1x"]),
        text("routes.0.path", ROUTES),
        Just(("maxInflight", json!(3))),
        Just(("branding", json!({ "theme": "dark" }))),
        Just(("async", json!({ "enabled": true }))),
        Just(("async", json!({ "enabled": false }))),
    ]
}

fn asset() -> impl Strategy<Value = Value> {
    let decimals = prop::sample::select(&[0, 6, 18, 24, 25, 255, 256][..]);
    let address = pick(&["0x036cbd53842c5426634e7929541ec2318f3dcf7e", "0x00000000000000000000000000000000000000aa", "0x1", ""]);
    let symbol = pick(&["TOK", "", "ABCDEFGHIJKLMNOP", "ABCDEFGHIJKLMNOPQ"]);
    let method = pick(&["eip3009", "permit2", "erc20"]);
    (decimals, address, symbol, method, pick(&["Token", ""])).prop_map(|(decimals, address, symbol, method, name)| {
        json!({ "address": address, "symbol": symbol, "decimals": decimals, "transferMethod": method, "eip712Name": name, "eip712Version": "1" })
    })
}

fn payment() -> impl Strategy<Value = Value> {
    let network = pick(&["base-sepolia", "eip155:84532", "base", "obol-sandbox", "mainnet"]);
    let price = pick(&["0.001", "0.002"]);
    (network, price, prop::option::weighted(0.2, asset())).prop_map(|(network, price, asset)| {
        let mut payment = json!({ "network": network, "payTo": PAY_TO, "price": { "perRequest": price } });
        if let Some(asset) = asset {
            payment["asset"] = asset;
        }
        payment
    })
}

fn route(paths: &'static [&'static str], prices: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let gate = prop::option::of(pick(&["paid", "free", "auth"]));
    (pick(paths), gate, prop::option::of(pick(prices))).prop_map(|(path, gate, price)| {
        let mut route = json!({ "path": path });
        if let Some(gate) = gate {
            route["gate"] = gate;
        }
        if let Some(price) = price {
            route["price"] = price;
        }
        route
    })
}

/// Puts a value at a path; null removes it.
fn put(spec: &mut Value, at: &str, value: Value) {
    let (head, rest) = at.split_once('.').map_or((at, None), |(head, rest)| (head, Some(rest)));
    let place = match head.parse::<usize>() {
        Ok(index) => {
            if !spec.is_array() {
                *spec = json!([]);
            }
            let list = spec.as_array_mut().unwrap();
            while list.len() <= index {
                list.push(Value::Null);
            }
            &mut list[index]
        }
        Err(_) => {
            if !spec.is_object() {
                *spec = json!({});
            }
            if rest.is_none() && value.is_null() {
                spec.as_object_mut().unwrap().remove(head);
                return;
            }
            spec.as_object_mut().unwrap().entry(head).or_insert(Value::Null)
        }
    };
    match rest {
        Some(rest) => put(place, rest, value),
        None => *place = value,
    }
}

/// What the command line says: nothing when it takes the spec.
fn refused(spec: &Value) -> Vec<String> {
    let name: OfferName = "weather".parse().unwrap();
    let told = |all: Vec<obol_offer::Violation>| all.iter().map(|v| format!("{} {}", v.code, v.field)).collect::<Vec<_>>();
    match read_spec(spec) {
        Err(violations) => told(violations),
        Ok((spec, _)) => Offer::validate(&name, &spec).err().map(told).unwrap_or_default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_exactly_what_the_command_line_takes() {
    let server = ApiServer::start().await;
    let object = |name: &str, spec: &Value| json!({ "metadata": { "name": name }, "spec": spec });
    let cases: u32 = std::env::var("OBOL_ADMIT_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(3000);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let specs = prop::collection::vec(mutation(), 0..3);
    let (mut taken, mut differences) = (0, Vec::new());
    for _ in 0..cases {
        let mut spec = plain();
        for (at, value) in specs.new_tree(&mut runner).unwrap().current() {
            put(&mut spec, at, value);
        }
        let ours = refused(&spec);
        let theirs = server.try_create(&offers(), Some("obol-offers"), &object("weather", &spec)).await;
        taken += u32::from(theirs.is_ok());
        if ours.is_empty() != theirs.is_ok() {
            differences.push(format!(
                "{spec}\n  command line: {ours:?}\n  API server: {}",
                theirs.err().map_or("taken".into(), |e| e.to_string())
            ));
        }
    }
    assert!(differences.is_empty(), "{} of {cases} differ:\n{}", differences.len(), differences[..differences.len().min(12)].join("\n"));
    assert!(taken > cases / 10 && taken < cases * 9 / 10, "{taken} of {cases} were taken");
    for (name, good) in [("weather", true), ("a".repeat(53).as_str(), true), ("a".repeat(54).as_str(), false), ("a.b", false)] {
        assert_eq!(server.try_create(&offers(), Some("obol-offers"), &object(name, &plain())).await.is_ok(), good, "{name}");
    }
    // A wrong checksum is for the controller to tell: no rule of the API server can hash.
    let mut spec = plain();
    put(&mut spec, "payment.payTo", json!(PAY_TO.replace("3C44C", "3c44C")));
    assert_eq!(refused(&spec), ["pay_to spec.payment.payTo"]);
    assert!(server.try_create(&offers(), Some("obol-offers"), &object("weather", &spec)).await.is_ok());
}
