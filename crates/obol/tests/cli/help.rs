//! `--help` of every command there is, and what clap refuses.

use serde_json::Value;

use crate::{golden, support::Stack};

#[test]
fn every_command_explains_itself() {
    let stack = Stack::empty();
    let tree = stack.json(&["schema", "cli"]);
    let mut shown = 0;
    visit(&stack, &tree, &mut Vec::new(), &mut shown);
    assert!(shown > 20, "only {shown} commands");
}

fn visit(stack: &Stack, command: &Value, path: &mut Vec<String>, shown: &mut u32) {
    let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
    args.push("--help");
    let name = if path.is_empty() { "help".to_owned() } else { format!("help-{}", path.join("-")) };
    golden!(name, stack.ok(&args).stdout);
    *shown += 1;
    for sub in command["commands"].as_array().into_iter().flatten() {
        path.push(sub["name"].as_str().unwrap().to_owned());
        visit(stack, sub, path, shown);
        path.pop();
    }
}

#[test]
fn wrong_usage_has_a_code_in_json() {
    let stack = Stack::empty();
    let code = |args: &[&str]| {
        let run = stack.run(args);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{args:?}");
        run.error_code()
    };
    assert_eq!(code(&["sel", "-o", "json"]), "command_unknown");
    assert_eq!(code(&["sell", "--output=json"]), "command_missing");
    assert_eq!(code(&["sell", "http", "-ojson"]), "argument_missing");
    assert_eq!(code(&["sell", "list", "--lots", "-o", "json"]), "argument_unknown");
    assert_eq!(code(&["sell", "stop", "a", "--now", "--grace", "1h", "-o", "json"]), "argument_conflict");
    assert_eq!(code(&["sell", "http", "a", "--rps", "many", "-o", "json"]), "value_invalid");
    assert_eq!(code(&["stack", "up", "--listen", "8402", "-o", "json"]), "value_invalid");
    let typo = stack.run(&["sell", "http", "a", "--prize", "1"]);
    assert_eq!(typo.code, 2);
    assert!(typo.stderr.contains("--price"), "{}", typo.stderr);
}

#[test]
fn the_version_is_told_in_every_way() {
    let stack = Stack::empty();
    let version = format!("obol {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stack.ok(&["--version"]).stdout, version);
    assert_eq!(stack.ok(&["version"]).stdout, version);
    assert_eq!(stack.json(&["version"])["version"], "[VERSION]");
}

#[test]
fn schemas_and_completions_are_whole() {
    let stack = Stack::empty();
    let schema: Value = serde_json::from_str(&stack.ok(&["schema"]).stdout).unwrap();
    assert_eq!(schema["required"], serde_json::json!(["name", "spec"]));
    assert!(schema["$defs"]["PaymentSpec"]["properties"]["payTo"].is_object());
    for shell in ["bash", "zsh", "fish"] {
        assert!(stack.ok(&["completions", shell]).stdout.contains("per-request"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let stack = Stack::empty();
    let binary = env!("CARGO_BIN_EXE_obol");
    let run = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{binary} schema | head -c 1"))
        .current_dir(stack.path(""))
        .output()
        .unwrap();
    assert_eq!((run.stdout.as_slice(), run.stderr.as_slice()), (b"{".as_slice(), b"".as_slice()));
}
