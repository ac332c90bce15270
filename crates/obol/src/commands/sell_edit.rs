use crate::{args::EditArgs, error::Error, exit::Exit, printer::Printer};
pub async fn run(_args: &EditArgs, _printer: &Printer) -> Result<Exit, Error> {
    Ok(Exit::Done)
}
