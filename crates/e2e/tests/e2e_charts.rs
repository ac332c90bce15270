//! The charts through the real helm: what a slice renders is what the standalone node would serve.

use std::{path::Path, process::Command};

use obol_e2e::{objects, part, repository, stack::Stack};
use obol_offer::{Offer, OfferName, OfferSpec};
use obol_stackdir::{BackendKind, StackConfig, StackDir};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};

fn helm(chart: &Path, release: &str, namespace: &str, more: &[&str]) -> Result<String, String> {
    let mut helm = Command::new(part("cluster/bin/helm"));
    helm.args(["template", release]).arg(chart).args(["--namespace", namespace]).args(more);
    let output = helm.output().expect("helm starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn stack() -> (tempfile::TempDir, StackDir) {
    let folder = tempfile::tempdir().unwrap();
    let dir = StackDir::at(folder.path().join("stack"));
    let config = StackConfig { backend: BackendKind::Kubernetes, context: Some("test".to_owned()), ..Default::default() };
    dir.init(&config).unwrap();
    (folder, dir)
}

/// Renders a slice as plain helm does, twice, and compares the ServiceOffer with the spec.
fn renders_itself(dir: &StackDir, name: &OfferName, spec: &OfferSpec) {
    let kind = spec.kind;
    let values = dir.root().join("applications").join(kind.folder()).join(name.as_str()).join("values-offer.yaml");
    let chart = dir.root().join("charts").join(kind.folder());
    let render = || {
        let rendered = helm(&chart, name.as_str(), "obol-offers", &["--values", &values.display().to_string()]);
        rendered.unwrap_or_else(|error| panic!("{error}\n{}", fs_err::read_to_string(&values).unwrap()))
    };
    let manifest = render();
    assert_eq!(manifest, render(), "two renders of {name} differ");
    assert!(!manifest.contains("helm.sh/hook"), "Argo CD and Flux know no hooks of helm");
    let objects = objects(&manifest);
    for object in &objects {
        assert_eq!(object["metadata"]["namespace"], "obol-offers", "{} goes where helm's caller happens to be", object["kind"]);
    }
    let offers: Vec<Value> = objects.into_iter().filter(|object| object["kind"] == "ServiceOffer").collect();
    let [offer] = offers.as_slice() else { panic!("{name}: {manifest}") };
    assert_eq!(offer["metadata"]["name"], name.as_str());
    assert_eq!(offer["metadata"]["namespace"], "obol-offers");
    // What standalone serves is this very value.
    assert_eq!(offer["spec"], serde_json::to_value(spec).unwrap(), "{}", fs_err::read_to_string(&values).unwrap());
}

const PAY_TO: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

/// Words that some reader of YAML or some template takes for something else.
const TEXTS: &[&str] = &[
    "plain",
    "yes",
    "no",
    "on",
    "null",
    "~",
    "1e3",
    "0x10",
    "0o7",
    "1_000",
    "12:30:45",
    "2026-01-01",
    "{{ .Values }}",
    "{{",
    "# not a comment",
    "a: b",
    "- item",
    "\"quoted\"",
    "it's",
    "two\nlines",
    "  spaces  ",
    "tab\there",
    "über",
    "日本語",
    "emoji 🦀",
    "back\\slash",
    "%percent",
    "@at",
    "`tick`",
    "&anchor",
    "*alias",
    "!tag",
    "|",
    ">",
    "[list]",
    "{map}",
    "$(VAR)",
    "${VAR}",
    "a, b",
    "trailing:",
    "true",
    ".5",
    "+1",
];

/// A random spec; most are valid.
fn random(rng: &mut StdRng) -> Value {
    let pick = |rng: &mut StdRng, words: &[&str]| (*words.choose(rng).unwrap()).to_owned();
    let inference = rng.random_bool(0.4);
    let price = format!("{}.{:06}", rng.random_range(0..50_u32), rng.random_range(1..999_999_u32));
    let mut payment = json!({ "network": pick(rng, &["base", "base-sepolia", "polygon"]), "payTo": PAY_TO });
    payment["price"] = match (inference, rng.random_range(0..3)) {
        (true, 0) => json!({ "perMTok": price }),
        (true, 1) => json!({ "perMTok": price, "perMTokOutput": "12.5" }),
        (false, 0) => json!({ "perUnit": price, "unit": "page", "maxUnits": rng.random_range(1..1000) }),
        _ => json!({ "perRequest": price }),
    };
    let mut spec = json!({ "type": if inference { "inference" } else { "http" }, "payment": payment });
    spec["upstream"] = match rng.random_range(0..3) {
        0 => json!({ "url": "http://10.0.0.7:9000/base" }),
        1 => json!({ "service": "weather", "namespace": "apps", "port": rng.random_range(1..65535) }),
        _ => json!({ "url": "https://up.example/v1" }),
    };
    if inference {
        spec["model"] = json!({ "name": "llama-3.3", "maxTokens": rng.random_range(1..100_000) });
        if rng.random_bool(0.5) {
            spec["model"]["credential"] = json!("OPENAI_KEY");
        }
    }
    if rng.random_bool(0.7) {
        spec["registration"] = json!({ "description": pick(rng, TEXTS), "name": pick(rng, TEXTS) });
    }
    if rng.random_bool(0.5) {
        spec["limits"] = json!({ "maxInFlight": rng.random_range(1..u32::MAX), "maxBodyBytes": rng.random_range(1..1_u64 << 53) });
    }
    if rng.random_bool(0.5) && !inference {
        spec["routes"] = json!([{ "path": "/health", "gate": "free" }, { "path": "/docs/*", "gate": "free" }]);
    }
    if rng.random_bool(0.3) {
        spec["path"] = json!(format!("/p{}", rng.random_range(0..1_000_000)));
    }
    if rng.random_bool(0.2) {
        spec["hostname"] = json!("api.example.com");
    }
    if rng.random_bool(0.2) {
        spec["drainAt"] = json!("2026-11-25T00:00:00Z");
        spec["drainGracePeriod"] = json!("90s");
    }
    spec
}

#[test]
fn e2e_charts_render_what_standalone_serves() {
    let (_folder, dir) = stack();
    let mut rng = StdRng::seed_from_u64(5);
    let (mut rendered, mut refused) = (0, 0);
    while rendered < 60 {
        let name: OfferName = format!("offer-{rendered}").parse().unwrap();
        let value = random(&mut rng);
        let valid = serde_json::from_value::<OfferSpec>(value).ok().filter(|spec| Offer::validate(&name, spec).is_ok());
        match valid {
            Some(spec) => {
                dir.put(&dir.lock().unwrap(), spec.kind, &name, &spec).unwrap_or_else(|error| panic!("{name}: {error}"));
                renders_itself(&dir, &name, &spec);
                rendered += 1;
            }
            None => refused += 1,
        }
        assert!(refused < 600, "only {rendered} random offers are valid: the generator knows the rules no more");
    }
    println!("{rendered} random offers render to themselves ({refused} were refused)");
}

/// `obol sell …` of the README, of the pages in `docs` and of the program's own help.
fn examples() -> Vec<Vec<String>> {
    let mut files = vec![repository().join("README.md")];
    files.extend(fs_err::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    files.sort();
    let helps = ["http", "inference"].map(|kind| Stack::new().ok(&["sell", kind, "--help"]));
    let texts = files.iter().map(|file| fs_err::read_to_string(file).unwrap()).chain(helps);
    texts.map(|text| examples_of(&text)).filter(|examples| !examples.is_empty()).collect()
}

/// The examples of one text, as printed.
fn examples_of(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("obol sell ") {
        let (before, rest) = text.split_at(at);
        // In running text a command goes on to its backtick, in a block to the end of its line.
        let command = if before.ends_with('`') {
            rest.split('`').next().unwrap_or_default().replace('\n', " ")
        } else {
            rest.replace("\\\n", " ").lines().next().unwrap_or_default().to_owned()
        };
        let command = command.split(" #").next().unwrap_or_default().trim().replace("0x…", PAY_TO);
        let sells = ["obol sell http ", "obol sell inference "].iter().any(|verb| command.starts_with(verb));
        if sells && !["NAME", "…", "--from-json"].iter().any(|open| command.contains(open)) {
            found.push(command);
        }
    }
    found
}

#[test]
fn e2e_charts_render_every_example_as_standalone_serves_it() {
    let examples = examples();
    for text in &examples {
        let stack = Stack::with(&format!("defaults: {{ payTo: '{PAY_TO}', network: base-sepolia }}\n"));
        let dir = StackDir::at(stack.config());
        for example in text {
            println!("{example}");
            let name: OfferName = example.split_whitespace().nth(3).unwrap().parse().unwrap_or_else(|_| panic!("{example}"));
            let is_new = dir.find(&name).is_none();
            // What shows one option says nothing of the rest.
            let rest = [("--upstream", "http://localhost:9000", ""), ("--model", "m", " inference ")];
            let needed = rest.into_iter().filter(|(option, _, kind)| is_new && example.contains(kind) && !example.contains(option));
            let rest: String = needed.map(|(option, value, _)| format!(" {option} {value}")).collect();
            stack.shell(&format!("{example}{rest}"));
            let slice = dir.find(&name).unwrap_or_else(|| panic!("{example} has written nothing"));
            let (spec, _) = slice.offer.unwrap_or_else(|problems| panic!("{example}: {problems:?}"));
            renders_itself(&dir, &name, &spec);
        }
    }
    for kind in ["http", "inference"] {
        let start = format!("obol sell {kind} ");
        assert!(examples.iter().flatten().any(|example| example.starts_with(&start)), "no example of {kind}");
    }
}

/// Argo CD and Flux render without a cluster, again and again, and compare.
#[test]
fn e2e_charts_suit_argo_cd_and_flux() {
    let charts = repository().join("charts");
    let offer = ["--set", "name=x", "--set", "spec.upstream.url=http://x", "--set", "spec.model.name=m", "--set"];
    let http = [&offer[..4], &["--set", "spec.type=http"]].concat();
    let inference = [&offer[..], &["spec.type=inference"]].concat();
    // What has no namespace of its own.
    let everywhere = ["ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "GatewayClass", "Namespace"];
    for (chart, values) in [("obol-crds", &[][..]), ("obol", &[]), ("traefik", &[]), ("sell-http", &http), ("sell-inference", &inference)] {
        let render = || helm(&charts.join(chart), "x", "somewhere", values).unwrap_or_else(|error| panic!("{chart}: {error}"));
        let manifest = render();
        assert_eq!(manifest, render(), "two renders of {chart} differ");
        assert!(!manifest.contains("helm.sh/hook"), "{chart} has a hook");
        let mut names = std::collections::BTreeSet::new();
        for object in objects(&manifest) {
            let (kind, meta) = (object["kind"].as_str().unwrap(), &object["metadata"]);
            assert_eq!(meta["namespace"].is_string(), !everywhere.contains(&kind), "{chart}: namespace of {kind} {}", meta["name"]);
            assert!(meta["generateName"].is_null(), "{chart}: {kind} gets another name each time");
            assert!(names.insert(format!("{kind} {} {}", meta["namespace"], meta["name"])), "{chart} has {kind} {} twice", meta["name"]);
        }
        assert!(!names.is_empty(), "{chart} renders nothing");
        for template in fs_err::read_dir(charts.join(chart).join("templates")).unwrap() {
            let text = fs_err::read_to_string(template.unwrap().path()).unwrap();
            let calls = text.split("{{").skip(1).filter_map(|rest| rest.split("}}").next());
            let words = calls.flat_map(|call| call.split(|c: char| !c.is_ascii_alphanumeric()));
            let lasting = |word: &&str| {
                !(["lookup", "now", "uuidv4", "derivePassword", "htpasswd"].contains(word)
                    || ["rand", "gen"].iter().any(|start| word.starts_with(start)))
            };
            words.for_each(|word| assert!(lasting(&word), "{chart} calls `{word}`, which gives another answer next time"));
        }
    }
}

#[test]
fn e2e_charts_refuse_what_would_lose_money() {
    let charts = repository().join("charts");
    let two = ["--set", "gateway.replicas=2"];
    let error = helm(&charts.join("obol"), "obol", "x402", &two).expect_err("two gateways on one volume");
    assert!(error.contains("postgres"), "{error}");
    let shared = [two[0], two[1], "--set", "gateway.postgres.secretName=journal"];
    let manifest = helm(&charts.join("obol"), "obol", "x402", &shared).unwrap();
    assert!(manifest.contains("kind: PodDisruptionBudget") && !manifest.contains("volumeClaimTemplates"), "{manifest}");
    assert!(!manifest.contains("kind: StatefulSet"), "gateways that share a database are all alike");
    let wrong = ["--set", "name=weather", "--set", "spec.type=http", "--set", "spec.upstreem.url=http://x"];
    let error = helm(&charts.join("sell-http"), "weather", "obol-offers", &wrong).expect_err("a field that does not exist");
    assert!(error.contains("upstreem"), "{error}");
}

/// Every Pod of ours keeps the `restricted` profile, and none gets a token that it does not need.
#[test]
fn e2e_charts_make_restricted_pods() {
    let charts = repository().join("charts");
    let offer =
        ["--set", "name=llama", "--set", "spec.type=inference", "--set", "spec.upstream.url=http://x", "--set", "spec.model.name=m"];
    let rendered = [
        helm(&charts.join("obol"), "obol", "x402", &OWN_FACILITATOR).unwrap(),
        helm(&charts.join("traefik"), "traefik", "traefik", &[]).unwrap(),
        helm(&charts.join("sell-inference"), "llama", "obol-offers", &offer).unwrap(),
    ];
    let mut pods = 0;
    for object in rendered.iter().flat_map(|manifest| objects(manifest)).filter(|object| object["spec"]["template"].is_object()) {
        let pod = &object["spec"]["template"]["spec"];
        let name = &object["metadata"]["name"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for container in pod["containers"].as_array().unwrap() {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{name}");
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                assert!(container[probe].is_object(), "{name} has no {probe}");
            }
        }
        if object["metadata"]["name"] == "llama-inference" {
            assert_eq!(pod["automountServiceAccountToken"], false);
        }
        pods += 1;
    }
    assert_eq!(pods, 5, "gateway, controller, facilitator, Traefik and one inference gateway");
}

/// Values of chart `obol` with which it has a facilitator.
const OWN_FACILITATOR: [&str; 4] =
    ["--set-json", r#"stack.networks={"base-sepolia":{"rpc":["http://node.test"]}}"#, "--set", "facilitator.networks={base-sepolia}"];

/// There is one facilitator, also during an update; it alone has keys, and gateways alone reach it.
#[test]
fn e2e_charts_make_one_facilitator_and_gateways_without_keys() {
    let chart = repository().join("charts/obol");
    let all = objects(&helm(&chart, "obol", "x402", &OWN_FACILITATOR).unwrap());
    let find = |kind: &str, name: &str| all.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let facilitator = &find("Deployment", "facilitator").unwrap()["spec"];
    assert_eq!((&facilitator["replicas"], &facilitator["strategy"]["type"]), (&json!(1), &json!("Recreate")));
    let has_key = |pod: &Value| pod["spec"]["template"].to_string().contains("OBOL_FACILITATOR_KEY_BASE_SEPOLIA");
    assert!(has_key(find("Deployment", "facilitator").unwrap()) && !has_key(find("StatefulSet", "x402-gateway").unwrap()));
    let policy = &find("NetworkPolicy", "facilitator").unwrap()["spec"]["ingress"];
    let from = json!([{ "podSelector": { "matchLabels": { "app.kubernetes.io/name": "x402-gateway" } } }]);
    assert_eq!((&policy[0]["from"], &policy[0]["ports"][0]["port"]), (&from, &json!(8404)));
    let none = helm(&chart, "obol", "x402", &[]).unwrap();
    assert!(!none.contains("facilitator"), "without a key there is none");
    let unknown = ["--set", "facilitator.networks={base}"];
    let error = helm(&chart, "obol", "x402", &unknown).expect_err("a network that `stack` does not have");
    assert!(error.contains("says nothing of base"), "{error}");
}

/// What plain helmfile makes of `stack.yaml` is what the pass hands to helm, and no secret is looked for.
#[test]
fn e2e_charts_get_no_secret_from_plain_helmfile() {
    let (folder, dir) = stack();
    let secrets = "networks:\n  base-sepolia:\n    rpc: [\"http://node.test\"]\n    facilitatorKey: ref+file:///nowhere/key\n\
                   journal:\n  postgres: ref+file:///nowhere/url\ncredentials:\n  OPENAI_KEY: ref+file:///nowhere/openai\n\
                   facilitators:\n  - url: https://x402.example\n    credential: ref+file:///nowhere/token\n";
    fs_err::write(dir.root().join("stack.yaml"), format!("id: shop\nbackend: kubernetes\ncontext: test\n{secrets}")).unwrap();
    let mut helmfile = Command::new(part("cluster/bin/helmfile"));
    helmfile.arg("--file").arg(dir.root().join("infrastructure/helmfile.yaml.gotmpl"));
    helmfile.arg("--helm-binary").arg(part("cluster/bin/helm")).args(["write-values", "--skip-deps", "--output-file-template"]);
    helmfile.arg(folder.path().join("{{ .Release.Name }}.yaml"));
    let output = helmfile.output().expect("helmfile starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let values: Value = serde_saphyr::from_str(&fs_err::read_to_string(folder.path().join("obol.yaml")).unwrap()).unwrap();
    // `printf https://x402.example | sha256sum`
    let expected = json!({
        "stack": {
            "id": "shop",
            "networks": { "base-sepolia": { "rpc": ["http://node.test"] } },
            "facilitators": [{ "url": "https://x402.example", "credential": "env:OBOL_CREDENTIAL_61B2B9AFDE1D47A7" }],
        },
        "gateway": { "postgres": { "secretName": "obol-gateway", "key": "OBOL_JOURNAL_URL" } },
        "facilitator": { "networks": ["base-sepolia"] },
    });
    assert_eq!(values, expected);
}
