//! Fuzzing with libFuzzer, on the stable compiler: coverage comes from its own flags.

use std::{fmt::Write as _, process::Command};

use clap::Args;

use crate::{
    places::Places,
    run::{Error, Result, Steps, run},
};

/// Every target, as in `fuzz/src/lib.rs`.
const TARGETS: [&str; 13] = [
    "challenge",
    "facilitator",
    "framing",
    "inference",
    "journal",
    "offer_edit",
    "offer_file",
    "path",
    "payment",
    "price",
    "receipt",
    "rpc",
    "signature",
];

/// As `cargo fuzz` gives them, without a sanitizer: there is no unsafe code to watch.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares -Clink-dead-code";

/// How long, and what.
#[derive(Args)]
pub struct Fuzz {
    /// Time for each target; 0 runs the seeds only
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// One target only
    #[arg(long, value_parser = TARGETS)]
    only: Option<String>,
}

/// `cargo xtask fuzz`
pub fn fuzz(args: &Fuzz) -> Result {
    let places = Places::find()?;
    // With a target of its own, the flags do not reach build scripts.
    let (triple, target) = (triple()?, places.cache.join("fuzz-target"));
    let mut steps = Steps::default();
    steps.step("build", || {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--locked", "--release", "--bins", "--target", &triple]).current_dir(places.root.join("fuzz"));
        run(cargo.env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", FLAGS))
    })?;
    let program = target.join(&triple).join("release/obol-fuzz");
    let mut report = String::new();
    for name in TARGETS.into_iter().filter(|name| args.only.as_ref().is_none_or(|only| only == name)) {
        // What is found goes to the cache; the seeds stay as they are.
        let (found, seeds) = (places.cache.join("fuzz-corpus").join(name), places.root.join("fuzz/corpus").join(name));
        let log = places.cache.join(format!("fuzz-{name}.log"));
        fs_err::create_dir_all(&found)?;
        let limit = if args.seconds == 0 { "-runs=0".to_owned() } else { format!("-max_total_time={}", args.seconds) };
        let result = steps.step(name, || {
            let mut fuzzer = Command::new(&program);
            fuzzer.args([&limit, "-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048", "-max_len=4096", "-verbosity=0"]);
            fuzzer.arg(format!("-artifact_prefix={}/crash-{name}-", places.cache.display())).arg(&found).arg(&seeds);
            run(fuzzer.env("OBOL_FUZZ", name).stderr(fs_err::File::create(&log)?.into_parts().0))
        });
        let told = fs_err::read_to_string(&log)?;
        if let Err(error) = result {
            let last: Vec<_> = told.lines().rev().take(30).collect();
            return Err(Error::Check(format!("{error}\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))));
        }
        let executions = told.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:")).unwrap_or(" 0").trim();
        // Writing to a string cannot fail.
        let _ = writeln!(report, "{name:<16}{executions:>12} executions");
    }
    println!("\n{report}");
    Ok(())
}

/// The machine's own target triple.
fn triple() -> Result<String> {
    let said = crate::run::output(Command::new("rustc").arg("-vV"))?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned);
    host.ok_or_else(|| Error::Check("rustc does not say its host".into()))
}
