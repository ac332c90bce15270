//! `obol serve …`: one program of a cluster, in the foreground.

mod controller;
mod facilitator;
mod gateway;
mod inference;

use std::path::Path;

use obol_controller::Home;
use obol_stackdir::{StackConfig, parse_stack};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{RoleArgs, ServeCommand},
    commands::stack_up::until_signal,
    error::Error,
    exit::Exit,
    printer::Printer,
};

/// Runs a program until it is told to stop.
pub async fn run(command: ServeCommand, verbose: bool, printer: &Printer) -> Result<Exit, Error> {
    match command {
        ServeCommand::Controller(args) => controller::run(args, verbose, printer).await,
        ServeCommand::Gateway(args) => gateway::run(args, verbose, printer).await,
        ServeCommand::Inference(args) => inference::run(args, verbose, printer).await,
        ServeCommand::Facilitator(args) => facilitator::run(args, verbose, printer).await,
    }
}

fn home(role: &RoleArgs) -> Home {
    Home { offers: role.offers.clone(), system: role.namespace.clone() }
}

fn stack(file: Option<&Path>) -> Result<StackConfig, Error> {
    let Some(file) = file else { return Ok(StackConfig::default()) };
    let text = fs_err::read_to_string(file).map_err(|error| Error::io(file, error))?;
    parse_stack(&text, file).map_err(Error::Broken)
}

async fn client() -> Result<kube::Client, Error> {
    kube::Client::try_default().await.map_err(|error| {
        let fix = "run it in a Pod with a service account, or set KUBECONFIG";
        Error::failed("no_cluster", format!("no API server is known: {error}"), fix)
    })
}

/// Ends with SIGTERM or Ctrl-C.
fn shutdown(printer: &Printer) -> CancellationToken {
    let shutdown = CancellationToken::new();
    tokio::spawn(until_signal(shutdown.clone(), *printer));
    shutdown
}
