//! The one way a command changes an offer: check everything, write, run the pass, tell.

use obol_backend::{cluster::ClusterError, control::OfferView};
use obol_offer::{Offer, OfferKind, OfferName, OfferSpec, find_collisions};
use obol_stackdir::{Change, StackConfig, WriteLock};
use serde::Serialize;

use crate::{
    commands::{
        cluster,
        context::{Context, Running},
        view::{self, Row},
    },
    error::{Error, Problem},
    exit::Exit,
    printer::Printer,
    sell::explain,
};

/// What a changing command did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    name: OfferName,
    #[serde(rename = "type")]
    kind: &'static str,
    /// `created`, `updated`, `unchanged` or `deleted`.
    change: &'static str,
    dry_run: bool,
    file: String,
    /// Whether a node runs and has applied the change.
    applied: bool,
    /// The file's new text (created) or a unified diff (updated); dry runs only.
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<String>,
    /// The offer as the node serves it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    offer: Option<Row>,
}

/// Everything that is wrong with `spec`, alone and beside the other offers of the tree.
pub fn check(context: &Context, kind: OfferKind, name: &OfferName, spec: &OfferSpec) -> Result<(), Vec<Problem>> {
    let offer = Offer::validate(name, spec).map_err(|violations| violations.into_iter().map(|v| explain(v, spec)).collect::<Vec<_>>())?;
    let walk = context.walk();
    if let Some(holder) = walk.slices.iter().find(|slice| slice.name == *name && slice.kind != kind) {
        let message = format!("`{name}` is already sold as {}", holder.kind.as_str());
        return Err(vec![Problem::new("name_taken", message, "choose another name").at("NAME")]);
    }
    let others =
        walk.slices.iter().filter(|slice| slice.name != *name).filter_map(|slice| slice.offer.as_ref().ok()).map(|(_, offer)| offer);
    let all: Vec<&Offer> = others.chain([&offer]).collect();
    let own = all.len() - 1;
    let problems: Vec<_> = find_collisions(&all).into_iter().filter(|(i, _)| *i == own).map(|(_, v)| explain(v, spec)).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Shows what writing a checked spec would change.
pub fn preview(context: &Context, kind: OfferKind, name: &OfferName, spec: &OfferSpec, printer: &Printer) -> Result<Exit, Error> {
    check(context, kind, name, spec).map_err(Error::Refused)?;
    Ok(show_dry_run(kind, name, &context.stack.preview(kind, name, spec)?, printer))
}

/// Writes a checked spec and runs the pass for it. `lock` is the one under which the spec was read,
/// if there was a stack to read from.
pub async fn write(
    context: &Context,
    lock: Option<WriteLock>,
    kind: OfferKind,
    name: &OfferName,
    spec: &OfferSpec,
    printer: &Printer,
) -> Result<Exit, Error> {
    check(context, kind, name, spec).map_err(Error::Refused)?;
    let lock = match lock {
        Some(lock) => lock,
        None => {
            context.stack.init(&StackConfig::default())?;
            printer.done(&format!("new stack in {}", context.dirs.config.display()));
            context.stack.lock()?
        }
    };
    let change = context.stack.put(&lock, kind, name, spec)?;
    drop(lock);
    if let Change::Updated { rewritten: true, .. } = change {
        printer.warn("the file had to be written anew; only the comments at its head were kept");
    }
    applied(context, kind, name, word(&change), printer).await
}

/// Runs the pass for a slice that has just been written or deleted, and tells how it went.
pub async fn applied(context: &Context, kind: OfferKind, name: &OfferName, change: &'static str, printer: &Printer) -> Result<Exit, Error> {
    let failed = |_: &Error| printer.warn(&format!("{} is {change}, but the cluster does not have it yet", file(kind, name)));
    let views = match context.node_or_cluster().await.inspect_err(failed)? {
        Some(Running::Cluster(_)) => match cluster::sync(context, name, printer).await {
            Err(Error::Cluster(ClusterError::NotUp)) => None,
            synced => Some(synced.inspect_err(failed)?.into_iter().collect()),
        },
        Some(Running::Node(node)) => {
            // What is written is written: the node reads it now or when it starts.
            let failed = |_: &_| printer.warn(&format!("{} is {change}, but the node could not be told", file(kind, name)));
            Some(node.sync(Some(name)).await.inspect_err(failed)?)
        }
        None => None,
    };
    let view: Option<&OfferView> = views.iter().flatten().find(|view| view.name == *name && view.kind == kind);
    let outcome = Outcome {
        name: name.clone(),
        kind: kind.as_str(),
        change,
        dry_run: false,
        file: file(kind, name),
        applied: views.is_some(),
        diff: None,
        offer: view.map(view::served),
    };
    printer.data(&outcome, || format!("{name} {change}{}", outcome.offer.as_ref().map(|row| format!("  {}", row.url)).unwrap_or_default()));
    tell(&outcome, printer);
    Ok(Exit::Done)
}

fn tell(outcome: &Outcome, printer: &Printer) {
    if !outcome.applied {
        match outcome.change {
            "deleted" => printer.hint("nothing is running"),
            "unchanged" => printer.hint("nothing is running: type `obol stack up`"),
            _ => printer.hint("written; nothing is running: type `obol stack up`"),
        }
        return;
    }
    let Some(row) = &outcome.offer else { return };
    for problem in &row.problems {
        printer.problem(problem);
    }
    match view::why_not(&row.conditions) {
        _ if row.state == "ready" => printer.done("ready to be bought"),
        Some(condition) => {
            printer.warn(&format!("{:?} is {:?} ({}): {}", condition.kind, condition.status, condition.reason, condition.message))
        }
        None => {}
    }
}

/// Shows what a command would write, and that it has not.
pub fn show_dry_run(kind: OfferKind, name: &OfferName, change: &Change, printer: &Printer) -> Exit {
    let diff = match change {
        Change::Created { text } => Some(text.clone()),
        Change::Updated { diff, .. } => Some(diff.clone()),
        Change::Unchanged => None,
    };
    dry_run(kind, name, word(change), diff, printer)
}

/// The outcome of a dry run.
pub fn dry_run(kind: OfferKind, name: &OfferName, change: &'static str, diff: Option<String>, printer: &Printer) -> Exit {
    let outcome = Outcome {
        name: name.clone(),
        kind: kind.as_str(),
        change,
        dry_run: true,
        file: file(kind, name),
        applied: false,
        diff,
        offer: None,
    };
    if let Some(diff) = outcome.diff.as_ref().filter(|_| printer.is_human()) {
        printer.line(diff.trim_end());
    } else {
        printer.data(&outcome, || format!("{name} {change}"));
    }
    printer.hint(&format!("dry run: {} would be {change}; nothing was written", outcome.file));
    Exit::Done
}

const fn word(change: &Change) -> &'static str {
    match change {
        Change::Created { .. } => "created",
        Change::Updated { .. } => "updated",
        Change::Unchanged => "unchanged",
    }
}

/// `applications/sell-http/NAME/values-offer.yaml`.
pub fn file(kind: OfferKind, name: &OfferName) -> String {
    format!("applications/{}/{name}/values-offer.yaml", kind.folder())
}
