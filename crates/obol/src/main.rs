//! `obol`: the command line. Arguments, printing and exit codes; the work is done by the crates below.

mod args;
mod commands;
mod error;
mod exit;
mod printer;
mod sell;
mod usage;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::{args::Cli, exit::Exit, printer::Printer};

fn main() -> ExitCode {
    let cli = match Cli::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error).into(),
    };
    let printer = Printer::new(cli.output, cli.quiet);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            printer.error(&error::Error::io("tokio runtime", error));
            return Exit::Failed.into();
        }
    };
    let exit = match runtime.block_on(commands::run(cli, &printer)) {
        Ok(exit) => exit,
        Err(error) => {
            printer.error(&error);
            error.exit()
        }
    };
    // Whatever still waits (a question on stdin, a name look-up) must not hold the process.
    runtime.shutdown_background();
    exit.into()
}
