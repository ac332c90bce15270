//! One module per verb: arguments in, one pass through the crates below, a result on the printer.

mod completions;
mod context;
mod quickstart;
mod schema;

use serde_json::json;

use crate::{
    args::{Cli, Command},
    error::Error,
    exit::Exit,
    printer::Printer,
};

/// Runs the command that was asked for.
///
/// # Errors
/// Why it did not do its work; the caller prints it and ends with [`Error::exit`].
pub async fn run(cli: Cli, printer: &Printer) -> Result<Exit, Error> {
    match cli.command {
        Command::Quickstart(args) => quickstart::run(args, printer).await,
        Command::Completions(args) => completions::run(&args, printer),
        Command::Schema(args) => schema::run(&args, printer),
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            printer.data(&json!({ "version": version }), || format!("obol {version}"));
            Ok(Exit::Done)
        }
        _ => Err(Error::failed("todo", "", "")),
    }
}
