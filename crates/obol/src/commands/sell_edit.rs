//! `obol sell edit`: an editor on a copy, which is checked before it takes the place of the file.

use std::{path::Path, process::Command};

use obol_offer::OfferSpec;
use obol_stackdir::{Change, Slice, parse_offer};

use crate::{
    args::EditArgs,
    commands::{context::Context, outcome},
    error::{Error, Problem},
    exit::Exit,
    printer::Printer,
};

/// Edits an offer's file.
pub async fn run(args: &EditArgs, printer: &Printer) -> Result<Exit, Error> {
    let context = Context::open()?;
    let slice = context.slice(&args.name)?;
    let folder = tempfile::Builder::new().prefix("obol-edit-").tempdir().map_err(|source| Error::io(std::env::temp_dir(), source))?;
    let copy = folder.path().join(format!("{}.yaml", slice.name));
    fs_err::write(&copy, &slice.text).map_err(|source| Error::io(&copy, source))?;
    let text = match edited(&context, &slice, &copy, printer) {
        Ok(text) => text,
        Err(error) => {
            // What somebody has typed is not thrown away.
            if fs_err::read_to_string(&copy).is_ok_and(|text| text != slice.text) {
                let folder = folder.keep();
                printer.note(&format!("your text is kept in {}", folder.join(format!("{}.yaml", slice.name)).display()));
            }
            return Err(error);
        }
    };
    if args.dry_run {
        let change = context.stack.preview_text(slice.kind, &slice.name, &text)?;
        return Ok(outcome::show_dry_run(slice.kind, &slice.name, &change, printer));
    }
    let lock = context.stack.lock()?;
    if context.stack.find(&slice.name).is_none_or(|now| now.text != slice.text) {
        let kept = folder.keep().join(format!("{}.yaml", slice.name));
        let message = format!("{} was changed by somebody else meanwhile", slice.file.display());
        return Err(Error::failed("changed_meanwhile", message, format!("edit again; your text is kept in {}", kept.display())));
    }
    let change = context.stack.put_text(&lock, slice.kind, &slice.name, &text)?;
    drop(lock);
    let word = if change == Change::Unchanged { "unchanged" } else { "updated" };
    outcome::applied(&context, slice.kind, &slice.name, word, printer).await
}

/// The text once it is right; a person gets another try, a program does not.
fn edited(context: &Context, slice: &Slice, copy: &Path, printer: &Printer) -> Result<String, Error> {
    loop {
        edit(copy)?;
        let text = fs_err::read_to_string(copy).map_err(|source| Error::io(copy, source))?;
        match check(context, slice, &text) {
            Ok(()) => return Ok(text),
            Err(problems) if printer.is_interactive() => {
                for problem in &problems {
                    printer.problem(problem);
                }
                if !printer.confirm("Edit again?") {
                    return Err(Error::Cancelled);
                }
            }
            Err(problems) => return Err(Error::Refused(problems)),
        }
    }
}

fn check(context: &Context, slice: &Slice, text: &str) -> Result<(), Vec<Problem>> {
    let parsed = parse_offer(text, &slice.file, slice.kind, &slice.name);
    let (spec, _): (OfferSpec, _) = parsed.map_err(|diagnostics| diagnostics.iter().map(Problem::from).collect::<Vec<_>>())?;
    outcome::check(context, slice.kind, &slice.name, &spec)
}

fn edit(file: &Path) -> Result<(), Error> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    let failed = |why: String| Error::failed("editor", format!("the editor `{editor}` {why}"), "set EDITOR to an editor that is installed");
    // As git does: the variable may hold arguments.
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("obol").arg(file).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(format!("ended with {status}"))),
        Err(error) => Err(failed(format!("cannot be started: {error}"))),
    }
}
