//! A power cut at any moment: what is on disk is what runs afterwards, and nothing else is needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
    time::{Duration, Instant},
};

use obol_e2e::{forge, http, stack::Stack};
use rand::Rng;

/// So many commands are to be cut short, in at most [`ROUNDS`].
const CUTS: u32 = 10;
const ROUNDS: u32 = 200;
/// Few names, so that most rounds rewrite a slice that exists.
const NAMES: u32 = 4;
const PAYEE: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_at_a_random_moment_leaves_every_slice_old_or_new_and_all_come_back() {
    let mut stack = Stack::new();
    // How long a command takes that nobody disturbs, so that the cuts fall into its whole length.
    let times = [1; 3].map(|price| {
        let begun = Instant::now();
        stack.ok(&words("offer-0", price));
        begun.elapsed()
    });
    let whole = times.into_iter().min().expect("three times");
    // What each offer may cost: the price that was told to be written, and the one being written.
    let mut prices = BTreeMap::from([("offer-0".to_owned(), vec![1])]);
    let mut sold = BTreeSet::from(["offer-0".to_owned()]);
    let (mut cut, mut finished) = (0, 0);

    for round in 1..=ROUNDS {
        if cut == CUTS {
            break;
        }
        stack.up().await;
        let name = format!("offer-{}", rand::rng().random_range(0..NAMES));
        let mut sell = stack.command();
        let mut sell = sell.args(words(&name, round)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("obol starts");
        tokio::time::sleep(whole.mul_f64(rand::rng().random_range(0.0..1.6))).await;
        // Odd rounds cut the power of node and command, even ones only kill the node.
        if round % 2 == 1 {
            let _ = sell.kill();
        }
        stack.kill();
        let done = sell.wait().expect("a child can be waited for").success();
        let possible = prices.entry(name.clone()).or_default();
        if done {
            finished += 1;
            sold.insert(name.clone());
            *possible = vec![round];
        } else {
            cut += 1;
            possible.push(round);
        }
        slices_are_whole(&stack, &sold);
    }
    println!("{finished} commands ended, {cut} were cut short");
    assert_eq!(cut, CUTS, "the cuts came too late to show anything");

    stack.up().await;
    let mut served = 0;
    for (name, possible) in &prices {
        if !stack.slice(name).exists() {
            continue;
        }
        stack.wait_for(&format!("/services/{name}"), 402).await;
        let answer = http().get(stack.url(&format!("/services/{name}"))).send().await.expect("the node answers");
        let header = answer.headers().get("payment-required").and_then(|value| value.to_str().ok()).expect("a challenge").to_owned();
        let amount = forge::decode(&header)["accepts"][0]["amount"].as_str().and_then(|amount| amount.parse::<u32>().ok());
        assert!(amount.is_some_and(|amount| possible.contains(&amount)), "{name} costs {amount:?}, and was sold for one of {possible:?}");
        served += 1;
    }
    let status = stack.status();
    let offers = status["offers"].as_array().expect("offers are listed");
    assert_eq!(offers.len(), served, "{status}");
    assert!(offers.iter().all(|offer| offer["diagnostics"].as_array().is_none_or(Vec::is_empty)), "a slice is broken: {status}");
}

/// `obol sell http NAME …` for `price` atomic units.
fn words(name: &str, price: u32) -> Vec<String> {
    let line = format!(
        "sell http {name} --upstream http://127.0.0.1:9 --price 0.{price:06} --pay-to {PAYEE} --network base-sepolia \
         --facilitator http://127.0.0.1:9"
    );
    line.split(' ').map(str::to_owned).collect()
}

/// Each slice is there with both of its files, or not at all; whoever was told that it is written finds it.
fn slices_are_whole(stack: &Stack, sold: &BTreeSet<String>) {
    for name in (0..NAMES).map(|number| format!("offer-{number}")) {
        let slice = stack.slice(&name);
        let files = ["values-offer.yaml", "helmfile.yaml"].map(|file| slice.join(file).exists());
        assert!(files == [slice.exists(); 2], "{name} is half there: {files:?}");
        assert!(slice.exists() || !sold.contains(&name), "{name} was sold and is lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_starts_after_a_kill_while_it_starts() {
    let mut stack = Stack::new();
    stack.ok(&words("offer", 7));
    for _ in 0..10 {
        let mut node = obol_e2e::process::Process::start("obol stack up", stack.command().args(["stack", "up"]));
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..30))).await;
        node.kill();
    }
    stack.up().await;
    stack.wait_for("/services/offer", 402).await;
}
