//! Models sold for real: llama.cpp's server, LiteLLM before it, and OpenAI's own clients as buyers.

use std::{collections::BTreeMap, process::Command, time::Duration};

use alloy_primitives::U256;
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
    let url = stack.url("/services/chat");
    let scripts = [("node", "node/openai-buyer.mjs", KEYS[3]), ("python-openai/bin/python", "python/openai_buyer.py", KEYS[5])];
    for (index, (program, script, key)) in scripts.into_iter().enumerate() {
        let before = anvil.balance(payee).await;
        let program = if program == "node" { program.into() } else { part(program) };
        let mut buyer = Command::new(program);
        buyer.arg(part(script)).arg(&url).arg(MODEL).env("X402_KEY", key);
        let output = tokio::task::spawn_blocking(move || buyer.output()).await.expect("no panic").expect("the client starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let got: Value = serde_json::from_str(text.lines().last().unwrap_or_default())
            .unwrap_or_else(|_| panic!("client {index}: {text}\n{}", String::from_utf8_lossy(&output.stderr)));
        check_bought(&got);
        // Six calls are paid; which models there are is told for nothing.
        assert_eq!(anvil.balance(payee).await - before, U256::from(6 * PRICE));
    }
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

    /// What the role reported for a request.
    async fn report(&self, id: &str) -> BTreeMap<String, u64> {
        for _ in 0..100 {
            let url = format!("{}/-/usage/chat/{id}", self.url);
            let answer = http().get(url).bearer_auth(GATE).send().await.expect("the role answers");
            if answer.status().is_success() {
                let answer: Value = answer.json().await.expect("JSON");
                let report = answer["usage"].as_str().expect("a report");
                return report
                    .split(", ")
                    .filter_map(|part| part.split_once('='))
                    .map(|(k, v)| (k.into(), v.parse().expect("a count")))
                    .collect();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no report for {id}");
    }

    async fn ask(&self, path: &str, id: &str, body: &Value) -> reqwest::Response {
        let request = http().post(format!("{}/chat/v1/{path}", self.url)).bearer_auth(GATE).header("x-request-id", id);
        request.json(body).send().await.expect("the role answers")
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
    for number in 0..200 {
        let (path, body) = random_request(&mut dice);
        let id = format!("r{number}");
        let answer = role.ask(path, &id, &body).await;
        assert!(answer.status().is_success(), "{body}: {:?}", answer.text().await);
        assert!(answer.headers().get("x-obol-usage").is_none());
        let text = answer.text().await.expect("a whole answer");
        assert!(!text.contains("\"model\":\"tiny\""), "the model's own name is not told: {text}");
        let told = told(&text);
        let report = role.report(&id).await;
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
async fn a_stream_cut_at_a_random_byte_counts_what_was_delivered() {
    let llama = ModelServer::llama().await;
    let role = Role::start(&llama.url, None).await;
    let mut dice = StdRng::seed_from_u64(2);
    let body = json!({ "messages": [{ "role": "user", "content": "hello" }], "max_tokens": 32, "stream": true });
    for number in 0..20 {
        let id = format!("c{number}");
        let mut answer = role.ask("chat/completions", &id, &body).await;
        let (mut seen, wanted) = (Vec::new(), dice.random_range(1..7000));
        let mut whole = false;
        while seen.len() < wanted {
            let Some(chunk) = answer.chunk().await.expect("a chunk") else {
                whole = true;
                break;
            };
            seen.extend_from_slice(&chunk);
        }
        drop(answer);
        let report = role.report(&id).await;
        let text = String::from_utf8_lossy(&seen);
        let pieces = text.lines().filter(|line| line.contains("\"content\":\"") && !line.contains("\"content\":\"\"")).count() as u64;
        // What was sent may be more than what was read, and never less.
        assert!(report["output"] >= pieces && report["output"] <= 32, "{report:?} {pieces}");
        if report.contains_key("cut") {
            let prompt = body.to_string().len().div_ceil(4) as u64;
            assert!(!whole && report["input"] == if report["output"] == 0 { 0 } else { prompt }, "{report:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn litellm_in_between_changes_no_count() {
    let llama = ModelServer::llama().await;
    let proxy = ModelServer::litellm(&llama).await;
    let role = Role::start(&proxy.url, Some(LITELLM_KEY)).await;
    for (number, stream) in [false, true, true].into_iter().enumerate() {
        let id = format!("l{number}");
        let mut body = json!({ "model": "sold", "messages": [{ "role": "user", "content": "hello" }], "max_tokens": 9, "stream": stream });
        if number == 1 {
            body["stream_options"] = json!({ "include_usage": true });
        }
        let answer = role.ask("chat/completions", &id, &body).await;
        assert!(answer.status().is_success(), "{:?}", answer.text().await);
        let text = answer.text().await.expect("a whole answer");
        let report = role.report(&id).await;
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
    let payee_text = payee.to_string();
    // One atomic unit for a token in, two for a token out.
    stack.ok(&[
        &["sell", "inference", "chat", "--upstream", &llama.url, "--model", MODEL, "--per-mtok", "1", "--per-mtok-output", "2"],
        &["--pay-to", &payee_text, "--network", "base-sepolia", "--facilitator", &facilitator.url][..],
    ]
    .concat());
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
