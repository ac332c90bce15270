//! `obol stack down`.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    commands::{cluster, context::Context},
    error::Error,
    exit::Exit,
    printer::Printer,
};

/// Longest wait for requests in progress.
const PATIENCE: Duration = Duration::from_secs(600);

/// Asks the node to end and waits until it has.
pub async fn run(verbose: bool, printer: &Printer) -> Result<Exit, Error> {
    let context = Context::open()?;
    if context.is_cluster() {
        return cluster::down(&context, verbose, printer).await;
    }
    let node = context.need_node().await?;
    node.shutdown().await?;
    let begun = Instant::now();
    let mut told = false;
    while context.node().await?.is_some() || !lock_is_free(&context) {
        if begun.elapsed() > PATIENCE {
            return Err(Error::failed("still_running", "the node has not ended within ten minutes", "type `obol stack status`"));
        }
        if !told && begun.elapsed() > Duration::from_secs(1) {
            printer.note("waiting for requests in progress …");
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    printer.data(&json!({ "stopped": true }), || "stopped".to_owned());
    Ok(Exit::Done)
}

/// The node gives its lock back last; then another can start.
fn lock_is_free(context: &Context) -> bool {
    match std::fs::File::open(context.dirs.state.join("node.lock")) {
        Ok(file) => !matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)),
        Err(_) => true,
    }
}
