//! A payment that is not what was asked for gets the right refusal, moves nothing, and never
//! reaches the upstream.

use alloy_primitives::Address;
use obol_e2e::{anvil::KEYS, facilitators::Maker, forge, http, shop::Shop, stack::Stack};
use obol_offer::Terms;
use serde_json::{Value, json};

const PAYER: &str = KEYS[7];
const PRICE: u64 = 1_000;
const PATH: &str = "/services/weather";

/// A request with one or more payment headers, and how it must end.
struct Case {
    name: &'static str,
    headers: Vec<(&'static str, String)>,
    status: u16,
    code: &'static str,
}

impl Case {
    fn new(name: &'static str, payment: &Value, status: u16, code: &'static str) -> Self {
        Self::raw(name, forge::header(payment), status, code)
    }

    fn raw(name: &'static str, header: String, status: u16, code: &'static str) -> Self {
        Self { name, headers: vec![("payment-signature", header)], status, code }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_payments_are_refused_and_move_nothing() {
    let Shop { anvil, upstream, payee, stack, facilitator: _facilitator } = Shop::open("weather", Maker::TypeScript).await;
    let payer = forge::address(PAYER);
    let owned = anvil.balance(payer).await;

    let mut broken = Vec::new();
    for case in cases(payee, anvil.now().await) {
        let (status, answer) = send(&stack, &case.headers).await;
        let told = answer.to_string();
        if status != case.status || !told.contains(case.code) {
            broken.push(format!("{}: {status} {told}, expected {} {}", case.name, case.status, case.code));
        }
        println!("{:<34} {status} {}", case.name, case.code);
        if anvil.balance(payer).await != owned || anvil.balance(payee).await != 0 {
            broken.push(format!("{}: money moved", case.name));
        }
        if !upstream.take_seen().is_empty() {
            broken.push(format!("{}: the upstream was asked", case.name));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_payment_buys_nothing_again() {
    let Shop { anvil, upstream, payee, mut stack, facilitator: _facilitator } = Shop::open("weather", Maker::Rust).await;

    let payment = forge::payment(PAYER, &forge::terms(payee, PRICE), 0, anvil.now().await + 200);
    let headers = [("payment-signature", forge::header(&payment))];
    let (status, answer) = send(&stack, &headers).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(anvil.balance(payee).await, PRICE);
    assert_eq!(upstream.take_seen().len(), 1);

    let (status, answer) = send(&stack, &headers).await;
    assert_eq!(status, 409, "{answer}");
    assert!(answer.to_string().contains("payment_already_used"), "{answer}");

    // The same, after the node has lost everything but its files.
    stack.kill();
    stack.up().await;
    stack.wait_for(PATH, 402).await;
    let (status, answer) = send(&stack, &headers).await;
    assert_eq!(status, 409, "{answer}");
    assert_eq!(anvil.balance(payee).await, PRICE);
    assert!(upstream.take_seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_copies_at_once_run_the_upstream_once() {
    let Shop { anvil, upstream, payee, stack, facilitator: _facilitator } = Shop::open("weather", Maker::TypeScript).await;

    let payment = forge::payment(PAYER, &forge::terms(payee, PRICE), 0, anvil.now().await + 200);
    let headers = [("payment-signature", forge::header(&payment))];
    let answers = futures_util::future::join_all((0..8).map(|_| send(&stack, &headers))).await;
    let paid = answers.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!(paid, 1, "{answers:?}");
    assert!(answers.iter().all(|(status, _)| matches!(status, 200 | 409)), "{answers:?}");
    assert_eq!(upstream.take_seen().len(), 1);
    assert_eq!(anvil.balance(payee).await, PRICE);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_fails_is_not_charged_for() {
    let Shop { anvil, upstream: _upstream, payee, stack, facilitator: _facilitator } = Shop::open("weather", Maker::TypeScript).await;
    let payment = forge::payment(PAYER, &forge::terms(payee, PRICE), 0, anvil.now().await + 200);
    let request = http().get(stack.url(&format!("{PATH}/status/503"))).header("payment-signature", forge::header(&payment));
    assert_eq!(request.send().await.expect("the node answers").status(), 503);
    assert_eq!(anvil.balance(payee).await, 0);
}

/// Every way in which a payment can be wrong. All have a true signature unless the name says not.
fn cases(payee: Address, now: u64) -> Vec<Case> {
    let terms = forge::terms(payee, PRICE);
    let right = || forge::payment(PAYER, &terms, 0, now + 200);
    let with = |terms: &Terms| forge::payment(PAYER, terms, 0, now + 200);
    let bent = |bend: &dyn Fn(&mut Value)| {
        let mut payment = right();
        bend(&mut payment);
        payment
    };
    // Signed over other terms, and claiming ours.
    let claiming = |other: &Terms| bent(&|payment| payment["payload"] = with(other)["payload"].take());
    let less = forge::terms(payee, PRICE - 1);
    let mine = forge::terms(forge::address(PAYER), PRICE);
    let mut other_asset = terms.clone();
    other_asset.asset.address = forge::fresh_address();
    let mut other_chain = terms.clone();
    other_chain.network = obol_offer::Network::find("base").expect("a built-in network");

    vec![
        Case::new("another amount", &with(&less), 402, "no_matching_requirement"),
        Case::new("another payee", &with(&mine), 402, "no_matching_requirement"),
        Case::new("another network", &with(&other_chain), 402, "no_matching_requirement"),
        Case::new("another asset", &with(&other_asset), 402, "no_matching_requirement"),
        Case::new("another amount, claiming ours", &claiming(&less), 402, "authorization_mismatch"),
        Case::new("another payee, claiming ours", &claiming(&mine), 402, "authorization_mismatch"),
        Case::new("another network, claiming ours", &claiming(&other_chain), 402, "payment_invalid"),
        Case::new("another asset, claiming ours", &claiming(&other_asset), 402, "payment_invalid"),
        Case::new("expired", &forge::payment(PAYER, &terms, 0, now - 1), 402, "authorization_expired"),
        Case::new("not yet valid", &forge::payment(PAYER, &terms, now + 100, now + 200), 402, "authorization_not_yet_valid"),
        Case::new("tampered value", &bent(&|p| p["payload"]["authorization"]["value"] = json!("1001")), 402, "authorization_mismatch"),
        Case::new(
            "tampered nonce",
            &bent(&|p| p["payload"]["authorization"]["nonce"] = json!(format!("0x{:064x}", 1))),
            402,
            "payment_invalid",
        ),
        Case::new("tampered signature", &bent(&|p| flip(&mut p["payload"]["signature"])), 402, "payment_invalid"),
        Case::new("no signature", &bent(&|p| p["payload"]["signature"] = Value::Null), 400, "payment_malformed"),
        Case::new(
            "for another resource",
            &bent(&|p| p["resource"] = json!({ "url": "https://elsewhere.example/x" })),
            402,
            "other_resource",
        ),
        Case::new("version 3", &bent(&|p| p["x402Version"] = json!(3)), 400, "payment_version"),
        Case::new("version 1 in the header of 2", &bent(&|p| p["x402Version"] = json!(1)), 400, "payment_version"),
        Case::raw("not base64", "!!!".into(), 400, "payment_header_not_base64"),
        Case::raw("not JSON", "bm90IGpzb24=".into(), 400, "payment_malformed"),
        Case::raw("no payment", forge::header(&json!({ "x402Version": 2 })), 400, "payment_malformed"),
        Case::raw("oversized", "A".repeat(17 * 1024), 400, "payment_header_too_long"),
        Case {
            name: "two payments",
            headers: vec![("payment-signature", forge::header(&right())), ("payment-signature", forge::header(&right()))],
            status: 400,
            code: "payment_header_repeated",
        },
        Case {
            name: "one payment per version",
            headers: vec![("payment-signature", forge::header(&right())), ("x-payment", forge::header(&right()))],
            status: 400,
            code: "payment_header_repeated",
        },
    ]
}

/// Changes one digit in the middle of a signature.
fn flip(signature: &mut Value) {
    let mut text = signature.as_str().expect("a signature is text").to_owned();
    let digit = if &text[20..21] == "0" { "1" } else { "0" };
    text.replace_range(20..21, digit);
    *signature = json!(text);
}

/// Status, and everything that was told: the body, and the v2 challenge or receipt decoded.
async fn send(stack: &Stack, headers: &[(&'static str, String)]) -> (u16, Value) {
    let mut request = http().get(stack.url(PATH));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let answer = request.send().await.expect("the node answers");
    let status = answer.status().as_u16();
    let decoded = |name: &str| answer.headers().get(name).map(|value| forge::decode(value.to_str().expect("base64 is ASCII")));
    let (challenge, receipt) = (decoded("payment-required"), decoded("payment-response"));
    let body = answer.text().await.expect("a body");
    (status, json!({ "challenge": challenge, "receipt": receipt, "body": body }))
}
