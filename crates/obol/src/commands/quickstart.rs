//! `obol quickstart`.

use crate::{args::QuickstartArgs, error::Error, exit::Exit, printer::Printer};

/// Goes from nothing to a paid request on this machine.
///
/// # Errors
/// Whatever a step reports.
pub async fn run(args: QuickstartArgs, printer: &Printer) -> Result<Exit, Error> {
    let _ = (args, printer);
    Err(Error::failed("quickstart_missing", "quickstart is not built in yet", "type `obol stack up` and `obol sell http`"))
}
