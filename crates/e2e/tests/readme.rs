//! The README's commands work as printed; those for a cluster are run where one is.

use std::{process::Command, time::Duration};

use obol_e2e::{
    process::Process,
    readme::{Step, steps},
    repository,
    stack::Stack,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_commands_work() {
    let steps = steps();
    assert!(steps.iter().any(|step| matches!(step, Step::Run(_))), "the README has nothing to run");
    let stack = Stack::bare();
    let mut background = Vec::new();
    for step in steps {
        println!("{step:?}");
        match step {
            Step::Run(line) => stack.shell(&line),
            Step::Background(line) => {
                background.push(Process::start(&line, &mut stack.line(&format!("exec {line}"))));
                wait_until_up(&stack).await;
            }
            Step::Cargo(line) => cargo(&stack, &line),
            Step::Cluster(_) => {}
        }
    }
}

async fn wait_until_up(stack: &Stack) {
    for _ in 0..200 {
        if stack.run(&["stack", "status"]).status.success() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("what runs in the background does not come up");
}

/// The quickstart is run with the built binary; of every other cargo command the verb must exist.
fn cargo(stack: &Stack, line: &str) {
    if let Some(arguments) = line.strip_prefix("cargo run --release --bin obol -- ") {
        return stack.shell(&format!("obol {arguments}"));
    }
    let words = line.split_whitespace().skip(1).take_while(|word| !word.starts_with("--"));
    let known = Command::new(env!("CARGO")).args(words).arg("--help").current_dir(repository()).output().expect("cargo starts");
    assert!(known.status.success(), "`{line}` does not exist:\n{}", String::from_utf8_lossy(&known.stderr));
}
