//! The README's commands, as tests run them.
//!
//! A block of ```sh below `<!-- test: run -->` is run line by line in one fresh home with the
//! release binary on the PATH; below `<!-- test: run in background -->` its commands stay up until
//! the end; below `<!-- test: run in a cluster -->` they are run where a cluster is. Of the others only
//! `cargo` lines are looked at: the quickstart is run, and every other cargo command must exist.

use crate::repository;

/// One command.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Ends by itself.
    Run(String),
    /// Stays up until the end.
    Background(String),
    /// Builds what it runs.
    Cargo(String),
    /// Wants a cluster.
    Cluster(String),
}

/// Every step of the README, in order.
///
/// # Panics
/// When there is no README.
pub fn steps() -> Vec<Step> {
    read(&fs_err::read_to_string(repository().join("README.md")).expect("there is a README"))
}

fn read(markdown: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut marker = "";
    let mut inside = None;
    let mut pending = String::new();
    for line in markdown.lines().map(str::trim) {
        let line = line.strip_prefix("$ ").unwrap_or(line);
        if let Some(info) = line.strip_prefix("```") {
            inside = if inside.is_some() { None } else { Some(if info.trim() == "sh" { marker } else { "not sh" }) };
            marker = "";
        } else if inside.is_none() {
            if !line.is_empty() {
                marker = line.strip_prefix("<!-- test:").and_then(|rest| rest.strip_suffix("-->")).map_or("", str::trim);
            }
        } else if let Some(head) = line.strip_suffix('\\') {
            pending.push_str(head);
        } else {
            let whole = std::mem::take(&mut pending) + line;
            let command = whole.split(" #").next().unwrap_or_default().trim().to_owned();
            match inside {
                _ if command.is_empty() || command.starts_with('#') => {}
                Some("run") => steps.push(Step::Run(command)),
                Some("run in a cluster") => steps.push(Step::Cluster(command)),
                Some("run in background") => steps.push(Step::Background(command)),
                Some("") if command.starts_with("cargo ") => steps.push(Step::Cargo(command)),
                _ => {}
            }
        }
    }
    steps
}

#[test]
fn blocks_are_read_as_people_read_them() {
    let readme = "<!-- test: run -->\n```sh\n# words\n$ obol a \\\n  b   # words\n```\n```json\n{}\n```\n\
                  <!-- test: run in background -->\n\n```sh\nobol c\n```\n```sh\nobol d\ncargo xtask test # words\n```\n\
                  <!-- test: run in a cluster -->\n```sh\nobol e # words\n```\n";
    let expected = [
        Step::Run("obol a b".into()),
        Step::Background("obol c".into()),
        Step::Cargo("cargo xtask test".into()),
        Step::Cluster("obol e".into()),
    ];
    assert_eq!(read(readme), expected);
}
