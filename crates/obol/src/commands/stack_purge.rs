//! `obol stack purge`: what the node keeps goes, by name; what people wrote stays.

use std::path::PathBuf;

use serde_json::json;

use crate::{
    args::PurgeArgs,
    commands::{cluster, context::Context, sell_delete::confirm},
    error::Error,
    exit::Exit,
    printer::Printer,
};

/// What a node leaves in the state directory. Nothing else there is touched: the directory may be
/// shared.
const STATE: [&str; 4] = ["control.sock", "control.sock.new", "sandbox.chain", "node.lock"];
/// Journal and keys.
const DATA: [&str; 3] = ["journal.redb", "journal.supported.json", "secrets"];

/// Deletes state, and data only when asked.
pub async fn run(args: &PurgeArgs, verbose: bool, printer: &Printer) -> Result<Exit, Error> {
    let context = Context::open()?;
    if context.is_cluster() {
        return cluster::purge(&context, args, verbose, printer).await;
    }
    if context.node().await?.is_some() {
        return Err(Error::failed("node_running", "the node is running", "type `obol stack down` first"));
    }
    let data = args.with_data.then_some(DATA).into_iter().flatten().map(|name| context.dirs.data.join(name));
    let doomed: Vec<PathBuf> =
        STATE.iter().map(|name| context.dirs.state.join(name)).chain(data).filter(|p| p.symlink_metadata().is_ok()).collect();
    if !args.dry_run && !doomed.is_empty() {
        let question = if args.with_data {
            "Delete the node's state, its journal of payments and its keys? Unfinished payments and keys are lost."
        } else {
            "Delete the node's state? Offers, journal and keys stay."
        };
        confirm(args.yes, question, printer)?;
        for path in &doomed {
            let is_folder = path.symlink_metadata().is_ok_and(|m| m.is_dir());
            let removed = if is_folder { fs_err::remove_dir_all(path) } else { fs_err::remove_file(path) };
            removed.map_err(|source| Error::io(path, source))?;
        }
        for folder in [&context.dirs.state, &context.dirs.data] {
            // Only if empty.
            let _ = fs_err::remove_dir(folder);
        }
    }
    printer.data(&json!({ "deleted": doomed, "dryRun": args.dry_run }), || {
        let word = if args.dry_run { "would delete" } else { "deleted" };
        let lines: Vec<_> = doomed.iter().map(|path| format!("{word} {}", path.display())).collect();
        if lines.is_empty() { "nothing to delete".to_owned() } else { lines.join("\n") }
    });
    printer.hint(&format!("offers stay in {}", context.dirs.config.display()));
    Ok(Exit::Done)
}
