//! `obol completions`.

use clap::CommandFactory;

use crate::{
    args::{Cli, CompletionsArgs},
    error::Error,
    exit::Exit,
    printer::Printer,
};

/// Prints a completion script.
pub fn run(args: &CompletionsArgs, printer: &Printer) -> Result<Exit, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "obol", &mut script);
    printer.bytes(&script).map_err(|source| Error::io("stdout", source))?;
    Ok(Exit::Done)
}
