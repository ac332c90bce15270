//! What was paid, looked up through the node that has the journal.

use serde_json::Value;

use crate::{
    golden,
    support::{Stack, upstream, wait},
};

/// Anvil's second public key; never worth anything.
const BUYER_KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const BUYER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

#[test]
fn payments_are_listed_shown_and_exported() {
    let stack = Stack::on("obol-sandbox");
    let node = stack.up();
    assert_eq!(stack.ok(&["payments", "list"]).stdout, "no payments\n");
    assert_eq!(stack.ok(&["payments", "owed"]).stdout, "no payments\n");
    for (name, price) in [("weather", "0.25"), ("alerts", "0.001")] {
        stack.ok(&["sell", "http", name, "--upstream", &format!("http://127.0.0.1:{}", upstream()), "--price", price]);
    }
    stack.ok(&["sandbox", "fund", BUYER, "1"]);
    for name in ["weather", "alerts", "weather"] {
        let paid = stack
            .run_with(&["pay", &format!("http://{}/services/{name}", node.listen), "--max", "1"], |c| _ = c.env("OBOL_PAY_KEY", BUYER_KEY));
        assert_eq!(paid.code, 0, "{}", paid.stderr);
    }
    let delivered = || stack.json(&["payments", "list", "--state", "delivered"])["payments"].as_array().unwrap().len();
    wait("the answers are delivered", || delivered() == 3);
    let page = stack.json(&["payments", "list"]);
    let payments = page["payments"].as_array().unwrap();
    assert_eq!(payments.iter().map(|p| p["offer"].as_str().unwrap()).collect::<Vec<_>>(), ["weather", "alerts", "weather"]);
    let first = &payments[0];
    assert_eq!((&first["amount"], &first["amountDecimal"], &first["symbol"]), (&"250000".into(), &"0.25".into(), &"PLAY".into()));
    assert_eq!((&first["state"], &first["payer"]), (&"delivered".into(), &BUYER.into()));
    assert!(!page.to_string().contains("signature"));

    let key = first["key"].as_str().unwrap();
    let nonce = key.rsplit('/').next().unwrap();
    assert_eq!(stack.json(&["payments", "show", key]), *first);
    assert_eq!(stack.json(&["payments", "show", &nonce[..20]]), *first);
    assert_eq!(stack.json(&["payments", "show", first["transaction"].as_str().unwrap()]), *first);
    let hide = |text: String| {
        let mut text = text;
        for payment in payments {
            for field in ["created", "updated"] {
                let time = payment[field].as_str().unwrap();
                text = text.replace(&format!("{}Z", &time[..19]), "[TIME]");
            }
            let (nonce, transaction) =
                (payment["key"].as_str().unwrap().rsplit('/').next().unwrap(), payment["transaction"].as_str().unwrap());
            for (hash, name) in [(nonce, "[NONCE]"), (transaction, "[HASH]")] {
                text = text.replace(hash, name).replace(&hash[..12], name);
            }
        }
        text
    };
    golden!("payments-list", hide(stack.ok(&["payments", "list"]).stdout));
    golden!("payments-show", hide(stack.ok(&["payments", "show", key]).stdout));
    golden!("payments-export-csv", hide(stack.ok(&["payments", "export"]).stdout));

    let count = |args: &[&str]| stack.json(&[&["payments", "list"], args].concat())["payments"].as_array().unwrap().len();
    assert_eq!(count(&["--offer", "weather"]), 2);
    assert_eq!(count(&["--state", "owed"]), 0);
    assert_eq!(count(&["--payer", BUYER, "--since", "1h"]), 3);
    let page = stack.json(&["payments", "list", "--limit", "2"]);
    let next = page["next"].as_str().unwrap();
    assert_eq!(count(&["--limit", "2", "--cursor", next]), 1);
    let exported: Value = serde_json::from_str(&stack.ok(&["payments", "export", "--format", "json"]).stdout).unwrap();
    assert_eq!((exported.as_array().unwrap().len(), &exported[2]), (3, first), "the oldest first");
    let old: Value = serde_json::from_str(&stack.ok(&["payments", "export", "--format", "json", "--until", "2020-01-01"]).stdout).unwrap();
    assert_eq!(old, serde_json::json!([]));
    assert!(stack.ok(&["payments", "list", "-o", "yaml"]).stdout.starts_with("payments:"), "yaml");

    stack.ok(&["stack", "down"]);
    assert_eq!(node.ended(), 0);
    for args in [&["payments", "list"][..], &["payments", "owed"], &["payments", "export"], &["payments", "show", key]] {
        let run = stack.run(&[args, &["-o", "json"]].concat());
        assert_eq!((run.code, run.stdout.as_str(), run.error_code().as_str()), (4, "", "node_unreachable"), "{args:?}");
    }
    // The next node knows them too.
    let _node = stack.up();
    assert_eq!(count(&[]), 3);
}

#[test]
fn lookups_that_make_no_sense_are_refused() {
    let stack = Stack::on("obol-sandbox");
    let _node = stack.up();
    let refused = |args: &[&str], code: i32| {
        let run = stack.run(&[&["payments"], args, &["-o", "json"]].concat());
        assert_eq!((run.code, run.stdout.as_str()), (code, ""), "{args:?}: {}", run.stderr);
        run.error_code()
    };
    assert_eq!(refused(&["list", "--state", "vanished"], 2), "state");
    assert_eq!(refused(&["list", "--offer", "A b"], 2), "offer_name");
    assert_eq!(refused(&["list", "--payer", "0x"], 2), "address");
    assert_eq!(refused(&["list", "--since", "soon"], 2), "when");
    assert_eq!(refused(&["list", "--limit", "0"], 2), "value_invalid");
    assert_eq!(refused(&["list", "--cursor", "x"], 1), "cursor_invalid");
    assert_eq!(refused(&["show", "0x"], 2), "payment_key");
    assert_eq!(refused(&["show", "0xdead"], 1), "payment_unknown");
}
