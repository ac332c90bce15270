//! `cargo xtask …`: the repository's own commands. Each runs the real tools and stops at the
//! first thing that is wrong, with that tool's own words.

// These commands talk to a person on a terminal and ship in nothing.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod cluster;
mod fuzz;
mod generate;
mod image;
mod kill;
mod layers;
mod metadata;
mod oci;
mod places;
mod provision;
mod push;
mod run;
mod sbom;
mod sim;
mod suite;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Checks, tests and benchmarks of this repository", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Provision the test environment and run everything
    Test {
        /// Run one part only
        #[arg(long, value_enum)]
        only: Option<Part>,
        /// Show the steps, and run none
        #[arg(long)]
        list: bool,
    },
    /// Provision the test environment, and run nothing
    Provision {
        /// For one part only
        #[arg(long, value_enum)]
        only: Option<Part>,
    },
    /// Write what is made from the Rust types: schemas of the charts, the record of shipped files
    Generate,
    /// Build the container image, without a container engine
    Image(image::ImageArgs),
    /// Check which crate may depend on what
    Layers,
    /// Write the custom resource definition into its chart
    Crd,
    /// Check for known vulnerabilities; needs the network, for the advisory database
    Advisories,
    /// Measure
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Simulate payments among crashes and lossy facilitators: --seeds N, --start S, --seed S
    Sim {
        /// For the simulation
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Kill the node at random under load, then compare chain, journal and answers
    Kill(kill::Kill),
    /// The test cluster: a real single-node Kubernetes
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Fuzz every parser of outside bytes, and tell how many inputs were tried
    Fuzz(fuzz::Fuzz),
}

/// A part of the whole test run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Formatting, lints, licences, layers, contracts
    Lint,
    /// Tests of every crate
    Unit,
    /// Tests of the real binary with real clients, facilitators and an EVM node
    E2e,
    /// Tests on a real Kubernetes
    Cluster,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Test { only, list } => suite::test(only, list),
        Command::Provision { only } => suite::provision(only),
        Command::Generate => generate::generate(),
        Command::Image(args) => image::image(&args),
        Command::Layers => layers::check(),
        Command::Crd => generate::crd(),
        Command::Advisories => suite::advisories(),
        Command::Bench(bench) => bench::run_bench(&bench),
        Command::Sim { arguments } => sim::run_sim(&arguments),
        Command::Cluster(command) => cluster::cluster(&command),
        Command::Kill(kill) => kill::kill(&kill),
        Command::Fuzz(fuzz) => fuzz::fuzz(&fuzz),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error}");
            ExitCode::FAILURE
        }
    }
}
