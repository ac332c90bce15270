//! Slices in the hands of people who have `helmfile`, `helm` and `kubectl`, and no `obol`.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

use obol_e2e::{buyers::Buyer, objects};
use serde_json::Value;

use crate::shop::Shop;

/// An offer of the other kind; nobody needs its model here.
const CHAT: &str = "\
name: chat
spec:
  type: inference
  upstream: { url: 'http://machine.test:9' }
  model: { name: tiny }
  payment: { price: { perRequest: '0.001' } }
";

/// With `weather` on sale: every tool leaves what a pass would have left.
pub async fn tools(shop: &mut Shop) {
    let chat = shop.stack.config().join("applications/sell-inference/chat");
    fs_err::create_dir_all(&chat).expect("a folder");
    let stack = fs_err::read_to_string(shop.stack.config().join("stack.yaml")).expect("a stack");
    let payee = shop.payee.to_checksum(None);
    assert!(stack.contains(&payee), "the payee of stack.yaml: {stack}");
    let terms = format!("payment: {{ network: base-sepolia, payTo: '{payee}',");
    fs_err::write(chat.join("values-offer.yaml"), CHAT.replace("payment: {", &terms)).expect("a file");
    assert!(shop.stack.ok(&["diff"]).contains("chat"), "it is seen, and its helmfile written");

    for (kind, name) in [("sell-inference", "chat"), ("sell-http", "weather")] {
        let folder = shop.stack.config().join("applications").join(kind).join(name);
        let chart = shop.stack.config().join("charts").join(kind).display().to_string();
        let values = folder.join("values-offer.yaml").display().to_string();
        let release = [name, &chart, "--namespace", "obol-offers", "--values", &values];

        uninstall(shop, name);
        run(shop, "helmfile", &["sync"], &folder);
        same(shop, &format!("helmfile sync of {name}"));

        uninstall(shop, name);
        run(shop, "helm", &[&["upgrade", "--install"], &release[..]].concat(), &folder);
        same(shop, &format!("helm upgrade --install of {name}"));

        let manifest = folder.join("rendered.yaml");
        fs_err::write(&manifest, run(shop, "helm", &[&["template"], &release[..]].concat(), &folder)).expect("a file");
        for more in [&["--dry-run=server"][..], &["--dry-run=server", "--server-side"]] {
            run(shop, "kubectl", &[&["apply", "-f", "rendered.yaml"], more].concat(), &folder);
        }
        fs_err::remove_file(manifest).expect("it was just written");
    }
    shop.buys(Buyer::FetchV2, "weather", "installed by plain helm: bought").await;

    infrastructure(shop);
    let begin = std::time::Instant::now();
    run(shop, "helmfile", &["sync"], &shop.stack.config());
    shop.note("plain helmfile sync of the whole folder", begin.elapsed());
    same(shop, "helmfile sync of the whole folder");
    fs_err::remove_dir_all(&chat).expect("a folder");
    shop.stack.ok(&["stack", "up"]);
}

/// The helmfile on disk says what the pass has installed, object for object.
fn infrastructure(shop: &Shop) {
    let folder = shop.stack.config().join("infrastructure");
    let rendered = by_name(&run(shop, "helmfile", &["template"], &folder));
    let manifest = |name, namespace| run(shop, "helm", &["get", "manifest", name, "--namespace", namespace], &folder);
    let mut installed = BTreeMap::new();
    for (name, namespace) in [("obol-crds", "x402"), ("obol", "x402"), ("traefik", "traefik")] {
        installed.extend(by_name(&manifest(name, namespace)));
    }
    assert_eq!(rendered.keys().collect::<Vec<_>>(), installed.keys().collect::<Vec<_>>());
    for (name, object) in rendered {
        assert_eq!(Some(&object), installed.get(&name), "{name}");
    }
}

fn by_name(manifest: &str) -> BTreeMap<String, Value> {
    let name = |object: &Value| {
        let meta = &object["metadata"];
        format!("{} {}/{}", object["kind"], meta["namespace"], meta["name"])
    };
    objects(manifest).into_iter().map(|object| (name(&object), object)).collect()
}

/// Whoever has installed what is there: a pass has nothing to change.
fn same(shop: &Shop, after: &str) {
    let output = shop.stack.run(&["diff", "--exit-code"]);
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "after {after} a pass would change something:\n{text}");
}

fn uninstall(shop: &Shop, name: &str) {
    run(shop, "helm", &["uninstall", name, "--namespace", "obol-offers", "--ignore-not-found", "--wait"], Path::new("/"));
}

fn run(shop: &Shop, program: &str, args: &[&str], folder: &Path) -> String {
    let mut command: Command = shop.cluster.program(program);
    let output = command.args(args).current_dir(folder).stdin(Stdio::null()).output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {} ({}): {error}", args.join(" "), folder.display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}
