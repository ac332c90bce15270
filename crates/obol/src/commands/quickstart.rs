//! `obol quickstart`: from nothing to a paid request, without any network.

mod demo;
mod stage;
mod tour;

use anstyle::Style;

use self::tour::{Facts, Options, Step, tour};
use crate::{args::QuickstartArgs, error::Error, exit::Exit, printer::Printer};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// Goes from nothing to a paid request on this machine.
///
/// # Errors
/// Whatever a step reports.
pub async fn run(args: QuickstartArgs, printer: &Printer) -> Result<Exit, Error> {
    let options = Options { root: args.dir, listen: args.listen, admin: None };
    let mut show = |step: &Step| {
        if printer.is_human() {
            printer.line(&shown(step));
        }
    };
    let mut toured = tour(&options, &mut show).await?;
    let facts = &toured.facts;
    printer.data(facts, || format!("\nPaid and served, from nothing, in {} ms.\n\n{}", facts.milliseconds, next(facts, args.keep)));
    if args.keep {
        toured.node.until(interrupted()).await;
    }
    toured.node.stop().await?;
    drop(toured.demo);
    Ok(Exit::Done)
}

/// Ctrl-C, or the system's wish that we end.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

fn shown(step: &Step) -> String {
    let mut text = format!("{BOLD}{:48}{BOLD:#}{DIM}{:>6} ms{DIM:#}", step.title, step.milliseconds);
    for line in &step.lines {
        text.push_str("\n  ");
        text.push_str(line);
    }
    text
}

/// Where to look next.
fn next(facts: &Facts, kept: bool) -> String {
    let root = facts.directory.display();
    let environment = format!("  export OBOL_CONFIG_DIR={root}/config OBOL_DATA_DIR={root}/data OBOL_STATE_DIR={root}/state");
    let (url, key, file) = (&facts.url, facts.key_file.display(), facts.file.display());
    if kept {
        return format!(
            "Everything runs until Ctrl-C. In another terminal:\n{environment}\n  \
             obol sell list                 what is sold\n  \
             obol stack status              how the node is\n  \
             curl -i {url}\n  \
             obol pay {url} --key-file {key}\n  \
             $EDITOR {file}    (a saved change is live at once)"
        );
    }
    format!(
        "The node has ended; its files are still there:\n{environment}\n  \
         obol sell list                 what is sold\n  \
         cat {file}\n  \
         obol quickstart --keep --dir {root}    (the same, left running)\n  \
         rm -r {root}\n\n\
         Sell your own service:\n  \
         obol stack init --network base-sepolia --pay-to 0x…\n  \
         obol sell http NAME --upstream http://localhost:9000 --price 0.001\n  \
         obol stack up"
    )
}

#[cfg(test)]
#[path = "quickstart/tests.rs"]
mod tests;
