use crate::{args::PurgeArgs, error::Error, exit::Exit, printer::Printer};
pub async fn run(_args: &PurgeArgs, _printer: &Printer) -> Result<Exit, Error> {
    Ok(Exit::Done)
}
