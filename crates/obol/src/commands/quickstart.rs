//! `obol quickstart`: from nothing to a paid request, without any network.

mod demo;
mod stage;
mod tour;

use std::path::Path;

use anstyle::Style;

use self::tour::{Facts, Options, Step, Toured, tour};
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
    let Toured { facts, node, demo } = tour(&options, &mut show).await?;
    let print = || {
        printer.data(&facts, || format!("\nPaid and served, from nothing, in {} ms.\n\n{}", facts.milliseconds, next(&facts, args.keep)))
    };
    if args.keep {
        print();
        node.run_until(interrupted()).await?;
    } else {
        node.stop().await?;
        print();
    }
    drop(demo);
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
    let (root, key, file, url) = (quoted(&facts.directory), quoted(&facts.key_file), quoted(&facts.file), &facts.url);
    let environment = format!("  export OBOL_CONFIG_DIR={root}/config OBOL_DATA_DIR={root}/data OBOL_STATE_DIR={root}/state");
    if kept {
        return format!(
            "Everything runs until Ctrl-C. In another terminal:\n{environment}\n  \
             obol sell list         # what is sold\n  \
             obol stack status      # how the node is\n  \
             curl -i {url}\n  \
             obol pay {url} --key-file {key}\n  \
             $EDITOR {file}    # a saved change is live at once"
        );
    }
    format!(
        "The node has ended; its files are still there:\n{environment}\n  \
         obol sell list         # what is sold\n  \
         cat {file}\n  \
         obol quickstart --keep --dir {root}    # the same, left running\n  \
         rm -r {root}\n\n\
         Sell a service of your own (in a terminal without these variables):\n  \
         obol stack init --network base-sepolia --pay-to 0x…\n  \
         obol sell http NAME --upstream http://localhost:9000 --price 0.001\n  \
         obol stack up"
    )
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
#[path = "quickstart/tests.rs"]
mod tests;
