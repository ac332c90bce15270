//! `obol diff`: what a pass would change.

use obol_reconcile::{Action, PlanItem, PlannedChange, plan};
use serde::Serialize;
use serde_json::Value;

use crate::{
    args::DiffArgs,
    commands::{cluster, context::Context},
    error::{Error, Problem},
    exit::Exit,
    printer::Printer,
};

/// The answer.
#[derive(Serialize)]
struct Plan<'a> {
    /// Whether a node runs; without one, everything would be created.
    running: bool,
    changes: &'a [&'a PlannedChange],
    /// Slices that a pass leaves alone until they are mended.
    broken: &'a [Problem],
}

/// Shows the plan and changes nothing.
pub async fn run(args: &DiffArgs, printer: &Printer) -> Result<Exit, Error> {
    let context = Context::open()?;
    context.need_stack()?;
    if context.is_cluster() {
        return cluster::diff(&context, args, printer).await;
    }
    let walk = context.walk();
    let broken: Vec<Problem> = walk.slices.iter().filter_map(|s| s.offer.as_ref().err()).flatten().map(Problem::from).collect();
    let node = context.node().await?;
    let plan = match &node {
        Some(node) => node.plan().await?,
        None => {
            let item = |s: &obol_stackdir::Slice| {
                let spec = s.offer.as_ref().ok().and_then(|(spec, _)| serde_json::to_value(spec).ok()).unwrap_or(Value::Null);
                PlanItem { name: s.name.clone(), kind: s.kind, spec }
            };
            plan(&walk.slices.iter().map(item).collect::<Vec<_>>(), &[])
        }
    };
    let changes: Vec<&PlannedChange> = plan.iter().filter(|change| change.action != Action::None).collect();
    printer.data(&Plan { running: node.is_some(), changes: &changes, broken: &broken }, || human(&changes));
    for problem in broken.iter().filter(|_| printer.is_human()) {
        printer.problem(problem);
    }
    if node.is_none() {
        printer.hint("nothing is running: `obol stack up` would do this");
    }
    Ok(if args.exit_code && !changes.is_empty() { Exit::Pending } else { Exit::Done })
}

/// The changes, a line each, with the fields of updates below.
pub fn human(changes: &[&PlannedChange]) -> String {
    if changes.is_empty() {
        return "no change".to_owned();
    }
    let mut text = String::new();
    for change in changes {
        let (sign, word) = match change.action {
            Action::Create => ('+', "create"),
            Action::Update => ('~', "update"),
            Action::Delete => ('-', "delete"),
            Action::None => (' ', "keep"),
        };
        text.push_str(&format!("{sign} {word} {} ({})\n", change.name, change.kind.as_str()));
        for field in change.fields.iter().filter(|_| change.action == Action::Update) {
            let value = |v: &Option<Value>| v.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
            text.push_str(&format!("    {}: {} -> {}\n", field.field, value(&field.from), value(&field.to)));
        }
    }
    text
}
