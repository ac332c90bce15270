//! `obol sell list` and `obol sell status`.

use obol_stackdir::Walk;
use serde::Serialize;

use crate::{
    args::StatusArgs,
    commands::{
        cluster,
        context::{Context, Running},
        view,
    },
    error::Error,
    exit::Exit,
    printer::Printer,
};

/// `{"offers": […]}`, so that more can be said later.
#[derive(Serialize)]
struct List<'a> {
    offers: &'a [view::Row],
}

async fn rows(context: &Context) -> Result<Vec<view::Row>, Error> {
    if context.is_cluster() {
        return cluster_rows(context).await;
    }
    let status = match context.node().await? {
        Some(node) => Some(node.status().await?),
        None => None,
    };
    let walk = if status.is_some() { Walk::default() } else { context.walk() };
    // A broken stack.yaml hides no offer; only the addresses are then the default ones.
    Ok(view::rows(&walk, status.as_ref(), &context.config().unwrap_or_default()))
}

/// Offers in the cluster, and those on disk that are not there.
async fn cluster_rows(context: &Context) -> Result<Vec<view::Row>, Error> {
    let config = context.config()?;
    let mut rows: Vec<view::Row> = cluster::offers(context).await?.iter().map(view::served).collect();
    for slice in context.walk().slices {
        if !rows.iter().any(|row| row.name == slice.name && row.kind == slice.kind.as_str()) {
            rows.push(view::on_disk(&slice, &config));
        }
    }
    rows.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
    Ok(rows)
}

/// Lists every offer.
pub async fn list(printer: &Printer) -> Result<Exit, Error> {
    let rows = rows(&Context::open()?).await?;
    printer.data(&List { offers: &rows }, || view::offers_table(&rows));
    for row in rows.iter().filter(|_| printer.is_human()) {
        for problem in &row.problems {
            printer.problem(problem);
        }
    }
    Ok(Exit::Done)
}

/// One offer in full, or all in short.
pub async fn status(args: &StatusArgs, printer: &Printer) -> Result<Exit, Error> {
    let Some(name) = &args.name else { return list(printer).await };
    let context = Context::open()?;
    let slice = context.slice(name)?;
    let row = match context.node_or_cluster().await? {
        Some(Running::Cluster(cluster)) => match cluster.offer(&slice.name, &context.walk()).await? {
            Some(view) => view::served(&view),
            None => view::on_disk(&slice, &context.config()?),
        },
        Some(Running::Node(node)) => view::served(&node.offer(&slice.name).await?),
        None => view::on_disk(&slice, &context.config().unwrap_or_default()),
    };
    printer.data(&row, || view::details(&row));
    for problem in row.problems.iter().filter(|_| printer.is_human()) {
        printer.problem(problem);
    }
    Ok(Exit::Done)
}
