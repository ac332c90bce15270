//! One module per verb: arguments in, one pass through the crates below, a result on the printer.

mod cluster;
mod completions;
mod context;
mod diff;
mod outcome;
mod pay;
mod payments;
mod quickstart;
mod sandbox;
mod schema;
mod sell_delete;
mod sell_edit;
mod sell_http;
mod sell_inference;
mod sell_list;
mod sell_stop;
mod sell_test;
mod serve;
mod stack_down;
mod stack_init;
mod stack_purge;
mod stack_service;
mod stack_status;
mod stack_up;
mod view;

use serde_json::json;

use crate::{
    args::{Cli, Command, SellCommand, StackCommand},
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
        Command::Sell(command) => sell(command, printer).await,
        Command::Stack(command) => stack(command, cli.verbose, printer).await,
        Command::Diff(args) => diff::run(&args, printer).await,
        Command::Pay(args) => pay::run(args, printer).await,
        Command::Payments(command) => payments::run(command, printer).await,
        Command::Sandbox(command) => sandbox::run(command, printer).await,
        Command::Serve(command) => serve::run(command, cli.verbose, printer).await,
        Command::Completions(args) => completions::run(&args, printer),
        Command::Schema(args) => schema::run(&args, printer),
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            printer.data(&json!({ "version": version }), || format!("obol {version}"));
            Ok(Exit::Done)
        }
    }
}

async fn sell(command: SellCommand, printer: &Printer) -> Result<Exit, Error> {
    match command {
        SellCommand::Http(args) => sell_http::run(*args, printer).await,
        SellCommand::Inference(args) => sell_inference::run(*args, printer).await,
        SellCommand::List => sell_list::list(printer).await,
        SellCommand::Status(args) => sell_list::status(&args, printer).await,
        SellCommand::Test(args) => sell_test::run(&args, printer).await,
        SellCommand::Edit(args) => sell_edit::run(&args, printer).await,
        SellCommand::Stop(args) => sell_stop::stop(&args, printer).await,
        SellCommand::Start(args) => sell_stop::start(&args, printer).await,
        SellCommand::Delete(args) => sell_delete::run(&args, printer).await,
    }
}

async fn stack(command: StackCommand, verbose: bool, printer: &Printer) -> Result<Exit, Error> {
    match command {
        StackCommand::Init(args) => stack_init::run(args, printer),
        StackCommand::Up(args) => stack_up::run(args, verbose, printer).await,
        StackCommand::Status => stack_status::run(printer).await,
        StackCommand::Down => stack_down::run(verbose, printer).await,
        StackCommand::Purge(args) => stack_purge::run(&args, verbose, printer).await,
        StackCommand::InstallService(args) => stack_service::run(&args, printer).await,
    }
}
