//! `kill -9` at random moments, also in the middle of writes: the next `stack up` brings every offer
//! back with nothing but the files.

use std::{collections::BTreeMap, fs, process::Stdio, thread, time::Duration};

use serde_json::Value;

use crate::support::{Stack, upstream};

/// More with `OBOL_KILL_ROUNDS`.
const ROUNDS: u32 = 10;

#[test]
fn every_offer_comes_back_after_kill_9() {
    let rounds = std::env::var("OBOL_KILL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let stack = Stack::on("obol-sandbox");
    let upstream = format!("http://127.0.0.1:{}", upstream());
    let mut offers: BTreeMap<String, Known> = BTreeMap::new();
    for round in 0..rounds {
        let node = stack.up();
        let moment = Duration::from_millis(rand::random_range(0..250));
        let killer = thread::spawn(move || {
            thread::sleep(moment);
            node.kill();
        });
        for step in 0..4 {
            let name = format!("offer-{}", rand::random_range(0..6));
            let price = format!("0.{round:03}{step}1");
            let args = ["sell", "http", &name, "--upstream", &upstream, "--price", &price];
            let mut child = stack.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let known = offers.entry(name.clone()).or_default();
            if rand::random() {
                thread::sleep(Duration::from_micros(rand::random_range(0..40_000)));
                child.kill().unwrap();
            }
            match child.wait().unwrap().code() {
                // 4: written, and the node died before it could be told.
                Some(0 | 4) => *known = Known { acknowledged: true, prices: vec![price.clone()] },
                None => known.prices.push(price.clone()),
                Some(code) => panic!("round {round}: `obol {}` ended with {code}", args.join(" ")),
            }
        }
        killer.join().unwrap();
        if round % 2 == 1 {
            let _ = fs::remove_dir_all(stack.path("state"));
            let _ = fs::remove_dir_all(stack.path("data"));
        }
        check(&stack, &offers, round);
    }
}

/// What may be on disk of one offer.
#[derive(Default)]
struct Known {
    /// A command that wrote it ended by itself.
    acknowledged: bool,
    /// What that command asked for, and all commands after it that were killed.
    prices: Vec<String>,
}

/// A fresh node serves exactly the offers on disk, each whole.
fn check(stack: &Stack, known: &BTreeMap<String, Known>, round: u32) {
    let node = stack.up();
    let list = stack.json(&["sell", "list"]);
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let served: BTreeMap<String, &Value> = list["offers"].as_array().unwrap().iter().map(|row| (text(row, "name"), row)).collect();
    for (name, known) in known {
        let Some(row) = served.get(name) else {
            assert!(!known.acknowledged && !stack.values(name).exists(), "round {round}: {name} is lost");
            continue;
        };
        let price = text(row, "price").replace(" PLAY", "");
        assert!(known.prices.contains(&price), "round {round}: {name} costs {price}, not one of {:?}", known.prices);
        assert_ne!(row["state"], "broken", "round {round}: {name}");
        assert_eq!(node.get(&format!("/services/{name}")).status, 402, "round {round}: {name}");
    }
    let folders = fs::read_dir(stack.path("config/applications/sell-http")).into_iter().flatten().flatten();
    let folders = folders.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count();
    assert_eq!(served.len(), folders, "round {round}");
}
