use crate::{args::InstallServiceArgs, error::Error, exit::Exit, printer::Printer};
pub async fn run(_args: &InstallServiceArgs, _printer: &Printer) -> Result<Exit, Error> {
    Ok(Exit::Done)
}
