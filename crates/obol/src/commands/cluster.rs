//! What the commands do when the stack runs in a cluster.

mod diff;
mod down;
mod report;
mod status;
mod up;

use std::time::Duration;

use obol_backend::{cluster::Cluster, control::OfferView};
use obol_offer::OfferName;

pub use diff::diff;
pub use down::{down, purge};
pub use status::status;
pub use up::up;

use crate::{commands::context::Context, error::Error, printer::Printer};

/// How long a command waits for an offer that it has changed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the pass for one slice that was written or deleted, and returns the offer as the cluster has
/// it; `None` when it is gone.
pub async fn sync(context: &Context, name: &OfferName, printer: &Printer) -> Result<Option<OfferView>, Error> {
    let cluster = context.cluster().await?;
    let report = cluster.sync(name, &mut progress(printer, false)).await?;
    report::tell(&report, printer);
    report::failures(&report)?;
    if context.stack.find(name).is_none() {
        return Ok(None);
    }
    Ok(Some(cluster.wait_for_offer(name, &context.walk(), PATIENCE).await?))
}

/// One offer as the cluster has it.
pub async fn offer(context: &Context, name: &OfferName) -> Result<OfferView, Error> {
    let found = context.cluster().await?.offer(name, &context.walk()).await?;
    found.ok_or_else(|| Error::failed("offer_not_in_cluster", format!("`{name}` is not in the cluster"), "type `obol stack up`"))
}

/// Every offer as the cluster has it.
pub async fn offers(context: &Context) -> Result<Vec<OfferView>, Error> {
    Ok(context.cluster().await?.status(&context.walk()).await?.offers)
}

/// What takes more than a moment says so, on stderr; the programs' own lines only with `--verbose`.
fn progress(printer: &Printer, verbose: bool) -> impl FnMut(&str, bool) + Send + use<> {
    let printer = *printer;
    let begun = std::time::Instant::now();
    move |text, detail| {
        if detail && verbose || !detail && begun.elapsed() > Duration::from_millis(700) {
            printer.hint(&format!("{text} …"));
        }
    }
}

/// The cluster, brought up first where obol provisions it.
async fn provisioned(context: &Context, verbose: bool, printer: &Printer) -> Result<Cluster, Error> {
    Ok(Cluster::provision(&context.dirs, &context.config()?, &mut progress(printer, verbose)).await?)
}
