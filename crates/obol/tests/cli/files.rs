//! Without a node: files in, files out.

use std::fs;

use serde_json::json;

use crate::{
    golden,
    support::{SELLER, Stack},
};

#[test]
fn the_first_offer_makes_its_stack_and_says_so() {
    let stack = Stack::empty();
    let args =
        ["sell", "http", "weather", "--upstream", "http://localhost:9000", "--price", "0.001", "--network", "base-sepolia", "-w", SELLER];
    golden!("first-offer-dry-run", stack.run(&[&args[..], &["--dry-run"]].concat()).shown());
    assert!(!stack.path("config").exists(), "a dry run wrote something");
    golden!("first-offer", stack.ok(&args).shown());
    golden!("first-offer-file", fs::read_to_string(stack.values("weather")).unwrap());
    assert!(stack.path("config/stack.yaml").exists());
}

#[test]
fn comments_and_order_survive_another_run() {
    let stack = Stack::new();
    let folder = stack.path("config/applications/sell-http/weather");
    fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "# My first offer.\nspec:\n  payment: # ask Ann before changing\n    price: {{perRequest: '0.001'}}   # cheap\n    payTo: \"{SELLER}\"\n    \
         network: base-sepolia\n\n  upstream:\n    host: {{port: 9000}}\nname: weather\n"
    );
    fs::write(folder.join("values-offer.yaml"), &text).unwrap();
    stack.ok(&["sell", "http", "weather", "--price", "0.002", "--rps", "5"]);
    let after = fs::read_to_string(stack.values("weather")).unwrap();
    golden!("comments-kept", &after);
    stack.ok(&["sell", "http", "weather", "--price", "0.002"]);
    assert_eq!(fs::read_to_string(stack.values("weather")).unwrap(), after, "an idle run touched the file");
}

#[test]
fn a_rule_broken_by_hand_is_mended_by_a_flag() {
    let stack = Stack::with_offer();
    let text = fs::read_to_string(stack.values("weather")).unwrap().replace("\"0.001\"", "\"0\" # why not");
    fs::write(stack.values("weather"), &text).unwrap();
    let list = stack.json(&["sell", "list"]);
    assert_eq!((&list["offers"][0]["state"], &list["offers"][0]["problems"][0]["code"]), (&json!("broken"), &json!("price")));
    golden!("list-broken", stack.ok(&["sell", "list"]).shown());
    stack.ok(&["sell", "http", "weather", "--price", "0.005"]);
    let mended = fs::read_to_string(stack.values("weather")).unwrap();
    assert_eq!(mended, text.replace("\"0\"", "\"0.005\""));
    fs::write(stack.values("weather"), "name: [").unwrap();
    let run = stack.run(&["sell", "http", "weather", "--price", "0.005", "-o", "json"]);
    assert_eq!((run.code, run.error_code()), (1, "yaml_syntax".to_owned()));
    assert_eq!(fs::read_to_string(stack.values("weather")).unwrap(), "name: [");
}

#[test]
fn a_manifest_and_flags_beside_it() {
    let stack = Stack::new();
    let manifest = json!({
        "apiVersion": "obol.org/v1alpha1", "kind": "ServiceOffer", "metadata": { "name": "rain", "namespace": "x" },
        "spec": {
            "upstream": { "url": "https://rain.example/v1" },
            "payment": { "network": "base", "payTo": SELLER, "price": { "perRequest": "1" } },
            "routes": [{ "path": "/health", "gate": "free" }],
        },
    });
    let run = stack.run_stdin(&["sell", "http", "--from-json", "-", "--price", "2"], &manifest.to_string());
    assert_eq!(run.code, 0, "{}", run.stderr);
    golden!("from-manifest", fs::read_to_string(stack.values("rain")).unwrap());
}

#[test]
fn tables_and_documents() {
    let stack = Stack::with_offer();
    stack.ok(&["sell", "http", "alerts", "--upstream", "https://alerts.example/v1", "--price", "1.50", "--network", "base"]);
    stack.ok(&[
        "sell",
        "http",
        "both",
        "--upstream",
        "http://localhost:9002",
        "--accept",
        "network=base,price=0.1",
        "--accept",
        "network=polygon,price=0.2",
        "--hostname",
        "both.example",
    ]);
    let text = fs::read_to_string(stack.values("alerts")).unwrap();
    fs::write(stack.values("alerts"), format!("{text}  drainAt: 2026-01-01T00:00:00Z\n")).unwrap();
    golden!("list-table", stack.ok(&["sell", "list"]).shown());
    golden!("list-json", stack.ok(&["sell", "list", "--output", "json"]).shown());
    golden!("list-yaml", stack.ok(&["sell", "list", "--output", "yaml"]).shown());
    golden!("status-one", stack.ok(&["sell", "status", "weather"]).shown());
    golden!("stack-status-down", stack.run(&["stack", "status"]).shown());
    golden!("stack-status-down-json", stack.run(&["stack", "status", "--output", "json"]).shown());
    golden!("diff-down", stack.run(&["diff"]).shown());
    golden!("diff-down-json", stack.run(&["diff", "--output", "json"]).shown());
    golden!("sell-json", stack.ok(&["sell", "http", "weather", "--price", "0.002", "--output", "json"]).shown());
    golden!("sell-dry-run", stack.ok(&["sell", "http", "weather", "--price", "0.003", "--dry-run"]).shown());
    golden!("delete-json", stack.ok(&["sell", "delete", "both", "--yes", "--output", "json"]).shown());
    golden!("list-empty", Stack::empty().ok(&["sell", "list"]).shown());
}

#[test]
fn without_a_node_the_exit_code_is_4() {
    let stack = Stack::with_offer();
    for args in [&["stack", "status"][..], &["stack", "down"], &["sell", "test", "weather"], &["sandbox", "balance", SELLER]] {
        let run = stack.run(args);
        assert_eq!(run.code, 4, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains("obol stack up"), "{args:?}: {}", run.stderr);
    }
    assert_eq!(stack.run(&["diff"]).code, 0);
    assert_eq!(stack.run(&["diff", "--exit-code"]).code, 3);
    assert_eq!(Stack::new().run(&["diff", "--exit-code"]).code, 0);
    let nothing = Stack::empty();
    for args in [&["stack", "up"][..], &["stack", "status"], &["diff"]] {
        let run = nothing.run(&[args, &["-o", "json"]].concat());
        assert!((run.code, run.error_code().as_str()) == (1, "stack_missing") || args == ["stack", "status"] && run.code == 1, "{args:?}");
    }
}

#[test]
fn an_offer_stops_and_starts_and_stays_stopped_meanwhile() {
    let stack = Stack::with_offer();
    let before = fs::read_to_string(stack.values("weather")).unwrap();
    let drain = || {
        let text = fs::read_to_string(stack.values("weather")).unwrap();
        let at = text.lines().find_map(|line| line.trim().strip_prefix("drainAt: ").map(str::to_owned));
        (at, text.lines().any(|line| line.trim().trim_matches('"').starts_with("drainGracePeriod: ") && line.contains("10m")))
    };
    let run = stack.run(&["sell", "stop", "weather", "--grace", "soon", "-o", "json"]);
    assert_eq!((run.code, run.error_code()), (2, "drain_grace_period".to_owned()));
    assert_eq!(fs::read_to_string(stack.values("weather")).unwrap(), before);
    stack.ok(&["sell", "stop", "weather", "--grace", "10m", "--dry-run"]);
    assert_eq!(drain(), (None, false));
    stack.ok(&["sell", "stop", "weather", "--grace", "10m"]);
    let stopped = drain();
    assert!(stopped.0.is_some() && stopped.1);
    stack.ok(&["sell", "stop", "weather"]);
    assert_eq!(drain(), stopped, "a second stop began the grace period anew");
    let spec =
        json!({ "upstream": { "host": { "port": 1 } }, "payment": { "network": "base", "payTo": SELLER, "price": { "perRequest": "1" } } });
    stack.run_stdin(&["sell", "http", "weather", "--from-json", "-"], &spec.to_string());
    assert_eq!(drain(), stopped, "a file without drainAt started the offer");
    stack.ok(&["sell", "http", "weather", "--upstream", "http://localhost:9000", "--price", "0.001", "--network", "base-sepolia"]);
    stack.ok(&["sell", "start", "weather"]);
    assert_eq!(fs::read_to_string(stack.values("weather")).unwrap(), before);
}

#[test]
fn an_editor_works_on_a_checked_copy() {
    let stack = Stack::with_offer();
    let edit = |editor: &str, more: &[&str]| {
        let args = [&["sell", "edit", "weather", "-o", "json"], more].concat();
        stack.run_with(&args, |command| {
            command.env("EDITOR", editor);
        })
    };
    let before = fs::read_to_string(stack.values("weather")).unwrap();
    assert_eq!(edit("true", &[]).code, 0);
    assert_eq!(edit("false", &[]).error_code(), "editor");
    let refused = edit("sed -i s/0.001/nothing/", &[]);
    assert_eq!((refused.code, refused.error_code()), (2, "price".to_owned()));
    let kept = refused.stderr.lines().find_map(|line| line.strip_prefix("your text is kept in ")).unwrap();
    assert!(fs::read_to_string(kept.replace("[ROOT]", stack.path("").to_str().unwrap())).unwrap().contains("nothing"));
    assert_eq!(edit("sed -i s/0.001/0.004/", &["--dry-run"]).code, 0);
    assert_eq!(fs::read_to_string(stack.values("weather")).unwrap(), before);
    // Somebody else writes while the editor is open.
    let meanwhile = format!("echo '# theirs' >> {}; sed -i s/0.001/0.005/", stack.values("weather").display());
    let run = edit(&meanwhile, &[]);
    assert_eq!((run.code, run.error_code()), (1, "changed_meanwhile".to_owned()));
    assert_eq!(fs::read_to_string(stack.values("weather")).unwrap(), format!("{before}# theirs\n"));
    assert_eq!(edit("sed -i s/0.001/0.004/", &[]).code, 0);
    assert!(fs::read_to_string(stack.values("weather")).unwrap().contains("0.004"));
}

#[test]
fn init_changes_only_what_it_is_told() {
    let stack = Stack::new();
    let file = stack.path("config/stack.yaml");
    let before = fs::read_to_string(&file).unwrap();
    golden!("stack-init-again", stack.ok(&["stack", "init"]).shown());
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    stack.ok(&["stack", "init", "--network", "base", "--dry-run"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    stack.ok(&["stack", "init", "--network", "base"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), before.replacen("network: base-sepolia\n  fac", "network: base\n  fac", 1));
    assert_ne!(fs::read_to_string(&file).unwrap(), before);
}

#[test]
fn the_environment_fills_a_gap_and_redirects_nothing() {
    let other = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
    let stack = Stack::with_offer();
    let sell = |name: &str| {
        let args = ["sell", "http", name, "--upstream", "http://localhost:9000", "--price", "0.002"];
        let run = stack.run_with(&args, |command| {
            command.env("X402_WALLET", other);
        });
        assert_eq!(run.code, 0, "{}", run.stderr);
        fs::read_to_string(stack.values(name)).unwrap()
    };
    assert!(sell("weather").contains(SELLER));
    assert!(sell("rain").contains(other));
}

#[test]
fn a_service_is_shown_before_it_is_written() {
    let stack = Stack::new();
    let run = stack.ok(&["stack", "install-service", "--dry-run"]);
    assert!(run.stdout.contains("ExecStart=") && run.stdout.contains("OBOL_CONFIG_DIR=[ROOT]/config"), "{}", run.stdout);
    assert!(!stack.path("home").exists());
    let gone = stack.json(&["stack", "install-service", "--uninstall"]);
    assert_eq!(gone["change"], "unchanged");
}

#[test]
fn purge_takes_state_and_leaves_what_people_made() {
    let stack = Stack::with_offer();
    for file in ["state/sandbox.chain", "state/mine.txt", "data/journal.redb", "data/secrets/key"] {
        fs::create_dir_all(stack.path(file).parent().unwrap()).unwrap();
        fs::write(stack.path(file), "x").unwrap();
    }
    let before = stack.tree();
    let run = stack.run(&["stack", "purge", "-o", "json"]);
    assert_eq!((run.code, run.error_code()), (2, "confirmation_needed".to_owned()));
    stack.ok(&["stack", "purge", "--yes", "--dry-run"]);
    assert!(stack.path("state/sandbox.chain").exists());
    stack.ok(&["stack", "purge", "--yes"]);
    let there = |file: &str| stack.path(file).exists();
    assert!(!there("state/sandbox.chain") && there("state/mine.txt") && there("data/journal.redb") && there("data/secrets/key"));
    stack.ok(&["stack", "purge", "--yes", "--with-data"]);
    assert!(!there("data") && there("state/mine.txt"));
    assert_eq!(stack.tree(), before);
}

#[test]
fn commands_at_the_same_time_lose_nothing() {
    let stack = Stack::with_offer();
    let flags = ["--rps", "--max-in-flight", "--max-body", "--max-timeout"];
    for round in 20..24 {
        let value = round.to_string();
        let spawn = |flag: &&str| stack.command(&["sell", "http", "weather", flag, &value, "-q"]).spawn().unwrap();
        for mut child in flags.iter().map(spawn).collect::<Vec<_>>() {
            assert!(child.wait().unwrap().success());
        }
        let text = fs::read_to_string(stack.values("weather")).unwrap();
        for field in ["rps", "maxInFlight", "maxBodyBytes", "maxTimeoutSeconds"] {
            assert!(text.contains(&format!("{field}: {value}\n")), "round {round}, {field}:\n{text}");
        }
    }
}
