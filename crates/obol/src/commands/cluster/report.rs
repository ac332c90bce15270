//! How a pass went, for people.

use obol_backend::cluster::{PassReport, ReleaseChange, ReleaseOutcome};

use crate::{
    error::{Error, Problem},
    printer::Printer,
};

/// One line for each release that was changed.
pub fn lines(report: &PassReport) -> String {
    let mut text: String = report.changed.iter().map(|outcome| line(outcome) + "\n").collect();
    for (file, error) in &report.own {
        let word = if error.is_none() { "synced " } else { "failed " };
        text.push_str(&format!("{word}  {file}\n"));
    }
    if report.unchanged > 0 {
        text.push_str(&format!("unchanged {}\n", report.unchanged));
    }
    text
}

fn line(outcome: &ReleaseOutcome) -> String {
    let plan = &outcome.plan;
    let word = match (plan.change, &outcome.error) {
        (_, Some(_)) => "failed   ",
        (ReleaseChange::Install, _) => "installed",
        (ReleaseChange::Upgrade, _) => "upgraded ",
        (ReleaseChange::Repair, _) => "repaired ",
        (ReleaseChange::Remove, _) => "removed  ",
    };
    let why = match plan.change {
        ReleaseChange::Install | ReleaseChange::Remove => String::new(),
        _ => format!("  ({})", plan.why),
    };
    format!("{word} {}/{}{why}", plan.namespace, plan.name)
}

/// What is not as it should be and did not stop the pass.
pub fn tell(report: &PassReport, printer: &Printer) {
    for problem in &report.warnings {
        printer.warn(&format!("{}: {}", problem.file.display(), problem.message));
    }
    for problem in report.left_out.iter().flat_map(|(.., problems)| problems) {
        printer.problem(&Problem::from(problem));
    }
}

/// The releases that failed, as one error.
pub fn failures(report: &PassReport) -> Result<(), Error> {
    let releases = report.changed.iter().filter_map(|outcome| Some((outcome.plan.name.clone(), outcome.error.clone()?)));
    let own = report.own.iter().filter_map(|(file, error)| Some((file.clone(), error.clone()?)));
    let problems: Vec<Problem> = releases
        .chain(own)
        .map(|(name, error)| {
            let fix = "correct what it complains of, and type `obol stack up`; the others are in place";
            Problem::new("release_failed", error, fix).at(name)
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(Error::Several(problems)) }
}
