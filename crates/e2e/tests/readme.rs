//! The README's commands work as printed.
//!
//! A block of ```sh below `<!-- test: run -->` is run line by line in one fresh home with the
//! release binary on the PATH; below `<!-- test: run in background -->` its commands stay up until
//! the end. Of the others only `cargo` lines are looked at: the quickstart is run, and every other
//! cargo command must exist.

use std::{path::Path, process::Command, time::Duration};

use obol_e2e::{obol_binary, process::Process, repository};

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Run(String),
    Background(String),
    Cargo(String),
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_commands_work() {
    let readme = fs_err::read_to_string(repository().join("README.md")).expect("there is a README");
    let steps = steps(&readme);
    assert!(steps.iter().any(|step| matches!(step, Step::Run(_))), "the README has nothing to run");
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut background = Vec::new();
    for step in steps {
        println!("{step:?}");
        match step {
            Step::Run(line) => run(&mut shell(home.path(), &line), &line),
            Step::Background(line) => {
                background.push(Process::start(&line, &mut shell(home.path(), &format!("exec {line}"))));
                wait_until_up(home.path()).await;
            }
            Step::Cargo(line) => cargo(home.path(), &line),
        }
    }
}

fn shell(home: &Path, line: &str) -> Command {
    let binaries = obol_binary().parent().expect("the binary is in a folder").to_path_buf();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", line]).current_dir(home).env("HOME", home).env("PATH", path);
    for part in ["config", "data", "state"] {
        shell.env(format!("OBOL_{}_DIR", part.to_uppercase()), home.join(part));
    }
    shell
}

async fn wait_until_up(home: &Path) {
    for _ in 0..200 {
        if shell(home, "obol stack status").output().is_ok_and(|output| output.status.success()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("what runs in the background does not come up");
}

/// The quickstart is run with the built binary; of every other cargo command the verb must exist.
fn cargo(home: &Path, line: &str) {
    if let Some(arguments) = line.strip_prefix("cargo run --release --bin obol -- ") {
        return run(&mut shell(home, &format!("obol {arguments}")), line);
    }
    let words = line.split_whitespace().skip(1).take_while(|word| !word.starts_with("--"));
    run(Command::new(env!("CARGO")).args(words).arg("--help").current_dir(repository()), line);
}

fn run(command: &mut Command, line: &str) {
    let output = command.output().expect("it starts");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "`{line}` failed ({}):\n{out}\n{error}", output.status);
}

/// The steps of a document, in order.
fn steps(markdown: &str) -> Vec<Step> {
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
                  <!-- test: run in background -->\n\n```sh\nobol c\n```\n```sh\nobol d\ncargo xtask test # words\n```\n";
    let expected = [Step::Run("obol a b".into()), Step::Background("obol c".into()), Step::Cargo("cargo xtask test".into())];
    assert_eq!(steps(readme), expected);
}
