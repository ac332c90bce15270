//! Models sold for real: llama.cpp's server, LiteLLM before it, and OpenAI's own clients as buyers.

use std::{collections::BTreeMap, process::Command, time::Duration};

use alloy_primitives::{Address, U256};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use obol_e2e::{
    anvil::{Anvil, KEYS},
    facilitators::{Facilitator, Maker},
    forge, http,
    models::{LITELLM_KEY, MODEL, ModelServer},
    part,
    process::Process,
    stack::{Stack, free_address},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// Atomic units per request.
const PRICE: u64 = 1000;
const GATE: &str = "gate-secret-of-the-test";

/// What OpenAI's clients must get for the requests that both scripts make.
fn check_bought(got: &Value) {
    let expected = json!({
        "models": [MODEL], "chat": 7, "model": MODEL, "streamed": 6, "hidden": true, "completion": 5, "embedding": 64, "response": 4
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(got[key], *value, "{key}: {got}");
    }
    assert!(got["embedded"].as_u64() > Some(0) && got["pieces"].as_u64() > Some(0), "{got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn openais_own_clients_buy_every_call() {
    let (anvil, llama) = (Anvil::start().await, ModelServer::llama().await);
    let facilitator = Facilitator::start(Maker::TypeScript, &anvil.url);
    let payee = forge::fresh_address();
    let mut stack = Stack::new();
    let payee_text = payee.to_string();
    stack.ok(&[
        "sell",
        "inference",
        "chat",
        "--upstream",
        &llama.url,
        "--model",
        MODEL,
        "--price",
        "0.001",
        "--max-tokens",
        "16",
        "--pay-to",
        &payee_text,
        "--network",
        "base-sepolia",
        "--facilitator",
        &facilitator.url,
    ]);
    stack.up().await;
    wait_until_ready(&stack).await;
    for client in CLIENTS {
        let before = anvil.balance(payee).await;
        check_bought(&client.buy(&stack, "exact").await);
        // Six calls are paid; which models there are is told for nothing.
        assert_eq!(anvil.balance(payee).await - before, U256::from(6 * PRICE));
    }
}

/// One of OpenAI's own clients, with an x402 client as its transport.
#[derive(Clone, Copy)]
struct Client {
    program: &'static str,
    script: &'static str,
    key: &'static str,
}

const CLIENTS: [Client; 2] = [
    Client { program: "node", script: "node/openai-buyer.mjs", key: KEYS[3] },
    Client { program: "python-openai/bin/python", script: "python/openai_buyer.py", key: KEYS[5] },
];

impl Client {
    async fn buy(self, stack: &Stack, scheme: &str) -> Value {
        let program = if self.program == "node" { self.program.into() } else { part(self.program) };
        let mut buyer = Command::new(program);
        buyer.arg(part(self.script)).args([&stack.url("/services/chat"), MODEL]).env("X402_KEY", self.key).env("X402_SCHEME", scheme);
        let output = tokio::task::spawn_blocking(move || buyer.output()).await.expect("no panic").expect("the client starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let got = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
        got.unwrap_or_else(|| panic!("{}: {text}\n{}", self.script, String::from_utf8_lossy(&output.stderr)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openais_own_clients_pay_by_upto_for_what_they_used() {
    let (anvil, llama) = (Anvil::start().await, ModelServer::llama().await);
    let facilitator = Facilitator::start(Maker::TypeScript, &anvil.url);
    let (payee, mut stack) = (forge::fresh_address(), Stack::new());
    sell_by_tokens(&stack, &llama, payee, &facilitator);
    stack.up().await;
    wait_until_ready(&stack).await;
    for client in CLIENTS {
        let (before, payer) = (anvil.balance(payee).await, forge::address(client.key));
        anvil.approve_permit2(payer, U256::MAX).await;
        let got = client.buy(&stack, "upto").await;
        check_bought(&got);
        let count = |name: &str| got[name].as_u64().unwrap_or_else(|| panic!("no {name}: {got}"));
        let due = count("input") + 2 * count("output");
        let rows = delivered(&stack, payer, 6).await;
        let sum = |name: &str| {
            rows.iter().map(|row| row[name].as_str().and_then(|text| text.parse::<u64>().ok()).expect("an amount")).sum::<u64>()
        };
        assert_eq!(sum("settled"), due, "{got}: {rows:?}");
        assert!(rows.iter().all(|row| row["transaction"].is_string()) && sum("amount") > due, "{rows:?}");
        assert_eq!(anvil.balance(payee).await - before, U256::from(due), "{got}");
        println!("{}: 6 calls, {} tokens in, {} out, {due} atomic units moved", client.script, count("input"), count("output"));
    }
}

/// The journal's rows of a payer, once so many are delivered and none is open.
async fn delivered(stack: &Stack, payer: Address, count: usize) -> Vec<Value> {
    let payer = payer.to_checksum(None);
    for _ in 0..300 {
        let rows: Vec<Value> = serde_json::from_str(&stack.ok(&["payments", "export", "--format", "json"])).expect("JSON");
        let rows: Vec<Value> = rows.into_iter().filter(|row| row["payer"] == payer).collect();
        if rows.len() == count && rows.iter().all(|row| row["state"] == "delivered") {
            return rows;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not {count} delivered payments of {payer}:\n{}", stack.ok(&["payments", "list"]));
}

/// One atomic unit for a token in, two for a token out.
fn sell_by_tokens(stack: &Stack, llama: &ModelServer, payee: Address, facilitator: &Facilitator) {
    stack.ok(&[
        &["sell", "inference", "chat", "--upstream", &llama.url, "--model", MODEL, "--per-mtok", "1", "--per-mtok-output", "2"],
        &["--pay-to", &payee.to_string(), "--network", "base-sepolia", "--facilitator", &facilitator.url][..],
    ]
    .concat());
}

async fn wait_until_ready(stack: &Stack) {
    for _ in 0..300 {
        let status: Value = serde_json::from_str(&stack.ok(&["sell", "status", "chat", "--output", "json"])).expect("JSON");
        if status["state"] == "ready" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the offer did not get ready:\n{}", stack.ok(&["sell", "status", "chat"]));
}

/// `obol serve inference` before a model server.
struct Role {
    url: String,
    admin: String,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Role {
    async fn start(upstream: &str, key: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("values-offer.yaml");
        let credential = if key.is_some() { "    credential: MODEL_KEY\n" } else { "" };
        let text = format!(
            "name: chat\nspec:\n  type: inference\n  upstream:\n    url: {upstream}\n  model:\n    name: sold\n    upstreamName: {MODEL}\n    \
             maxTokens: 32\n    concurrency: 4\n    queue: 100\n{credential}  payment:\n    network: base-sepolia\n    \
             payTo: \"0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC\"\n    price:\n      perMTok: \"1\"\n"
        );
        fs_err::write(&file, text).expect("a file");
        let (at, admin) = (free_address(), free_address());
        let stack = Stack::new();
        let mut command = stack.command();
        command.args(["serve", "inference", "--listen", &at.to_string(), "--admin", &admin.to_string(), "--offer"]).arg(&file);
        command.env("OBOL_GATE_SECRET", GATE).envs(key.map(|key| ("OBOL_CREDENTIAL", key)));
        let role = Self {
            url: format!("http://{at}"),
            admin: format!("http://{admin}"),
            _process: Process::start("obol serve inference", &mut command),
            _folder: folder,
        };
        for _ in 0..600 {
            if http().get(format!("{}/readyz", role.admin)).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return role;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the role did not get ready");
    }

    /// What a request is answered with, and the report behind it.
    async fn ask(&self, path: &str, body: &Value) -> (String, BTreeMap<String, u64>) {
        let at = self.url.trim_start_matches("http://");
        let connection = TokioIo::new(TcpStream::connect(at).await.expect("the role listens"));
        let (mut sender, connection) = http1::handshake(connection).await.expect("a connection");
        tokio::spawn(connection);
        let request = Request::post(format!("/chat/v1/{path}"))
            .header("host", at)
            .header("authorization", format!("Bearer {GATE}"))
            .header("content-type", "application/json")
            .header("te", "trailers");
        let request = request.body(Full::new(Bytes::from(body.to_string()))).expect("a request");
        let answer = sender.send_request(request).await.expect("the role answers");
        let (status, in_head) = (answer.status(), answer.headers().contains_key("x-obol-usage"));
        let answer = answer.into_body().collect().await.expect("a whole answer");
        let report = answer.trailers().and_then(|trailers| trailers.get("x-obol-usage")?.to_str().ok()).unwrap_or_default().to_owned();
        let text = String::from_utf8_lossy(&answer.to_bytes()).into_owned();
        assert!(status.is_success() && !in_head, "{body}: {status} {text}");
        let counts = report.split(", ").filter_map(|part| part.split_once('='));
        (text, counts.map(|(name, count)| (name.to_owned(), count.parse().expect("a count"))).collect())
    }
}

/// A random request: its path, its body.
fn random_request(dice: &mut StdRng) -> (&'static str, Value) {
    let text: String = (0..dice.random_range(1..60)).map(|_| char::from(dice.random_range(b' '..b'~'))).collect();
    let stream = dice.random_bool(0.5);
    let max = dice.random_range(1..24);
    let mut body = match dice.random_range(0..5) {
        0 | 1 => ("chat/completions", json!({ "messages": [{ "role": "user", "content": text }], "max_tokens": max, "stream": stream })),
        2 => ("completions", json!({ "prompt": text, "max_tokens": max, "stream": stream })),
        3 => ("responses", json!({ "input": text, "max_output_tokens": max, "stream": stream })),
        _ => ("embeddings", json!({ "input": text })),
    };
    if stream && matches!(body.0, "chat/completions" | "completions") {
        // Asked for here, so that the server's own count can be read.
        body.1["stream_options"] = json!({ "include_usage": true });
    }
    body.1["model"] = "sold".into();
    body
}

/// The server's own count in an answer: prompt, completion.
fn told(answer: &str) -> (u64, u64) {
    let documents = answer.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    let mut usages = documents.filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter_map(|document| {
        let usage = document.get("usage").or_else(|| document.get("response")?.get("usage"))?;
        let number = |a: &str, b: &str| usage.get(a).or_else(|| usage.get(b)).and_then(Value::as_u64);
        Some((number("prompt_tokens", "input_tokens")?, number("completion_tokens", "output_tokens").unwrap_or(0)))
    });
    usages.next_back().unwrap_or_else(|| panic!("no usage in {answer}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_random_requests_are_counted_as_the_server_counts() {
    let llama = ModelServer::llama().await;
    let role = Role::start(&llama.url, None).await;
    let mut dice = StdRng::seed_from_u64(402);
    let mut sum = (0, 0);
    for _ in 0..200 {
        let (path, body) = random_request(&mut dice);
        let (text, report) = role.ask(path, &body).await;
        assert!(!text.contains("\"model\":\"tiny\""), "the model's own name is not told: {text}");
        let told = told(&text);
        assert_eq!((report["input"], report["output"]), told, "{path} {body}: {text}");
        assert!(!report.contains_key("cut"));
        sum = (sum.0 + told.0, sum.1 + told.1);
    }
    let metrics = http().get(format!("{}/metrics", role.admin)).send().await.expect("metrics").text().await.expect("text");
    for (direction, tokens) in [("input", sum.0), ("output", sum.1)] {
        let line = format!("obol_inference_tokens_total{{offer=\"chat\",direction=\"{direction}\"}} {tokens}\n");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    println!("200 random requests: {} tokens in, {} out, all as the server counted", sum.0, sum.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn litellm_in_between_changes_no_count() {
    let llama = ModelServer::llama().await;
    let proxy = ModelServer::litellm(&llama).await;
    let role = Role::start(&proxy.url, Some(LITELLM_KEY)).await;
    for (number, stream) in [false, true, true].into_iter().enumerate() {
        let mut body = json!({ "model": "sold", "messages": [{ "role": "user", "content": "hello" }], "max_tokens": 9, "stream": stream });
        if number == 1 {
            body["stream_options"] = json!({ "include_usage": true });
        }
        let (text, report) = role.ask("chat/completions", &body).await;
        if number == 2 {
            assert!(!text.contains("prompt_tokens"), "{text}");
            assert!(report["input"] > 0 && report["output"] > 0, "{report:?}");
        } else {
            assert_eq!((report["input"], report["output"]), told(&text), "{text}");
        }
    }
}

/// Requests whose charge is looked up on the chain.
const CHARGED: u64 = 200;

#[tokio::test(flavor = "multi_thread")]
async fn what_moves_on_chain_is_what_the_server_counted() {
    let (anvil, llama) = (Anvil::start().await, ModelServer::llama().await);
    let payer = KEYS[8];
    anvil.approve_permit2(forge::address(payer), U256::MAX).await;
    let facilitator = Facilitator::start(Maker::TypeScript, &anvil.url);
    let payee = forge::fresh_address();
    let mut stack = Stack::new();
    sell_by_tokens(&stack, &llama, payee, &facilitator);
    stack.up().await;
    wait_until_ready(&stack).await;
    let (mut dice, mut due) = (StdRng::seed_from_u64(402), U256::ZERO);
    for _ in 0..CHARGED {
        let (path, mut body) = random_request(&mut dice);
        body["model"] = MODEL.into();
        let mut buyer = stack.command();
        buyer.args(["pay", &stack.url(&format!("/services/chat/v1/{path}")), "--scheme", "upto", "--max", "1", "--rpc", &anvil.url]);
        buyer.args(["-H", "content-type: application/json", "-d", &body.to_string()]).env("OBOL_PAY_KEY", payer);
        let output = tokio::task::spawn_blocking(move || buyer.output()).await.expect("no panic").expect("obol starts");
        let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{path} {body}: {error}");
        let (input, completion) = told(&text);
        due += U256::from(input + 2 * completion);
        // Settled when the answer is over, which may be a moment later.
        for _ in 0..500 {
            if anvil.balance(payee).await >= due {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(anvil.balance(payee).await, due, "{path} {body}: {text}\n{error}");
    }
    println!("{CHARGED} random requests: {due} atomic units moved on chain, as many as the server's tokens cost");
}
