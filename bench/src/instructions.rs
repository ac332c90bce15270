//! Instructions per request in user space, counted by callgrind: a busy machine counts the same as an idle one.
//!
//! What it cannot see is the kernel and the disk; rates are for that.

use std::{
    process::{Command, Output},
    sync::Arc,
};

use obol_e2e::{http, keep, process::Process, stack::Stack};
use tempfile::TempDir;

use crate::{
    load::{self, Plan},
    parts, payments, sell, start,
};

/// Requests before the count, so that pools are filled and code was seen once.
const WARM_UP: usize = 100;
const REQUESTS: usize = 1_000;
const CONNECTIONS: usize = 4;

/// A server that callgrind runs.
struct Counted {
    name: &'static str,
    process: u32,
    free: String,
    paid: Option<String>,
}

/// Counts for the bare proxy, obol and x402-axum, and prints a table.
pub async fn count() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (_upstream, upstream) = start("upstream", Command::new(parts()).arg("upstream"));
    let (_facilitator, facilitator) = start("facilitator", Command::new(parts()).arg("facilitator"));
    let (bare, bare_url) = start("proxy", counting(Command::new(parts()).args(["proxy", &upstream]), &folder));
    let (axum, axum_url) = start("x402-axum", counting(&mut crate::axum(&facilitator), &folder));
    let stack = Stack::with(crate::UNBOUNDED);
    let node = Process::start("obol stack up", counting(stack.command().args(["stack", "up"]), &folder));
    let ready = format!("http://{}/readyz", stack.admin);
    while !http().get(&ready).send().await.is_ok_and(|answer| answer.status().is_success()) {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    sell(&stack, &upstream, &facilitator);
    stack.wait_for("/services/bench/paid", 402).await;

    let obol = stack.url("/services/bench");
    let servers = [
        Counted { name: "bare hyper proxy", process: bare.id(), free: format!("{bare_url}/free"), paid: None },
        Counted { name: "obol", process: node.id(), free: format!("{obol}/free"), paid: Some(format!("{obol}/paid")) },
        Counted { name: "x402-axum *", process: axum.id(), free: format!("{axum_url}/free"), paid: Some(format!("{axum_url}/paid")) },
    ];
    let mut table = format!("{:<11} {:<22} {:>22}\n", "work", "server", "instructions/request");
    for server in &servers {
        let mut works = vec![("free", &server.free, 200, false)];
        if let Some(paid) = &server.paid {
            works.extend([("unpaid 402", paid, 402, false), ("paid", paid, 200, true)]);
        }
        for (work, url, status, pays) in works {
            let signed = if pays { payments(url, WARM_UP + REQUESTS).await } else { Vec::new() };
            let (warm_up, counted) = signed.split_at(signed.len().min(WARM_UP));
            ask(url, status, warm_up, WARM_UP).await;
            dump(server.process, &folder, "warm-up");
            ask(url, status, counted, REQUESTS).await;
            let instructions = dump(server.process, &folder, "counted") / REQUESTS as u64;
            let line = format!("{work:<11} {:<22} {instructions:>22}\n", server.name);
            print!("{line}");
            table += &line;
        }
    }
    table += "\n* answers from a handler in its own process; obol and the bare proxy forward to an upstream, one hop more.";
    println!("\n{table}");
    keep("bench-instructions.txt", &table);
}

async fn ask(url: &str, status: u16, payments: &[String], requests: usize) {
    let plan = Arc::new(Plan { url: url.parse().expect("a URL"), status, payments: payments.to_vec(), requests });
    load::run(&plan, CONNECTIONS, std::time::Duration::from_secs(600)).await;
}

/// The same program under callgrind. Its children are not followed.
fn counting<'c>(command: &'c mut Command, folder: &TempDir) -> &'c mut Command {
    let mut counting = Command::new("valgrind");
    counting.args(["--quiet", "--tool=callgrind"]);
    counting.arg(format!("--callgrind-out-file={}/%p", folder.path().display()));
    counting.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => counting.env(name, value),
            None => counting.env_remove(name),
        };
    }
    *command = counting;
    command
}

/// Has the counters written and set to zero; what they were.
fn dump(process: u32, folder: &TempDir, label: &str) -> u64 {
    let Output { status, stderr, .. } = Command::new("callgrind_control")
        .args([&format!("--dump={label}"), &process.to_string()])
        .output()
        .expect("callgrind_control, which comes with valgrind, starts");
    assert!(status.success(), "callgrind_control: {}", String::from_utf8_lossy(&stderr));
    let files = fs_err::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").path());
    let latest = files
        .filter(|path| path.to_string_lossy().contains(&format!("/{process}.")))
        .max_by_key(|path| path.extension().and_then(|number| number.to_str()).and_then(|number| number.parse::<u32>().ok()));
    let text = fs_err::read_to_string(latest.expect("a dump")).expect("a file");
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals:").or(line.strip_prefix("summary:")));
    total.and_then(|total| total.trim().parse().ok()).expect("callgrind tells a total")
}
