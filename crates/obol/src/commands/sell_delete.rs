//! `obol sell delete`.

use crate::{
    args::DeleteArgs,
    commands::{context::Context, outcome},
    error::Error,
    exit::Exit,
    printer::Printer,
};

/// Deletes an offer and its files, at once.
pub async fn run(args: &DeleteArgs, printer: &Printer) -> Result<Exit, Error> {
    let context = Context::open()?;
    let slice = context.slice(&args.name)?;
    let (kind, name) = (slice.kind, slice.name);
    if args.dry_run {
        return Ok(outcome::dry_run(kind, &name, "deleted", None, printer));
    }
    confirm(args.yes, &format!("Delete offer `{name}` and its files? Requests in progress end, later ones get 404."), printer)?;
    let lock = context.stack.lock()?;
    context.stack.remove(&lock, kind, &name)?;
    drop(lock);
    outcome::applied(&context, kind, &name, "deleted", printer).await
}

/// Asks a person; a program must say `--yes`.
pub fn confirm(yes: bool, question: &str, printer: &Printer) -> Result<(), Error> {
    if yes || (printer.is_interactive() && printer.confirm(question)) {
        return Ok(());
    }
    if printer.is_interactive() {
        return Err(Error::Cancelled);
    }
    Err(Error::Usage {
        code: "confirmation_needed",
        message: "this cannot be undone, and there is nobody to ask".to_owned(),
        fix: "add --yes".to_owned(),
    })
}
