//! `obol stack up` in a cluster: one pass, and the wait until it is served.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{progress, provisioned, report};
use crate::{
    args::UpArgs,
    commands::{context::Context, view},
    error::Error,
    exit::Exit,
    printer::Printer,
};

/// Images may have to be pulled.
const PATIENCE: Duration = Duration::from_secs(300);
/// What the offers get after everything else is ready.
const OFFERS: Duration = Duration::from_secs(30);

/// Makes the cluster agree with the files, and waits until offers can be bought.
pub async fn up(context: &Context, args: &UpArgs, verbose: bool, printer: &Printer) -> Result<Exit, Error> {
    if args.listen.is_some() || args.admin.is_some() {
        return Err(Error::Usage {
            code: "flag_unused",
            message: "--listen and --admin are for the standalone node; in a cluster the Gateway listens".to_owned(),
            fix: "leave them out".to_owned(),
        });
    }
    let begun = Instant::now();
    let cluster = provisioned(context, verbose, printer).await?;
    let report = cluster.up(&mut progress(printer, verbose)).await?;
    report::tell(&report, printer);
    let failed = report::failures(&report);
    if failed.is_ok() {
        cluster.wait_for_workloads(PATIENCE, &mut progress(printer, verbose)).await?;
    }
    let walk = context.walk();
    let waiting = Instant::now();
    let mut told = 0;
    let status = loop {
        let status = cluster.status(&walk).await?;
        let late = status.offers.iter().filter(|offer| view::served(offer).state == "not_ready").count();
        // Where nothing was changed, there is nothing to wait for.
        if late == 0 || report.changed.is_empty() || failed.is_err() || waiting.elapsed() > OFFERS {
            break status;
        }
        if waiting.elapsed() > Duration::from_secs(1) && told != late {
            printer.hint(&format!("{late} of {} offers are not ready yet …", status.offers.len()));
            told = late;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    let rows: Vec<_> = status.offers.iter().map(view::served).collect();
    let seconds = begun.elapsed().as_secs_f64();
    printer.data(&json!({ "pass": report, "cluster": status.context, "workloads": status.workloads, "offers": rows }), || {
        let few = if rows.len() <= 50 { view::offers_table(&rows) } else { format!("{} offers: `obol sell list` shows them", rows.len()) };
        format!("{}\n{few}", report::lines(&report))
    });
    failed?;
    printer.done(&format!("the cluster `{}` is what is on disk ({seconds:.1} s)", status.context));
    Ok(Exit::Done)
}
