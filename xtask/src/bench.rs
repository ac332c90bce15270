//! Benchmarks: everything is built for release, then measured in one run.

use std::process::Command;

use clap::Subcommand;

use crate::{
    places::Places,
    provision,
    run::{Result, Steps, run},
};

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// The gateway beside a bare proxy and two other x402 servers
    Gateway {
        /// Length of each row
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// One second per row
        #[arg(long)]
        quick: bool,
        /// Count instructions per request instead, which no other load disturbs; needs valgrind
        #[arg(long, conflicts_with_all = ["seconds", "quick"])]
        instructions: bool,
    },
    /// 500 streams at once through the inference gateway: time to the first token, and memory
    Inference,
}

/// `cargo xtask bench …`
pub fn run_bench(bench: &Bench) -> Result {
    let Bench::Gateway { seconds, quick, instructions } = *bench else { return inference() };
    let what = match (instructions, quick) {
        (true, _) => "instructions".to_owned(),
        (false, true) => "1".to_owned(),
        (false, false) => seconds.clamp(1, 60).to_string(),
    };
    let places = Places::find()?;
    let mut steps = Steps::default();
    steps.step("provision: npm", || provision::node(&places))?;
    steps.step("build: x402-axum", || run(&mut places.peers(&["build", "--locked", "--release", "-p", "axum-peer"])))?;
    steps.step("build: obol and the load generator", || {
        run(&mut places.cargo(&["build", "--locked", "--release", "-p", "obol", "-p", "obol-bench", "--bins"]))
    })?;
    steps.step("measure", || {
        let mut measure = Command::new(places.target.join("release/obol-bench"));
        run(measure.arg(&what).env("OBOL_TESTBED", &places.cache).env("OBOL_BIN", places.obol()))
    })
}

fn inference() -> Result {
    let places = Places::find()?;
    // Where the result is kept; nothing else is provisioned.
    fs_err::create_dir_all(&places.cache)?;
    let mut steps = Steps::default();
    steps.step("build: obol and the load generator", || {
        run(&mut places.cargo(&["build", "--locked", "--release", "-p", "obol", "-p", "obol-bench", "--bins"]))
    })?;
    steps.step("measure", || {
        let mut measure = Command::new(places.target.join("release/obol-bench"));
        run(measure.arg("inference").env("OBOL_TESTBED", &places.cache).env("OBOL_BIN", places.obol()))
    })
}
