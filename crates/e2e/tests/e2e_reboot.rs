//! A power cut at any moment: what is on disk is what runs afterwards, and nothing else is needed.

use std::{collections::BTreeSet, time::Duration};

use obol_e2e::{stack::Stack, upstream::Upstream};
use rand::Rng;

const ROUNDS: u32 = 12;
const PAYEE: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_at_random_moments_comes_back_with_every_offer() {
    let upstream = Upstream::start().await;
    let mut stack = Stack::new();
    let mut sold = BTreeSet::new();
    for round in 0..ROUNDS {
        stack.up().await;
        let pause = rand::rng().random_range(0..40);
        let name = format!("offer-{round}");
        let mut sell = stack.command();
        sell.args(["sell", "http", &name, "--upstream", &upstream.url, "--price", "0.001", "--pay-to", PAYEE]);
        let mut sell =
            sell.args(["--network", "base-sepolia", "--facilitator", "http://127.0.0.1:9", "--quiet"]).spawn().expect("obol starts");
        tokio::time::sleep(Duration::from_millis(pause)).await;
        stack.kill();
        if round % 2 == 0 {
            // The writer dies in the middle too: its slice is there as a whole, or not at all.
            let _ = sell.kill();
        }
        let _ = sell.wait();
        if stack.slice(&name).join("values-offer.yaml").exists() {
            sold.insert(name);
        }
    }
    assert!(sold.len() >= ROUNDS as usize / 2, "a command that was not killed must leave its slice: {sold:?}");

    stack.up().await;
    for name in &sold {
        stack.wait_for(&format!("/services/{name}"), 402).await;
    }
    let status = stack.status();
    let offers = status["offers"].as_array().expect("offers are listed");
    let served: BTreeSet<String> = offers.iter().filter_map(|offer| offer["name"].as_str().map(str::to_owned)).collect();
    assert_eq!(served, sold, "{status}");
    assert!(offers.iter().all(|offer| offer["diagnostics"].as_array().is_none_or(Vec::is_empty)), "no slice is broken: {status}");
    println!("{} offers after {ROUNDS} kills", served.len());
}
