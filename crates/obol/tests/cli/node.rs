//! With a node: what is typed is what is served.

use std::fs;

use serde_json::Value;

use crate::support::{Stack, upstream, wait};

/// Anvil's second public key; never worth anything.
const BUYER_KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const BUYER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

#[test]
fn an_offer_lives_from_sell_to_delete() {
    let stack = Stack::on("obol-sandbox");
    let node = stack.up();
    let upstream = format!("http://127.0.0.1:{}", upstream());
    let path = "/services/weather";
    assert_eq!(node.get(path).status, 404);

    let sold = stack.json(&["sell", "http", "weather", "--upstream", &upstream, "--price", "0.001"]);
    assert_eq!((&sold["change"], &sold["applied"]), (&"created".into(), &true.into()));
    assert_eq!(sold["offer"]["url"], format!("http://{}{path}", node.listen));
    let unpaid = node.get(path);
    assert_eq!(unpaid.status, 402, "{}", unpaid.body);
    assert!(unpaid.head.contains("\r\npayment-required: "), "{}", unpaid.head);
    assert_eq!(serde_json::from_str::<Value>(&unpaid.body).unwrap()["x402Version"], 1);
    wait("the offer is ready", || stack.json(&["sell", "status", "weather"])["state"] == "ready");
    let tested = stack.json(&["sell", "test", "weather"]);
    assert_eq!((&tested["gated"], &tested["accepts"][0]["amount"]), (&true.into(), &"1000".into()));
    assert_eq!(stack.ok(&["diff", "--exit-code"]).stdout, "no change\n");

    stack.ok(&["sell", "stop", "weather", "--grace", "1h"]);
    assert_eq!(node.get(path).status, 402, "a stopping offer serves until its grace period ends");
    assert_eq!(stack.json(&["sell", "status", "weather"])["state"], "draining");
    stack.ok(&["sell", "stop", "weather", "--now"]);
    wait("a stopped offer is gone", || node.get(path).status == 404);
    let untested = stack.run(&["sell", "test", "weather", "--output", "json"]);
    assert_eq!(untested.code, 1);
    assert_eq!(serde_json::from_str::<Value>(&untested.stdout).unwrap()["problems"][0]["code"], "not_gated");
    stack.ok(&["sell", "start", "weather"]);
    assert_eq!(node.get(path).status, 402);
    stack.ok(&["sell", "delete", "weather", "--yes"]);
    assert_eq!(node.get(path).status, 404);
    assert_eq!(stack.json(&["sell", "list"])["offers"], serde_json::json!([]));

    stack.ok(&["stack", "down"]);
    assert_eq!(node.ended(), 0);
    assert_eq!(stack.run(&["stack", "status"]).code, 4);
}

#[test]
fn a_buyer_pays_once_and_never_above_the_limit() {
    let stack = Stack::on("obol-sandbox");
    let node = stack.up();
    stack.ok(&["sell", "http", "weather", "--upstream", &format!("http://127.0.0.1:{}", upstream()), "--price", "0.25"]);
    let url = format!("http://{}/services/weather", node.listen);
    let pay = |more: &[&str]| stack.run_with(&[&["pay", &url], more].concat(), |c| _ = c.env("OBOL_PAY_KEY", BUYER_KEY));
    let balance = || stack.ok(&["sandbox", "balance", BUYER]).stdout;

    assert_eq!(stack.ok(&["sandbox", "fund", BUYER, "1"]).stdout, "1 PLAY\n");
    let dear = pay(&["--max", "0.2", "-o", "json"]);
    assert_eq!((dear.code, dear.error_code(), balance()), (1, "too_expensive".into(), "1 PLAY\n".into()));
    let shown = pay(&["--dry-run"]);
    assert!(shown.stdout.contains("0.25 PLAY") && balance() == "1 PLAY\n", "{}", shown.stdout);

    let paid = pay(&["--max", "0.25"]);
    assert_eq!((paid.code, paid.stdout.as_str()), (0, "hello"), "{}", paid.stderr);
    assert!(paid.stderr.contains("paid 0.25 PLAY on obol-sandbox, transaction 0x"), "{}", paid.stderr);
    assert_eq!(balance(), "0.75 PLAY\n");
    let receipt = pay(&["--max", "1", "-X", "POST", "--data", "x", "--header", "x-a: b", "-o", "json"]);
    let receipt: Value = serde_json::from_str(&receipt.stderr).unwrap();
    assert_eq!(
        (&receipt["status"], &receipt["paid"]["price"], &receipt["receipt"]["success"]),
        (&200.into(), &"0.25".into(), &true.into())
    );
    assert_eq!(balance(), "0.5 PLAY\n");

    stack.ok(&["sell", "http", "weather", "--route", "path=/free,gate=free"]);
    let free = stack.run_with(&["pay", &format!("{url}/free")], |c| _ = c.env("OBOL_PAY_KEY", BUYER_KEY));
    assert_eq!((free.code, free.stdout.as_str(), balance().as_str()), (0, "hello", "0.5 PLAY\n"), "{}", free.stderr);
    let nowhere = stack.run_with(&["pay", &format!("http://{}/none", node.listen)], |c| _ = c.env("OBOL_PAY_KEY", BUYER_KEY));
    assert_eq!(nowhere.code, 1, "{}", nowhere.stderr);
}

#[test]
fn edits_by_hand_are_live_and_a_broken_slice_hurts_nobody() {
    let stack = Stack::on("obol-sandbox");
    let node = stack.up();
    let upstream = format!("http://127.0.0.1:{}", upstream());
    for name in ["weather", "alerts"] {
        stack.ok(&["sell", "http", name, "--upstream", &upstream, "--price", "0.001"]);
    }
    let file = stack.values("weather");
    let good = fs::read_to_string(&file).unwrap();
    let amount = || stack.json(&["pay", &format!("http://{}/services/weather", node.listen), "--dry-run"])["accepts"][0]["amount"].clone();
    fs::write(&file, good.replace("0.001", "0.005")).unwrap();
    wait("the edit is served", || amount() == "5000");

    fs::write(&file, good.replace("\"0.001\"", "\"nothing\"")).unwrap();
    wait("the broken slice is seen", || stack.json(&["sell", "status", "weather"])["state"] == "broken");
    assert_eq!(amount(), "5000", "the last good version goes on");
    assert_eq!(node.get("/services/alerts").status, 402);
    let status = stack.ok(&["stack", "status"]);
    assert!(status.stderr.contains("applications/sell-http/weather/values-offer.yaml:12:"), "{}", status.stderr);
    assert!(status.stderr.contains("[price]") && status.stderr.contains("fix"), "{}", status.stderr);
    let row = &stack.json(&["stack", "status"])["offers"][1];
    assert_eq!((&row["name"], &row["current"], &row["problems"][0]["code"]), (&"weather".into(), &false.into(), &"price".into()));

    fs::write(&file, &good).unwrap();
    wait("the mended slice is served", || amount() == "1000");
    fs::remove_dir_all(file.parent().unwrap()).unwrap();
    wait("the deleted slice is gone", || node.get("/services/weather").status == 404);
}

#[test]
fn there_is_one_node_and_it_is_not_purged_alive() {
    let stack = Stack::on("obol-sandbox");
    let node = stack.up();
    let second = stack.run(&["stack", "up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "-o", "json"]);
    assert_eq!((second.code, second.error_code()), (1, "already_running".to_owned()));
    let purge = stack.run(&["stack", "purge", "--yes", "-o", "json"]);
    assert_eq!((purge.code, purge.error_code()), (1, "node_running".to_owned()));
    let taken = Stack::on("obol-sandbox");
    let run = taken.run(&["stack", "up", "--listen", &node.listen.to_string(), "--admin", "127.0.0.1:0", "-o", "json"]);
    assert_eq!((run.code, run.error_code()), (1, "listen".to_owned()));
    // SIGTERM ends in order.
    let pid = node.child.id().to_string();
    assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
    assert_eq!(node.ended(), 0);
    stack.ok(&["stack", "purge", "--yes"]);
}
