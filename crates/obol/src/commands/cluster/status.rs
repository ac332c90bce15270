//! `obol stack status` in a cluster.

use obol_backend::cluster::ClusterStatus;
use serde::Serialize;

use crate::{
    commands::{
        context::Context,
        view::{self, Row},
    },
    error::{Error, Problem},
    exit::Exit,
    printer::Printer,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    directory: std::path::PathBuf,
    cluster: Option<serde_json::Value>,
    offers: Vec<Row>,
    problems: Vec<Problem>,
}

/// Shows everything; ends with 4 when the cluster cannot be reached or the stack is not up.
pub async fn status(context: &Context, printer: &Printer) -> Result<Exit, Error> {
    let walk = context.walk();
    let config = context.config()?;
    let found = match context.cluster().await {
        Ok(cluster) => cluster.status(&walk).await.map_err(Error::from),
        Err(error) => Err(error),
    };
    let mut problems: Vec<Problem> = walk.stray.iter().map(Problem::from).collect();
    let (cluster, mut offers, failed) = match found {
        Ok(status) => {
            let offers: Vec<Row> = status.offers.iter().map(view::served).collect();
            let failed = status.workloads.is_empty().then(|| Error::NoNode { why: "the stack is not up in this cluster".to_owned() });
            (Some(status), offers, failed)
        }
        Err(error) => (None, Vec::new(), Some(error)),
    };
    // What is on disk and not in the cluster is shown too.
    let missing = walk.slices.iter().filter(|slice| !offers.iter().any(|row| row.name == slice.name && row.kind == slice.kind.as_str()));
    let missing: Vec<Row> = missing.map(|slice| view::on_disk(slice, &config)).collect();
    offers.extend(missing);
    offers.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
    problems.extend(walk.slices.iter().flat_map(|slice| &slice.warnings).map(Problem::from));
    let answer = Status {
        directory: context.dirs.config.clone(),
        cluster: cluster.as_ref().map(|status| {
            serde_json::json!({ "context": status.context, "ready": status.is_ready(), "url": status.url, "hint": status.hint, "workloads": status.workloads })
        }),
        offers,
        problems,
    };
    printer.data(&answer, || human(context, cluster.as_ref(), &answer.offers));
    if printer.is_human() {
        for problem in answer.offers.iter().flat_map(|row| &row.problems).chain(&answer.problems) {
            printer.problem(problem);
        }
    }
    failed.map_or(Ok(Exit::Done), Err)
}

fn human(context: &Context, cluster: Option<&ClusterStatus>, offers: &[Row]) -> String {
    let mut text = format!("stack   {}\n", context.dirs.config.display());
    match cluster {
        None => text.push_str("cluster not reachable\n"),
        Some(status) => {
            let ready = if status.is_ready() { "ready" } else { "not ready" };
            text.push_str(&format!("cluster {}, {ready}\n", status.context));
            for workload in &status.workloads {
                let why = workload.waiting.as_ref().map(|why| format!("  ({why})")).unwrap_or_default();
                text.push_str(&format!("        {} {}/{}{why}\n", workload.name, workload.ready, workload.wanted));
            }
            if let Some(url) = &status.url {
                text.push_str(&format!("buyers  {url}\n"));
            }
            if let Some(hint) = &status.hint {
                text.push_str(&format!("hint    {hint}\n"));
            }
        }
    }
    text.push('\n');
    text.push_str(&view::offers_table(offers));
    text
}
