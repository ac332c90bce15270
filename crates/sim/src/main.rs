//! `obol-sim`: many seeds, or one of them again.

use std::{
    io,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use clap::Parser;
use obol_sim::{Counts, Outcome, run};

#[derive(Parser)]
#[command(name = "cargo xtask sim", about = "Simulate payments: crashes, losses, lies; exits 1 on the first broken promise")]
struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// One seed, with its trace; run twice, and compared
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = io::stdout().lock();
    let result = match args.seed {
        Some(seed) => one(seed, &mut out),
        None => many(&args, &mut out),
    };
    result.unwrap_or(ExitCode::FAILURE)
}

fn one(seed: u64, out: &mut impl io::Write) -> io::Result<ExitCode> {
    let (first, again) = (run(seed, None, true), run(seed, None, false));
    show(seed, &first, out)?;
    writeln!(out, "again: trace {:016x}, {}", again.hash, if again.hash == first.hash { "the same" } else { "NOT THE SAME" })?;
    let good = first.violation.is_none() && again.hash == first.hash;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(seed: u64, outcome: &Outcome, out: &mut impl io::Write) -> io::Result<()> {
    for line in &outcome.trace {
        writeln!(out, "{line}")?;
    }
    let verdict = outcome.violation.as_deref().unwrap_or("every promise was kept");
    writeln!(out, "seed {seed}: trace {:016x}: {verdict}", outcome.hash)
}

fn many(args: &Args, out: &mut impl io::Write) -> io::Result<ExitCode> {
    let (end, begun) = (args.start.saturating_add(args.seeds), Instant::now());
    let (next, failed, done) = (AtomicU64::new(args.start), AtomicU64::new(u64::MAX), Mutex::new((Counts::default(), 0u64)));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= end || failed.load(Relaxed) < seed {
                        return;
                    }
                    let outcome = run(seed, None, false);
                    if outcome.violation.is_some() {
                        failed.fetch_min(seed, Relaxed);
                    }
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.0 += outcome.counts;
                    done.1 = done.1.wrapping_add(outcome.hash);
                }
            });
        }
    });
    let failed = failed.into_inner();
    if failed != u64::MAX {
        show(failed, &run(failed, None, true), out)?;
        writeln!(out, "once more: cargo xtask sim --seed {failed}")?;
        return Ok(ExitCode::FAILURE);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (counts, hash) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Counts { requests, settles, transfers, delivered, crashes, streams, reruns, refunds } = counts;
    writeln!(
        out,
        "{} seeds in {seconds:.1} s, {:.0} a second: {requests} requests, {settles} questions to settle, {transfers} transfers, \
         {delivered} answers ({streams} streamed, {reruns} made again), {refunds} refunds, {crashes} crashes; every promise was kept; trace {hash:016x}",
        args.seeds,
        args.seeds as f64 / seconds
    )?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
