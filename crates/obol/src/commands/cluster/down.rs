//! `obol stack down` and `obol stack purge` in a cluster.

use obol_backend::cluster::Removed;
use serde_json::json;

use super::progress;
use crate::{
    args::PurgeArgs,
    commands::{context::Context, sell_delete::confirm},
    error::Error,
    exit::Exit,
    printer::Printer,
};

/// Removes what serves, and keeps what holds money, keys and data.
pub async fn down(context: &Context, verbose: bool, printer: &Printer) -> Result<Exit, Error> {
    let cluster = context.cluster().await?;
    let removed = cluster.down(&mut progress(printer, verbose)).await?;
    tell(&removed, printer);
    Ok(Exit::Done)
}

/// Removes more, after asking.
pub async fn purge(context: &Context, args: &PurgeArgs, verbose: bool, printer: &Printer) -> Result<Exit, Error> {
    let cluster = context.cluster().await?;
    let doomed = cluster.ours(!cluster.has_offers().await?).await?;
    if args.dry_run {
        let names: Vec<_> = doomed.iter().map(|(namespace, name)| format!("release {namespace}/{name}")).collect();
        printer.data(&json!({ "removed": names, "dryRun": true }), || {
            if names.is_empty() {
                "nothing to remove".to_owned()
            } else {
                names.iter().map(|name| format!("would remove {name}\n")).collect()
            }
        });
        return Ok(Exit::Done);
    }
    let question = if args.with_data {
        format!(
            "Remove the stack from the cluster `{}` with its journal of payments and its keys? Unfinished payments are lost.",
            cluster.context()
        )
    } else {
        format!("Remove the stack from the cluster `{}`? Offers on disk, journal and keys stay.", cluster.context())
    };
    confirm(args.yes, &question, printer)?;
    let removed = cluster.purge(args.with_data, &mut progress(printer, verbose)).await?;
    tell(&removed, printer);
    printer.hint(&format!("offers stay in {}", context.dirs.config.display()));
    Ok(Exit::Done)
}

fn tell(removed: &Removed, printer: &Printer) {
    printer.data(removed, || {
        if removed.removed.is_empty() {
            return "nothing to remove".to_owned();
        }
        removed.removed.iter().map(|what| format!("removed {what}\n")).collect()
    });
    for kept in &removed.kept {
        printer.hint(&format!("kept: {kept}"));
    }
}
