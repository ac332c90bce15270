//! `obol serve facilitator`: a facilitator of one's own, for gateways that hold no key.

use alloy_primitives::{Address, B256, U256};
use obol_e2e::{
    anvil::{Anvil, KEYS},
    buyers::Buyer,
    facilitators::Role,
    forge, http, part,
    process::Process,
    stack::Stack,
    upstream::Upstream,
};
use obol_offer::{Scheme, Terms, TransferMethod};
use obol_x402::permit2::{EXACT_PROXY, UPTO_PROXY};
use serde_json::{Value, json};

const PRICE: u64 = 1_000;
const TOKEN: &str = "a-long-random-token";

/// A stack without a key whose gateway knows the role's credential.
fn empty_stack(role: &Role, token: &str) -> (Stack, tempfile::TempDir) {
    let secrets = tempfile::tempdir().expect("a folder");
    let file = secrets.path().join("token");
    fs_err::write(&file, token).expect("a file");
    let credentials = format!("facilitators:\n  - url: {}\n    credential: ref+file://{}\n", role.url, file.display());
    (Stack::with(&credentials), secrets)
}

fn stack(role: &Role, upstream: &Upstream, payee: Address, token: &str) -> (Stack, tempfile::TempDir) {
    let (stack, secrets) = empty_stack(role, token);
    stack.sell("weather", &upstream.url, &payee.to_string(), &role.url);
    (stack, secrets)
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients_pay_a_gateway_without_a_key_through_our_own_facilitator() {
    let anvil = Anvil::start().await;
    let role = Role::start(&anvil.url, KEYS[0], Some(TOKEN));
    let (upstream, payee) = (Upstream::start().await, forge::fresh_address());
    let (mut stack, _secrets) = stack(&role, &upstream, payee, TOKEN);
    stack.up().await;
    for (count, buyer) in (1..).zip(Buyer::ALL) {
        let answer = buyer.buy(&stack.url("/services/weather/today"));
        assert_eq!(answer.status, 200, "{buyer}: {} {}", answer.body, answer.error);
        let receipt = answer.receipt.unwrap_or_else(|| panic!("{buyer} got no receipt"));
        assert!(receipt.success && anvil.succeeded(receipt.transaction).await, "{buyer}");
        assert_eq!(anvil.balance(payee).await, count * PRICE, "{buyer}");
    }
    assert_eq!(upstream.take_seen().iter().filter(|seen| seen.target.ends_with("today")).count(), Buyer::ALL.len());

    let metrics = http().get(format!("http://{}/metrics", role.admin)).send().await.expect("metrics").text().await.expect("text");
    let settled = r#"obol_facilitator_requests_total{step="settle",network="base-sepolia",outcome="settled"} 5"#;
    assert!(metrics.contains(settled), "{metrics}");
    let ready = http().get(format!("http://{}/readyz", role.admin)).send().await.expect("it answers");
    assert_eq!(ready.status(), 200);
}

/// Waits until the payee has so much, and no more.
async fn until_paid(anvil: &Anvil, payee: Address, total: u64) {
    for _ in 0..400 {
        if anvil.balance(payee).await >= U256::from(total) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    assert_eq!(anvil.balance(payee).await, U256::from(total));
}

/// Whom a transaction in a block has called, and that it succeeded.
async fn called(anvil: &Anvil, transaction: B256) -> Address {
    assert!(anvil.succeeded(transaction).await);
    let sent = anvil.rpc("eth_getTransactionByHash", json!([transaction])).await;
    serde_json::from_value(sent["to"].clone()).expect("an address")
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients_pay_by_permit2_and_upto_through_our_own_facilitator() {
    let anvil = Anvil::start().await;
    anvil.place_deployed_permit2().await;
    let role = Role::start(&anvil.url, KEYS[0], Some(TOKEN));
    let (upstream, payee) = (Upstream::start().await, forge::fresh_address());
    let (mut stack, _secrets) = empty_stack(&role, TOKEN);
    stack.sell_by("permit", &upstream.url, payee, Some(&role.url), &["permit2", "eip3009"]);
    stack.sell_by("metered", &upstream.url, payee, Some(&role.url), &["upto", "permit2"]);
    stack.up().await;
    stack.wait_for_accepts("/services/permit", 2).await;
    // Who settles is asked of the role, with the credential.
    let accepts = stack.wait_for_accepts("/services/metered", 2).await;
    assert_eq!(accepts[0]["extra"]["facilitatorAddress"], forge::address(KEYS[0]).to_checksum(None));

    let mut total = 0;
    for buyer in [Buyer::FetchV2, Buyer::PythonV2] {
        anvil.approve_permit2(buyer.address(), U256::MAX).await;
        let answer = buyer.buy(&stack.url("/services/permit/a"));
        assert_eq!(answer.status, 200, "{buyer}: {answer:?}");
        let receipt = answer.receipt.as_ref().unwrap_or_else(|| panic!("{buyer}: no receipt: {answer:?}"));
        assert_eq!((receipt.success, called(&anvil, receipt.transaction).await), (true, EXACT_PROXY), "{buyer}");
        total += PRICE;
        assert_eq!(anvil.balance(payee).await, U256::from(total), "{buyer}");
    }
    for (buyer, units) in [(Buyer::FetchUpto, 1), (Buyer::PythonUpto, 2)] {
        let answer = buyer.buy(&stack.url(&format!("/services/metered/units/{units}")));
        assert_eq!(answer.status, 200, "{buyer}: {answer:?}");
        total += units * PRICE / 2;
        until_paid(&anvil, payee, total).await;
    }
}

/// What a gateway asks for in `upto`, or in `exact` by Permit2.
fn body(scheme: Scheme, payer: &str, facilitator: &str, payee: Address, now: u64) -> Value {
    let mut terms = Terms { scheme, ..forge::terms(payee, 100 * PRICE) };
    terms.asset.transfer_method = TransferMethod::Permit2;
    let payment = forge::payment_to(payer, &terms, Some(forge::address(facilitator)), 0..now + 200);
    json!({ "x402Version": 2, "paymentPayload": payment, "paymentRequirements": payment["accepted"] })
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_a_gateway_that_asks_for_more_or_twice_moves_what_was_used_once() {
    let anvil = Anvil::start().await;
    anvil.place_deployed_permit2().await;
    let (payer, ours) = (KEYS[8], KEYS[0]);
    let role = Role::start(&anvil.url, ours, None);
    let (payee, now) = (forge::fresh_address(), anvil.now().await);
    let ask = async |step: &str, body: &Value, amount: u64| {
        let mut body = body.clone();
        body["paymentRequirements"]["amount"] = amount.to_string().into();
        let answer = http().post(format!("{}/{step}", role.url)).json(&body).send().await.expect("it answers");
        answer.json::<Value>().await.expect("in JSON")
    };
    let (upto, exact) = (body(Scheme::Upto, payer, ours, payee, now), body(Scheme::Exact, payer, ours, payee, now));
    for body in [&upto, &exact] {
        let told = ask("verify", body, 100 * PRICE).await;
        assert_eq!((&told["isValid"], &told["invalidReason"]), (&json!(false), &json!("permit2_allowance_required")), "{told}");
    }
    anvil.approve_permit2(forge::address(payer), U256::MAX).await;

    // More than was signed for; what somebody else is to settle; other than was signed for.
    let told = ask("settle", &upto, 100 * PRICE + 1).await;
    let reason = json!("invalid_upto_evm_payload_settlement_exceeds_amount");
    assert_eq!((&told["success"], &told["errorReason"]), (&json!(false), &reason), "{told}");
    let elsewhere = body(Scheme::Upto, payer, KEYS[1], payee, now);
    assert_eq!(ask("verify", &elsewhere, 100 * PRICE).await["isValid"], false);
    assert_eq!(ask("settle", &elsewhere, 100 * PRICE).await["success"], false);
    for amount in [100 * PRICE - 1, 100 * PRICE + 1] {
        assert_eq!(ask("settle", &exact, amount).await["success"], false);
    }
    // Nothing used is no transaction.
    let told = ask("settle", &upto, 0).await;
    assert_eq!((&told["success"], &told["transaction"]), (&json!(true), &json!("")), "{told}");
    assert_eq!(anvil.rpc("eth_getTransactionCount", json!([forge::address(ours), "latest"])).await, json!("0x0"));

    for (body, used, proxy) in [(&upto, 1_858, UPTO_PROXY), (&exact, 100 * PRICE, EXACT_PROXY)] {
        let before: u64 = anvil.balance(payee).await.to();
        assert_eq!(ask("verify", body, 100 * PRICE).await["isValid"], true);
        let first = ask("settle", body, used).await;
        assert_eq!((&first["success"], &first["amount"]), (&json!(true), &json!(used.to_string())), "{first}");
        let transaction = first["transaction"].as_str().and_then(|hash| hash.parse().ok()).expect("a hash");
        assert_eq!(called(&anvil, transaction).await, proxy);
        assert_eq!(ask("settle", body, used).await, first, "asked again, it tells the same transaction");
        // For more, once it is settled: what was moved stays what was moved.
        let more = ask("settle", body, 100 * PRICE).await;
        assert_eq!((&more["transaction"], &more["amount"]), (&first["transaction"], &first["amount"]), "{more}");
        assert_eq!(anvil.balance(payee).await, U256::from(before + used));
        assert_eq!(ask("verify", body, 100 * PRICE).await["invalidReason"], "permit2_invalid_nonce");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_server_sells_through_our_facilitator() {
    let anvil = Anvil::start().await;
    let role = Role::start(&anvil.url, KEYS[0], None);
    let payee = forge::fresh_address();
    let mut command = std::process::Command::new("node");
    command.arg(part("node/express-peer.mjs")).env("FACILITATOR_URL", &role.url).env("PAY_TO", payee.to_string());
    let mut express = Process::start("express", &mut command);
    let url = express.wait_for_url();
    let answer = Buyer::FetchV2.buy(&format!("{url}/paid"));
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello"), "{}", answer.error);
    assert!(anvil.succeeded(answer.receipt.expect("a receipt").transaction).await);
    assert_eq!(anvil.balance(payee).await, PRICE);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_who_has_no_credential_settles_nothing_and_a_gateway_says_so_kindly() {
    let anvil = Anvil::start().await;
    let role = Role::start(&anvil.url, KEYS[0], Some(TOKEN));
    let (upstream, payee) = (Upstream::start().await, forge::fresh_address());
    let terms = forge::terms(payee, PRICE);
    let payment = forge::payment(KEYS[8], &terms, 0, anvil.now().await + 200);
    let body = json!({ "x402Version": 2, "paymentPayload": payment, "paymentRequirements": payment["accepted"] });
    let ask = async |step: &str, token: Option<&str>, body: &Value| {
        let mut request = http().post(format!("{}/{step}", role.url)).json(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.expect("it answers");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("in JSON"))
    };
    for token in [None, Some(""), Some("a-long-random-tokem")] {
        assert_eq!(ask("settle", token, &body).await.0, 401, "{token:?}");
    }
    assert_eq!(http().get(format!("{}/supported", role.url)).send().await.expect("it answers").status(), 401);
    let (mut stack, _secrets) = stack(&role, &upstream, payee, "another-token");
    stack.up().await;
    let answer = http().get(stack.url("/services/weather/x")).header("payment-signature", forge::header(&payment)).send().await;
    let answer = answer.expect("the node answers");
    assert_eq!(answer.status(), 503);
    let told: Value = answer.json().await.expect("JSON");
    assert_eq!((&told["error"], &told["retriable"]), (&json!("facilitator_unavailable"), &json!(true)));
    assert!(!told.to_string().contains("401"), "buyers are not told the seller's troubles: {told}");
    assert_eq!((anvil.balance(payee).await.to::<u64>(), upstream.take_seen().iter().filter(|s| s.target.ends_with("/x")).count()), (0, 0));

    // With it: malformed, wrong and dear questions are answered, and move nothing.
    for garbage in [json!([]), json!({}), json!({ "x402Version": 2, "paymentPayload": 7, "paymentRequirements": {} })] {
        assert_eq!(ask("settle", Some(TOKEN), &garbage).await.0, 400, "{garbage}");
    }
    let mut dear = body.clone();
    dear["paymentRequirements"]["amount"] = "1001".into();
    let (status, told) = ask("verify", Some(TOKEN), &dear).await;
    assert_eq!((status, &told["isValid"]), (200, &json!(false)), "{told}");
    let (status, told) = ask("settle", Some(TOKEN), &dear).await;
    assert_eq!((status, &told["success"], &told["transaction"]), (200, &json!(false), &json!("")), "{told}");
    let enormous = http().post(format!("{}/verify", role.url)).bearer_auth(TOKEN).body(vec![b' '; 1 << 20]).send().await;
    assert!(enormous.map_or(true, |answer| answer.status() == 400));
    assert_eq!(anvil.balance(payee).await.to::<u64>(), 0);

    // And the right one: valid, settled, and the same again.
    let (_, told) = ask("verify", Some(TOKEN), &body).await;
    assert_eq!((&told["isValid"], &told["payer"]), (&json!(true), &json!(forge::address(KEYS[8]).to_checksum(None))));
    let (_, first) = ask("settle", Some(TOKEN), &body).await;
    assert_eq!((&first["success"], &first["network"]), (&json!(true), &json!("eip155:84532")), "{first}");
    assert_eq!(ask("settle", Some(TOKEN), &body).await.1, first, "asked again, it tells the same transaction");
    assert_eq!(anvil.balance(payee).await.to::<u64>(), PRICE);
}

/// Killed while it settles: the gateway does not know, asks again, and the chain has the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_facilitator_that_is_killed_and_comes_back_charges_once() {
    let anvil = Anvil::start().await;
    let mut role = Role::start(&anvil.url, KEYS[0], None);
    let (upstream, payee) = (Upstream::start().await, forge::fresh_address());
    let mut stack = Stack::new();
    stack.sell("weather", &upstream.url, &payee.to_string(), &role.url);
    stack.up().await;
    // No block comes, so that the settlement is under way for as long as we like.
    anvil.rpc("evm_setAutomine", json!([false])).await;
    let terms = forge::terms(payee, PRICE);
    let header = forge::header(&forge::payment(KEYS[8], &terms, 0, anvil.now().await + 250));
    let buy = || http().get(stack.url("/services/weather/x")).header("payment-signature", header.clone()).send();
    let first = tokio::spawn(buy());
    loop {
        let pool = anvil.rpc("txpool_status", json!([])).await;
        if pool["pending"] != "0x0" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    role.kill();
    let answer = first.await.expect("no panic").expect("the node answers");
    assert_eq!(answer.status(), 503, "{}", answer.text().await.unwrap_or_default());
    anvil.rpc("evm_setAutomine", json!([true])).await;
    anvil.rpc("evm_mine", json!([])).await;
    role.restart();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let answer = buy().await.expect("the node answers");
        let (status, told) = (answer.status().as_u16(), answer.text().await.expect("text"));
        if status == 409 && told.contains("payment_already_used") {
            break;
        }
        assert!(status == 503 && std::time::Instant::now() < end, "{status} {told}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert_eq!(anvil.balance(payee).await.to::<u64>(), PRICE);
    let owed: Value = serde_json::from_str(&stack.ok(&["payments", "owed", "-o", "json"])).expect("JSON");
    let key = owed["payments"][0]["key"].as_str().expect("one is owed").to_owned();
    stack.ok(&["payments", "refund", &key, "--note", "sent by hand"]);
    let owed: Value = serde_json::from_str(&stack.ok(&["payments", "owed", "-o", "json"])).expect("JSON");
    assert_eq!(owed["payments"], json!([]));
    assert!(stack.ok(&["payments", "show", &key]).contains("sent by hand"));
    let again = stack.run(&["payments", "refund", "0xdeadbeef", "-o", "json"]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("payment_unknown"));
}
