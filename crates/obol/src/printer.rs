//! The only place that prints. Data goes to stdout, everything else to stderr.

use std::io::{self, IsTerminal, Write};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

use crate::{
    args::Output,
    error::{Error, Problem},
};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
const GREEN: Style = AnsiColor::Green.on_default().bold();

/// Where and how a command speaks. Colours only on a terminal and without `NO_COLOR`.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    output: Output,
    quiet: bool,
}

impl Printer {
    /// A printer for one run of the program.
    pub const fn new(output: Output, quiet: bool) -> Self {
        Self { output, quiet }
    }

    /// Whether people read the output, as opposed to a program.
    pub const fn is_human(&self) -> bool {
        matches!(self.output, Output::Table)
    }

    /// Whether questions may be asked: a person sits at both ends, and no format is asked for.
    pub fn is_interactive(&self) -> bool {
        self.is_human() && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// The result of a command: `human` for people, `data` as JSON or YAML otherwise.
    pub fn data<T: Serialize>(&self, data: &T, human: impl FnOnce() -> String) {
        let text = match self.output {
            Output::Table => human(),
            Output::Json => serde_json::to_string_pretty(data).unwrap_or_default(),
            Output::Yaml => serde_saphyr::to_string(data).unwrap_or_default(),
        };
        self.line(text.trim_end());
    }

    /// A line of data on stdout.
    pub fn line(&self, text: &str) {
        write_out(&mut AutoStream::auto(io::stdout().lock()), format_args!("{text}\n"));
    }

    /// Raw bytes on stdout, flushed, so that a stream is seen as it comes.
    ///
    /// # Errors
    /// When the reader has gone.
    pub fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// Something worth knowing, on stderr; silenced by `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.err(format_args!("{text}\n"));
        }
    }

    /// Something done, on stderr; silenced by `--quiet`.
    pub fn done(&self, text: &str) {
        if !self.quiet {
            self.err(format_args!("{GREEN}✓{GREEN:#} {}\n", clean(text)));
        }
    }

    /// An aside, on stderr; silenced by `--quiet`.
    pub fn hint(&self, text: &str) {
        if !self.quiet {
            self.err(format_args!("{DIM}{text}{DIM:#}\n"));
        }
    }

    /// How far something is, on stderr: on a terminal in one line that is written over, and taken away by an empty
    /// text; silenced by `--quiet`.
    pub fn progress(&self, text: &str) {
        let terminal = io::stderr().is_terminal();
        match (self.quiet, terminal, clean(text)) {
            (true, ..) => {}
            (_, true, text) => self.err(format_args!("\r\x1b[K{DIM}{text}{DIM:#}")),
            (_, false, text) if text.is_empty() => {}
            (_, false, text) => self.err(format_args!("{text}\n")),
        }
    }

    /// Something that should not be overlooked, on stderr.
    pub fn warn(&self, text: &str) {
        self.err(format_args!("{YELLOW}warning{YELLOW:#}: {}\n", clean(text)));
    }

    /// A receipt for a program, on stderr, since stdout has the body.
    pub fn receipt(&self, receipt: &serde_json::Value) {
        self.err(format_args!("{receipt}\n"));
    }

    /// One problem that did not stop the command, on stderr.
    pub fn problem(&self, problem: &Problem) {
        self.err(format_args!("{}", render(problem)));
    }

    /// Why the command failed, on stderr: text for people, one JSON object otherwise.
    pub fn error(&self, error: &Error) {
        let problems = error.problems();
        if self.is_human() {
            for problem in &problems {
                self.problem(problem);
            }
            return;
        }
        self.err(format_args!("{}\n", error_json(&problems)));
    }

    /// Asks for a yes; anything else is a no.
    pub fn confirm(&self, question: &str) -> bool {
        dialoguer::Confirm::new().with_prompt(question).default(false).interact().unwrap_or(false)
    }

    /// Asks for one of several; `None` when none is chosen.
    pub fn choose(&self, question: &str, items: &[String]) -> Option<usize> {
        let items: Vec<String> = items.iter().map(|item| clean(item)).collect();
        dialoguer::Select::new().with_prompt(question).items(&items).default(0).interact_opt().ok().flatten()
    }

    /// Asks for a line; empty is `None`.
    pub fn ask(&self, question: &str) -> Option<String> {
        let answer: String = dialoguer::Input::new().with_prompt(question).allow_empty(true).interact_text().ok()?;
        let answer = answer.trim();
        (!answer.is_empty()).then(|| answer.to_owned())
    }

    fn err(&self, text: std::fmt::Arguments<'_>) {
        write_out(&mut AutoStream::auto(io::stderr().lock()), text);
    }
}

/// A reader that has gone away (`obol … | head`) is no error of ours.
fn write_out(out: &mut impl Write, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text).and_then(|()| out.flush());
}

fn render(problem: &Problem) -> String {
    let mut text = format!("{RED}error{RED:#}: {} {DIM}[{}]{DIM:#}\n", clean(&problem.message), problem.code);
    if let Some(place) = &problem.at {
        text.push_str(&format!("  {DIM}where{DIM:#} {}\n", clean(place)));
    }
    text.push_str(&format!("  {DIM}fix{DIM:#}   {}\n", clean(&problem.fix)));
    text
}

/// Values from outside must not steer the terminal.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// `{"error":{code,message,where,fix}}`, the first problem; when there are several, `problems` has all.
#[derive(Serialize)]
struct ErrorDocument<'a> {
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    #[serde(flatten)]
    first: Option<&'a Problem>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    problems: &'a [Problem],
}

fn error_json(problems: &[Problem]) -> String {
    let several = if problems.len() > 1 { problems } else { &[] };
    let document = ErrorDocument { error: ErrorBody { first: problems.first(), problems: several } };
    serde_json::to_string(&document).unwrap_or_default()
}

/// A plain table: a bold head, columns by width, no lines.
pub fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.map(|h| h.to_uppercase()));
    for row in rows {
        table.add_row(row.map(|cell| clean(&cell)));
    }
    let text = table.to_string();
    let lines: Vec<_> = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
    match lines.split_first() {
        Some((head, rows)) => {
            std::iter::once(format!("{BOLD}{head}{BOLD:#}")).chain(rows.iter().map(|r| (*r).to_owned())).collect::<Vec<_>>().join("\n")
        }
        None => text,
    }
}
