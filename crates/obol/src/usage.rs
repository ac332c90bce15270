//! What clap refuses, in the same shape as every other error.

use clap::error::ErrorKind;

use crate::{
    args::Output,
    error::{Error, Problem},
    exit::Exit,
    printer::Printer,
};

/// Prints help, version or a refusal, and says how to end.
pub fn report(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        let _ = error.print();
        return Exit::Done;
    }
    match asked_output() {
        Output::Table => {
            let _ = error.print();
        }
        output => Printer::new(output, false).error(&Error::Refused(vec![problem(error)])),
    }
    Exit::Usage
}

/// The format asked for, found without clap, which has just given up on these arguments.
fn asked_output() -> Output {
    let args: Vec<_> = std::env::args().skip(1).take_while(|arg| arg != "--").collect();
    let pairs =
        args.windows(2).filter(|pair| matches!(pair.first().map(String::as_str), Some("--output" | "-o"))).filter_map(|pair| pair.last());
    let joined = args.iter().filter_map(|arg| arg.strip_prefix("--output=").or_else(|| arg.strip_prefix("-o")));
    match pairs.map(String::as_str).chain(joined).find(|value| matches!(*value, "json" | "yaml")) {
        Some("json") => Output::Json,
        Some(_) => Output::Yaml,
        None => Output::Table,
    }
}

fn problem(error: &clap::Error) -> Problem {
    let code = match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => "value_invalid",
        ErrorKind::UnknownArgument => "argument_unknown",
        ErrorKind::InvalidSubcommand => "command_unknown",
        ErrorKind::ArgumentConflict => "argument_conflict",
        ErrorKind::MissingRequiredArgument => "argument_missing",
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "command_missing",
        _ => "usage",
    };
    let text = error.to_string();
    let (message, usage) = text.split_once("\n\n").unwrap_or((&text, ""));
    let message = message.strip_prefix("error: ").unwrap_or(message).split_whitespace().collect::<Vec<_>>().join(" ");
    let usage = usage.lines().find_map(|line| line.strip_prefix("Usage: "));
    Problem::new(code, message, usage.map_or_else(|| "type `obol --help`".to_owned(), |usage| format!("type `{usage}`")))
}
