//! The README's commands work as printed; those for a cluster are run where one is.

use std::{path::Path, process::Command, time::Duration};

use obol_e2e::{
    obol_binary,
    process::Process,
    readme::{Step, steps},
    repository,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_commands_work() {
    let steps = steps();
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
            Step::Cluster(_) => {}
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
