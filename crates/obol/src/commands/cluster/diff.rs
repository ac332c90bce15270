//! `obol diff` in a cluster: what a pass would change there.

use obol_backend::{
    cluster::{ReleaseChange, ReleasePlan, SecretPlan},
    plan_items,
};
use obol_reconcile::{Action, PlannedChange, plan};
use serde::Serialize;

use crate::{
    args::DiffArgs,
    commands::{context::Context, diff::human},
    error::{Error, Problem},
    exit::Exit,
    printer::Printer,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Plan<'a> {
    running: bool,
    context: &'a str,
    /// Offers that differ, field by field.
    changes: &'a [&'a PlannedChange],
    /// Releases that helmfile would touch, with what differs.
    releases: &'a [ReleasePlan],
    /// Secrets that a pass would write, with the keys that differ; never a value.
    secrets: &'a [SecretPlan],
    /// Helmfiles that are not obol's own: they are run as they are, whatever they would change.
    own: &'a [String],
    broken: &'a [Problem],
}

/// Shows the plan and changes nothing in the cluster.
pub async fn diff(context: &Context, args: &DiffArgs, printer: &Printer) -> Result<Exit, Error> {
    let cluster = context.cluster().await?;
    let walk = context.walk();
    let (releases, secrets, report) = cluster.plan().await?;
    let observed = cluster.observed().await?;
    let plan = plan(&plan_items(&walk.slices), &observed);
    let changes: Vec<&PlannedChange> = plan.iter().filter(|change| change.action != Action::None).collect();
    let broken: Vec<Problem> = report.left_out.iter().flat_map(|(.., problems)| problems).map(Problem::from).collect();
    let own: Vec<String> = report.own.iter().map(|(file, _)| file.clone()).collect();
    let answer = Plan {
        running: true,
        context: cluster.context(),
        changes: &changes,
        releases: &releases,
        secrets: &secrets,
        own: &own,
        broken: &broken,
    };
    printer.data(&answer, || {
        let mut text = if changes.is_empty() { String::new() } else { human(&changes) };
        text.extend(releases.iter().map(line));
        text.extend(secrets.iter().map(|s| format!("~ secret {}/{}: {}\n", s.namespace, s.name, s.keys.join(", "))));
        if text.is_empty() { "no change".to_owned() } else { text }
    });
    for problem in broken.iter().filter(|_| printer.is_human()) {
        printer.problem(problem);
    }
    let pending = !changes.is_empty() || !releases.is_empty() || !secrets.is_empty();
    Ok(if args.exit_code && pending { Exit::Pending } else { Exit::Done })
}

fn line(release: &ReleasePlan) -> String {
    let (sign, word) = match release.change {
        ReleaseChange::Install => ('+', "install"),
        ReleaseChange::Upgrade => ('~', "upgrade"),
        ReleaseChange::Repair => ('~', "repair"),
        ReleaseChange::Remove => ('-', "remove"),
    };
    format!("{sign} {word} release {}/{} ({})\n", release.namespace, release.name, release.why)
}
