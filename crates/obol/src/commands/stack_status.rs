//! `obol stack status`: the node, its offers, and every broken slice.

use obol_backend::control::NodeStatus;
use obol_stackdir::Diagnostic;
use serde::Serialize;
use serde_json::json;

use crate::{
    commands::{
        cluster,
        context::Context,
        view::{self, Row},
    },
    error::{Error, Problem},
    exit::Exit,
    printer::Printer,
};

/// The answer, with or without a node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    directory: std::path::PathBuf,
    node: Option<serde_json::Value>,
    offers: Vec<Row>,
    /// What is wrong with files that are no offer.
    problems: Vec<Problem>,
    skipped: Vec<serde_json::Value>,
}

/// Shows everything; ends with 4 when no node runs.
pub async fn run(printer: &Printer) -> Result<Exit, Error> {
    let context = Context::open()?;
    if context.is_cluster() {
        return cluster::status(&context, printer).await;
    }
    let node = match context.need_node().await {
        Ok(node) => node.status().await.map_err(Error::from),
        Err(error) => Err(error),
    };
    if node.is_err() {
        context.need_stack()?;
    }
    let (status, absent) = match node {
        Ok(node) => (running(&context, &node), None),
        Err(error) => (from_files(&context), Some(error)),
    };
    printer.data(&status, || human(&status));
    if printer.is_human() {
        for problem in status.offers.iter().flat_map(|row| &row.problems).chain(&status.problems) {
            printer.problem(problem);
        }
    }
    absent.map_or(Ok(Exit::Done), Err)
}

fn running(context: &Context, node: &NodeStatus) -> Status {
    let config = context.config().unwrap_or_default();
    let about = json!({
        "version": node.version,
        "pid": node.pid,
        "started": node.started,
        "listen": node.listen,
        "admin": node.admin,
        "ready": node.ready,
        "warnings": node.warnings,
        "facilitators": node.facilitators,
        "payments": node.payments,
    });
    Status {
        directory: context.dirs.config.clone(),
        offers: view::rows(&Default::default(), Some(node), &config),
        problems: node.diagnostics.iter().map(Problem::from).collect(),
        skipped: node.skipped.iter().map(|s| json!(s)).collect(),
        node: Some(about),
    }
}

fn from_files(context: &Context) -> Status {
    let walk = context.walk();
    let config = context.config();
    let broken: Vec<Diagnostic> = match &config {
        Err(Error::Broken(diagnostics)) => diagnostics.clone(),
        _ => Vec::new(),
    };
    Status {
        directory: context.dirs.config.clone(),
        node: None,
        offers: view::rows(&walk, None, &config.unwrap_or_default()),
        problems: broken.iter().chain(&walk.stray).map(Problem::from).collect(),
        skipped: walk.skipped.iter().map(|path| json!({ "path": path, "reason": "NeedsCluster" })).collect(),
    }
}

fn human(status: &Status) -> String {
    let mut text = format!("stack   {}\n", status.directory.display());
    match &status.node {
        None => text.push_str("node    not running\n"),
        Some(node) => {
            let field = |key: &str| node.get(key).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).unwrap_or_default();
            let ready = if field("ready") == "true" { "ready" } else { "starting" };
            text.push_str(&format!("node    {ready}, version {}, pid {}, since {}\n", field("version"), field("pid"), field("started")));
            text.push_str(&format!("listen  {} (buyers), {} (health, metrics)\n", field("listen"), field("admin")));
            for warning in node.get("warnings").and_then(|w| w.as_array()).into_iter().flatten().filter_map(|w| w.as_str()) {
                text.push_str(&format!("warning {warning}\n"));
            }
            for trouble in troubles(node) {
                text.push_str(&format!("warning {trouble}\n"));
            }
        }
    }
    for skipped in &status.skipped {
        let field = |key: &str| skipped.get(key).and_then(|v| v.as_str()).unwrap_or_default();
        text.push_str(&format!("skipped {} ({})\n", field("path"), field("reason")));
    }
    text.push('\n');
    text.push_str(&view::offers_table(&status.offers));
    text
}

/// What the node's facilitators and payments need a person for.
fn troubles(node: &serde_json::Value) -> Vec<String> {
    let facilitators = node.get("facilitators").and_then(|list| list.as_array()).into_iter().flatten();
    let sick = facilitators.filter(|f| f.get("healthy").is_some_and(|healthy| healthy == false));
    let mut list: Vec<String> = sick
        .map(|f| {
            let id = f.get("id").and_then(|id| id.as_str()).unwrap_or_default();
            let failures = f.get("failures").and_then(serde_json::Value::as_u64).unwrap_or_default();
            format!("facilitator {id} does not answer ({failures} failures in a row)")
        })
        .collect();
    if let Some(unknown) = node.pointer("/payments/unknown").and_then(serde_json::Value::as_u64).filter(|n| *n > 0) {
        list.push(format!("{unknown} payments of unknown outcome; see `obol payments list --state unknown`"));
    }
    list
}
