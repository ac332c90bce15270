//! `cargo xtask bench gateway`: the gateway beside a bare proxy and two other x402 servers, in one
//! run on one machine. See README.md beside this.

mod inference;
mod instructions;
mod load;

use std::{
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use load::{Figures, Plan};
use obol_e2e::{anvil::KEYS, forge, http, keep, part, process::Process, stack::Stack};
use serde_json::Value;

/// 0.001 USDC in atomic units.
const PRICE: u64 = 1_000;
const PAYEE: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";

/// A server under test: URLs of its free and its paid route.
struct Server {
    name: &'static str,
    free: String,
    /// Absent for the bare proxy.
    paid: Option<String>,
    /// Most paid requests per second that it may reach; so many payments are signed before.
    ceiling: usize,
}

struct Row {
    server: &'static str,
    work: &'static str,
    connections: usize,
    figures: Figures,
}

/// For `stack.yaml`: one address may ask as often as it likes.
const UNBOUNDED: &str = "limits:\n  challengeRate: 4000000000\n";

/// `obol-bench SECONDS`, `obol-bench instructions`, or `obol-bench inference`.
#[tokio::main]
async fn main() {
    match std::env::args().nth(1).unwrap_or_default().as_str() {
        "inference" => inference::measure().await,
        "instructions" => instructions::count().await,
        seconds => rates(seconds.parse().unwrap_or(5)).await,
    }
}

async fn rates(seconds: u64) {
    let time = Duration::from_secs(seconds);
    let (_upstream, upstream) = start("upstream", Command::new(parts()).arg("upstream"));
    let (_facilitator, facilitator) = start("facilitator", Command::new(parts()).arg("facilitator"));
    let (_proxy, proxy) = start("proxy", Command::new(parts()).args(["proxy", &upstream]));
    let (_axum, axum) = start("x402-axum", &mut axum(&facilitator));
    let (_express, express) = start("@x402/express", peer(Command::new("node").arg(part("node/express-peer.mjs")), &facilitator));
    let mut stack = Stack::with(UNBOUNDED);
    stack.up().await;
    sell(&stack, &upstream, &facilitator);
    stack.wait_for("/services/bench/paid", 402).await;

    let sells = |name, url: &str, ceiling| Server { name, free: format!("{url}/free"), paid: Some(format!("{url}/paid")), ceiling };
    let servers = [
        Server { name: "bare hyper proxy", free: format!("{proxy}/free"), paid: None, ceiling: 0 },
        sells("obol", &stack.url("/services/bench"), 20_000),
        sells("x402-axum 2.0.2 *", &axum, 20_000),
        sells("@x402/express 2.27 *", &express, 2_000),
    ];
    let mut rows = Vec::new();
    for connections in [32, 1] {
        for server in &servers {
            measure(server, connections, time, &mut rows).await;
        }
    }
    let peak = stack.node().peak_memory_kib();
    let table = table(&rows, seconds, peak);
    println!("\n{table}");
    keep("bench-gateway.txt", &table);
}

fn start(name: &str, command: &mut Command) -> (Process, String) {
    let mut process = Process::start(name, command);
    let url = process.wait_for_url();
    (process, url)
}

/// The programs around the servers under test.
fn parts() -> PathBuf {
    std::env::current_exe().expect("this program is a file").with_file_name("parts")
}

fn peer<'c>(command: &'c mut Command, facilitator: &str) -> &'c mut Command {
    command.env("FACILITATOR_URL", facilitator).env("PAY_TO", PAYEE).env("NODE_ENV", "production")
}

fn axum(facilitator: &str) -> Command {
    let mut command = Command::new(part("testbed-target/release/axum-peer"));
    peer(&mut command, facilitator);
    command
}

fn sell(stack: &Stack, upstream: &str, facilitator: &str) {
    let offer = ["sell", "http", "bench", "--upstream", upstream, "--price", "0.001", "--pay-to", PAYEE, "--network", "base-sepolia"];
    stack.ok(&[&offer[..], &["--facilitator", facilitator, "--route", "path=/free,gate=free"]].concat());
}

async fn measure(server: &Server, connections: usize, time: Duration, rows: &mut Vec<Row>) {
    let mut works = vec![("free", &server.free, 200, Vec::new())];
    if let Some(paid) = &server.paid {
        let seconds = usize::try_from(time.as_secs()).unwrap_or(1);
        let number = if connections == 1 { server.ceiling / 2 } else { server.ceiling } * seconds;
        works.push(("unpaid 402", paid, 402, Vec::new()));
        works.push(("paid", paid, 200, payments(paid, number).await));
    }
    for (work, url, status, payments) in works {
        let plan = Arc::new(Plan { url: url.parse().expect("a URL"), status, payments, requests: usize::MAX });
        if plan.payments.is_empty() {
            load::run(&plan, connections, Duration::from_millis(300)).await;
        }
        let figures = load::run(&plan, connections, time).await;
        println!("{:<22} {work:<11} {connections:>3} {:>9.0}/s", server.name, figures.rate);
        rows.push(Row { server: server.name, work, connections, figures });
    }
}

/// Signs payments for what `url` asks for: each is used once, since a server worth its name
/// refuses the second use.
async fn payments(url: &str, number: usize) -> Vec<String> {
    let answer = http().get(url).send().await.expect("the server answers");
    let header = answer.headers().get("payment-required").and_then(|header| header.to_str().ok()).expect("a v2 challenge");
    let challenge: Value = forge::decode(header);
    let terms = forge::terms(PAYEE.parse().expect("an address"), PRICE);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let sign = move || {
        let mut payment = forge::payment(KEYS[7], &terms, 0, now + 250);
        payment["accepted"] = challenge["accepts"][0].clone();
        payment["resource"] = challenge["resource"].clone();
        forge::header(&payment)
    };
    let sign = Arc::new(sign);
    let signing = (0..workers).map(|_| {
        let sign = Arc::clone(&sign);
        tokio::task::spawn_blocking(move || (0..number.div_ceil(workers)).map(|_| sign()).collect::<Vec<_>>())
    });
    futures_util::future::join_all(signing).await.into_iter().flat_map(|part| part.expect("signing works")).collect()
}

fn table(rows: &[Row], seconds: u64, peak: u64) -> String {
    let rate = |server: &str, work: &str, connections: usize| {
        let row = rows.iter().find(|row| (row.server, row.work, row.connections) == (server, work, connections));
        row.map(|row| row.figures.rate)
    };
    let ratio = |of: f64, to: Option<f64>| to.map_or_else(|| "-".to_owned(), |to| format!("{:.2}", of / to));
    let mut text = format!(
        "{:<11} {:>3}  {:<22} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
        "work", "C", "server", "requests/s", "p50 us", "p99 us", "of its free", "of obol"
    );
    for connections in [32, 1] {
        for work in ["free", "unpaid 402", "paid"] {
            for row in rows.iter().filter(|row| row.work == work && row.connections == connections) {
                let Figures { rate: this, p50, p99 } = row.figures;
                let (free, obol) = (ratio(this, rate(row.server, "free", connections)), ratio(this, rate("obol", work, connections)));
                text += &format!(
                    "{work:<11} {connections:>3}  {:<22} {this:>10.0} {:>10} {:>10} {free:>11} {obol:>10}\n",
                    row.server,
                    p50.as_micros(),
                    p99.as_micros()
                );
            }
        }
    }
    text + &format!(
        "\n* answers from a handler in its own process; obol and the bare proxy forward to an upstream, one hop more.\n\
         {seconds} s per row. Load generator, server, upstream and facilitator (0 ms) share this machine: compare rows, not machines.\n\
         obol refuses replays and writes a payment to disk before it asks to settle; the peers do neither. Its peak memory: {peak} KiB."
    )
}
