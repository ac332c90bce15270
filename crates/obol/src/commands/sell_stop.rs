//! `obol sell stop` and `obol sell start`.

use obol_offer::OfferSpec;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    args::{StartArgs, StopArgs},
    commands::{context::Context, outcome},
    error::{Error, Problem},
    exit::Exit,
    printer::Printer,
};

/// Stops selling: route and gate stay for the grace period, then go.
pub async fn stop(args: &StopArgs, printer: &Printer) -> Result<Exit, Error> {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).ok().and_then(|now| now.format(&Rfc3339).ok());
    let now = now.ok_or_else(|| Error::failed("clock", "the clock of this machine is out of range", "set the clock"))?;
    let grace = if args.now { Some("0s".to_owned()) } else { args.grace.clone() };
    change(&args.name, args.dry_run, printer, move |spec| {
        // Stopping a stopped offer must not begin its grace period anew, unless another is asked for.
        if spec.drain_at.is_none() || grace.is_some() {
            spec.drain_at = Some(now);
        }
        if grace.is_some() {
            spec.drain_grace_period = grace;
        }
    })
    .await
}

/// Sells a stopped offer again.
pub async fn start(args: &StartArgs, printer: &Printer) -> Result<Exit, Error> {
    change(&args.name, args.dry_run, printer, |spec| {
        spec.drain_at = None;
        spec.drain_grace_period = None;
    })
    .await
}

async fn change(name: &str, dry_run: bool, printer: &Printer, edit: impl FnOnce(&mut OfferSpec)) -> Result<Exit, Error> {
    let context = Context::open()?;
    let lock = context.lock(dry_run)?;
    let slice = context.slice(name)?;
    let (mut spec, _) = slice.offer.map_err(Error::Broken)?;
    edit(&mut spec);
    let changed = if dry_run {
        outcome::preview(&context, slice.kind, &slice.name, &spec, printer)
    } else {
        outcome::write(&context, lock, slice.kind, &slice.name, &spec, printer).await
    };
    changed.map_err(name_the_flag)
}

fn name_the_flag(error: Error) -> Error {
    match error {
        Error::Refused(problems) => Error::Refused(
            problems
                .into_iter()
                .map(|p: Problem| if p.code == "drain_grace_period" { p.at("--grace (spec.drainGracePeriod)") } else { p })
                .collect(),
        ),
        other => other,
    }
}
