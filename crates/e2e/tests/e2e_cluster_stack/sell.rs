//! From a bare cluster to money, and again after everything that can be taken away.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use alloy_primitives::U256;
use obol_e2e::{
    anvil::KEYS,
    buyers::Buyer,
    cluster::Component,
    forward::Forward,
    http,
    models::{MODEL, ModelServer},
    part,
    readme::{self, Step},
};
use serde_json::{Value, json};

use crate::{
    ingress, local, plain,
    shop::{PRICE, Shop},
};

/// Offers of the crowd.
const CROWD: usize = 200;

/// One cluster for all of it: the phases follow each other, for a bare one takes its time.
#[tokio::test(flavor = "multi_thread")]
async fn e2e_cluster_sells_and_is_payable_again_after_everything() {
    let mut shop = Shop::open().await;
    sell(&mut shop).await;
    tell(&mut shop).await;
    sell_a_model(&mut shop).await;
    down_and_up(&mut shop).await;
    deleted_by_hand(&mut shop).await;
    killed(&mut shop).await;
    shop.close("cluster-stack.txt");
}

#[tokio::test(flavor = "multi_thread")]
async fn e2e_cluster_leaves_others_alone_and_takes_a_crowd() {
    let mut shop = Shop::open().await;
    as_the_readme_says(&mut shop);
    shop.init();
    shop.stack.ok(&["stack", "up"]);
    shop.sell("weather");
    plain::tools(&mut shop).await;
    ingress::of_their_own(&mut shop).await;
    local::machine(&mut shop).await;
    broken_and_foreign(&mut shop).await;
    crowd(&mut shop).await;
    shop.close("cluster-crowd.txt");
}

async fn sell(shop: &mut Shop) {
    shop.init();
    shop.timed("bare cluster: stack up", &["stack", "up"]);
    let service = shop.service.url.clone();
    shop.timed("sell http", &["sell", "http", "weather", "--upstream", &service, "--price", "0.001"]);
    shop.buys(Buyer::FetchV2, "weather", "→ bought by @x402/fetch").await;
    shop.buys(Buyer::FetchV1, "weather", "  bought by x402-fetch (v1)").await;
    shop.buys(Buyer::PythonV2, "weather", "  bought by x402 of PyPI").await;
    let took = shop.all_ready(1, Duration::from_secs(30)).await;
    shop.note("  `kubectl get so`: Ready", took);
    let wide = shop.cluster.kubectl(&["get", "so", "-n", "obol-offers"]);
    shop.tell(wide.trim_end());
    shop.timed("stack up, nothing to change", &["stack", "up"]);
}

/// What buyers and the seller are told, once something is sold.
async fn tell(shop: &mut Shop) {
    let begin = Instant::now();
    loop {
        let answer = http().get(shop.url("/api/services.json")).send().await.expect("Traefik answers");
        let (status, text) = (answer.status(), answer.text().await.expect("a body"));
        if status == 200 {
            let catalog: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(catalog["services"][0]["name"], "weather", "{text}");
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{status} {text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let status = shop.stack.ok(&["stack", "status"]);
    assert!(status.contains(&format!("buyers  {}", shop.url("/"))) && status.contains("port-forward service/traefik"), "{status}");

    let page = shop.json(&["payments", "list", "--limit", "2"]);
    assert_eq!(page["payments"].as_array().expect("a list").len(), 2, "{page}");
    assert_eq!(page["payments"][0]["state"], "delivered", "{page}");
    let key = page["payments"][0]["key"].as_str().expect("a key");
    assert_eq!(shop.json(&["payments", "show", key])["key"], key);
    assert_eq!(shop.json(&["payments", "owed"])["payments"], json!([]));
    assert_eq!(shop.stack.ok(&["payments", "export"]).lines().count(), 4, "a head and three payments");
    let refused = shop.stack.run(&["payments", "refund", key]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("payments owed"), "nothing is owed for it");
    // Whoever merely reaches the port is told nothing of payments.
    let pod = "/api/v1/namespaces/x402/pods/x402-gateway-0:9402/proxy";
    assert_eq!(shop.cluster.kubectl(&["get", "--raw", &format!("{pod}/healthz")]), "ok\n");
    let refused = shop.cluster.try_kubectl(&["get", "--raw", &format!("{pod}/v1/payments")]);
    assert!(!refused.status.success() && !String::from_utf8_lossy(&refused.stdout).contains(key), "{refused:?}");
}

async fn sell_a_model(shop: &mut Shop) {
    const KEY: &str = "llama-hunter2";
    let llama = ModelServer::llama_with_key(KEY).await;
    let model = Forward::to(&llama.url).await;
    let offer = ["sell", "inference", "chat", "--upstream", &model.url, "--model", MODEL, "--price", "0.001", "--max-tokens", "16"];
    let offer = [&offer[..], &["--credential", "LLAMA_KEY"]].concat();
    let told = shop.stack.run(&offer);
    assert!(String::from_utf8_lossy(&told.stderr).contains("credential_missing"), "nobody knows the key: {told:?}");
    let file = shop.stack.config().with_file_name("llama-key");
    fs_err::write(&file, KEY).expect("a file");
    shop.append("stack.yaml", &format!("credentials:\n  LLAMA_KEY: ref+file://{}\n", file.display()));
    shop.timed("sell inference", &offer);
    shop.keeps(KEY);
    let took = shop.all_ready(2, Duration::from_secs(60)).await;
    shop.note("  `kubectl get so`: Ready", took);
    let before = shop.anvil.balance(shop.payee).await;
    let mut buyer = Command::new("node");
    buyer.arg(part("node/openai-buyer.mjs")).arg(shop.url("/services/chat")).arg(MODEL).env("X402_KEY", KEYS[3]);
    let output = tokio::task::spawn_blocking(move || buyer.output()).await.expect("no panic").expect("the client starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let got: Value = serde_json::from_str(text.lines().last().unwrap_or_default())
        .unwrap_or_else(|_| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!((&got["chat"], &got["streamed"]), (&7.into(), &6.into()), "{got}");
    assert_eq!(shop.anvil.balance(shop.payee).await - before, U256::from(6 * PRICE), "six calls are paid");
    // Another key: the Pod that has the old one begins anew.
    let generation = |shop: &Shop| {
        shop.cluster.object("deployment/chat-inference", "obol-offers").expect("it is there")["metadata"]["generation"].as_u64()
    };
    let before = generation(shop);
    fs_err::write(&file, "another").expect("a file");
    let diff = shop.stack.ok(&["diff"]);
    assert!(diff.contains("~ secret obol-offers/obol-credentials: LLAMA_KEY") && !diff.contains("another"), "{diff}");
    shop.stack.ok(&["stack", "up"]);
    assert!(!shop.stack.ok(&["diff"]).contains("secret"), "what a pass has written differs no more");
    assert!(generation(shop) > before, "the Deployment is rolled out");
    shop.timed("sell delete of the model", &["sell", "delete", "chat", "--yes"]);
    shop.cluster.wait("obol-offers", "deployment/chat-inference", "delete", Duration::from_secs(60));
}

async fn down_and_up(shop: &mut Shop) {
    shop.timed("stack down", &["stack", "down"]);
    let none = shop.stack.run(&["payments", "list"]);
    assert!(String::from_utf8_lossy(&none.stderr).contains("no x402 gateway runs"), "{none:?}");
    assert_eq!(none.status.code(), Some(4));
    assert!(shop.cluster.object("statefulset/x402-gateway", "x402").is_none(), "the gateway is gone");
    assert!(shop.cluster.object("persistentvolumeclaim/journal-x402-gateway-0", "x402").is_some(), "the journal stays");
    shop.timed("stack up", &["stack", "up"]);
    shop.buys(Buyer::FetchV2, "weather", "→ bought").await;
}

async fn deleted_by_hand(shop: &mut Shop) {
    let kinds = "deployments,statefulsets,services,configmaps,serviceaccounts,networkpolicies,rolebindings,roles";
    for namespace in ["x402", "traefik"] {
        shop.cluster.kubectl(&["delete", kinds, "-n", namespace, "--all", "--cascade=foreground"]);
    }
    shop.cluster.kubectl(&["delete", "so,httproutes", "-n", "obol-offers", "--all"]);
    shop.timed("workloads, services, rights, offers deleted: stack up", &["stack", "up"]);
    shop.buys(Buyer::FetchV2, "weather", "→ bought").await;

    let gone = ["delete", "namespace", "x402", "obol-offers", "traefik"];
    shop.cluster.kubectl(&gone);
    shop.cluster.kubectl(&["delete", "crd", "serviceoffers.obol.org"]);
    shop.cluster.kubectl(&["delete", "gatewayclass", "obol-traefik"]);
    let roles = "clusterroles,clusterrolebindings";
    shop.cluster.kubectl(&["delete", roles, "-l", "app.kubernetes.io/part-of=obol"]);
    shop.timed("namespaces, kinds, cluster rights deleted: stack up", &["stack", "up"]);
    shop.buys(Buyer::FetchV2, "weather", "→ bought").await;
}

async fn killed(shop: &mut Shop) {
    for role in ["gateway", "controller"] {
        let before = shop.pid(role);
        shop.kill(before);
        shop.buys(Buyer::FetchV2, "weather", &format!("{role} killed → bought")).await;
    }
    for component in [Component::Kubelet, Component::ApiServer, Component::Containerd, Component::Etcd] {
        shop.cluster.kill(component);
        let took = shop.cluster.await_ready();
        shop.note(&format!("{component} killed → ready again"), took);
        shop.buys(Buyer::FetchV2, "weather", "→ bought").await;
    }
    shop.cluster.kubectl(&["delete", "pods", "--all", "-n", "x402", "--now"]);
    shop.buys(Buyer::FetchV2, "weather", "Pods of gateway and controller deleted → bought").await;
    shop.cluster.kubectl(&["delete", "pods", "--all", "-n", "traefik", "--now"]);
    shop.buys(Buyer::FetchV2, "weather", "Pod of Traefik deleted → bought").await;
    let begin = Instant::now();
    shop.cluster.reboot();
    shop.note("reboot", begin.elapsed());
    shop.buys(Buyer::FetchV2, "weather", "→ bought").await;
    let took = shop.all_ready(1, Duration::from_secs(60)).await;
    shop.note("  `kubectl get so`: Ready", took);
}

/// The README's commands for a cluster, as printed; then all of it goes.
fn as_the_readme_says(shop: &mut Shop) {
    let lines: Vec<_> =
        readme::steps().into_iter().filter_map(|step| if let Step::Cluster(line) = step { Some(line) } else { None }).collect();
    assert!(!lines.is_empty(), "the README has nothing to run in a cluster");
    shop.cluster.service("weather", &shop.service.url);
    for line in lines {
        let begin = std::time::Instant::now();
        shop.stack.shell(&line);
        shop.note(&line, begin.elapsed());
    }
    shop.stack.ok(&["stack", "purge", "--yes", "--with-data"]);
    fs_err::remove_dir_all(shop.stack.config().join("applications")).expect("an offer is there");
    fs_err::remove_file(shop.stack.config().join("stack.yaml")).expect("a stack is there");
}

const FOREIGN: &str = "\
apiVersion: v1
kind: Namespace
metadata: { name: others }
---
apiVersion: obol.org/v1alpha1
kind: ServiceOffer
metadata: { name: theirs, namespace: others }
spec:
  type: http
  upstream: { url: 'http://machine.test:9' }
  payment: { network: base-sepolia, payTo: '0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC', price: { perRequest: '0.002' } }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: traefik, namespace: others, labels: { app.kubernetes.io/name: traefik } }
spec:
  replicas: 1
  selector: { matchLabels: { app: theirs } }
  template:
    metadata: { labels: { app: theirs } }
    spec: { containers: [{ name: pause, image: 'obol.test/pause:1' }] }
";

/// What others have put into the cluster, without what its own controllers write: statuses.
fn foreign(shop: &Shop) -> Vec<Value> {
    let objects = [("so/theirs", "others"), ("deployment/traefik", "others"), ("configmap/theirs", "obol-offers")];
    let found = objects.iter().chain(&ingress::THEIRS);
    let found = found.map(|(name, namespace)| shop.cluster.object(name, namespace).unwrap_or_else(|| panic!("{name} is gone")));
    let kept = found.map(|mut object| {
        let mut meta = object["metadata"].take();
        let fields = meta.as_object_mut().expect("metadata");
        ["resourceVersion", "managedFields"].iter().for_each(|field| drop(fields.remove(*field)));
        serde_json::json!([meta, object["spec"], object["data"], object["rules"]])
    });
    kept.collect()
}

async fn broken_and_foreign(shop: &mut Shop) {
    shop.cluster.apply(FOREIGN);
    shop.cluster.kubectl(&["create", "configmap", "theirs", "-n", "obol-offers", "--from-literal=a=b"]);
    let before = foreign(shop);
    for (name, text) in [
        ("torn", "name: torn\nspec: {{{\n"),
        (
            "negative",
            "name: negative\nspec:\n  type: http\n  upstream: { url: 'http://x' }\n  payment: { price: { perRequest: \"-1\" } }\n",
        ),
    ] {
        fs_err::create_dir_all(shop.stack.slice(name)).expect("a folder");
        fs_err::write(shop.stack.slice(name).join("values-offer.yaml"), text).expect("a file");
    }
    let output = shop.stack.run(&["stack", "up"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("torn") && told.contains("negative"), "both broken slices are told: {told}");
    shop.sell("second");
    shop.buys(Buyer::FetchV2, "weather", "two broken slices: the first good one bought").await;
    shop.buys(Buyer::FetchV2, "second", "  a new good one bought").await;
    ["torn", "negative"].iter().for_each(|name| fs_err::remove_dir_all(shop.stack.slice(name)).expect("a folder"));

    shop.stack.ok(&["stack", "up"]);
    assert_eq!(foreign(shop), before, "up leaves others alone");
    shop.stack.ok(&["stack", "down"]);
    assert_eq!(foreign(shop), before, "down leaves others alone");
    shop.stack.ok(&["stack", "purge", "--yes"]);
    assert_eq!(foreign(shop), before, "purge leaves others alone");
    for (kept, namespace) in
        [("persistentvolumeclaim/journal-x402-gateway-0", "x402"), ("secret/obol-gate", "x402"), ("secret/obol-gate", "obol-offers")]
    {
        let found = shop.cluster.object(kept, namespace).unwrap_or_else(|| panic!("{kept} is gone, which nobody has asked for"));
        assert!(found["metadata"]["deletionTimestamp"].is_null(), "{kept} is going, which nobody has asked for");
    }
    shop.stack.ok(&["stack", "purge", "--yes", "--with-data"]);
    shop.cluster.kubectl(&["wait", "--for=delete", "namespace/traefik", "--timeout=60s"]);
    assert_eq!(foreign(shop), before, "purge with data leaves others alone");
    let going = |name: &str| shop.cluster.object(name, "x402").is_none_or(|found| found["metadata"]["deletionTimestamp"].is_string());
    assert!(going("persistentvolumeclaim/journal-x402-gateway-0"), "the journal is purged");
    assert!(going("secret/obol-gate"), "keys are purged");
    assert!(shop.stack.slice("second").join("values-offer.yaml").is_file(), "offers on disk are nobody's to purge");
    assert!(!going("namespace/obol-offers"), "others keep something in the offers' namespace");
    assert!(!going("crd/serviceoffers.obol.org"), "others use the kind");
    shop.cluster.kubectl(&["delete", "namespace", "others"]);
    shop.cluster.kubectl(&["delete", "configmap", "theirs", "-n", "obol-offers"]);
    shop.stack.ok(&["stack", "purge", "--yes", "--with-data"]);
    shop.cluster.kubectl(&["wait", "--for=delete", "namespace/x402", "namespace/obol-offers", "--timeout=60s"]);
    assert!(shop.cluster.object("crd/serviceoffers.obol.org", "x402").is_none(), "nobody uses the kind any more");
    shop.timed("after purge --with-data: stack up", &["stack", "up"]);
    shop.buys(Buyer::FetchV2, "second", "→ bought").await;
}

async fn crowd(shop: &mut Shop) {
    let model = fs_err::read_to_string(shop.stack.slice("second").join("values-offer.yaml")).expect("it is sold");
    for number in 2..CROWD {
        let name = format!("crowd-{number}");
        let text = model.replace("second", &name);
        assert!(text.contains(&name), "the slice names itself");
        fs_err::create_dir_all(shop.stack.slice(&name)).expect("a folder");
        fs_err::write(shop.stack.slice(&name).join("values-offer.yaml"), text).expect("a file");
    }
    shop.timed(&format!("{CROWD} offers: stack up"), &["stack", "up"]);
    let took = shop.all_ready(CROWD, Duration::from_secs(120)).await;
    shop.note("  `kubectl get so`: all Ready", took);
    shop.buys(Buyer::FetchV2, &format!("crowd-{}", CROWD - 1), "  the last one bought").await;
    shop.timed("  stack up, nothing to change", &["stack", "up"]);
    for role in ["controller", "gateway"] {
        let line = format!("  memory of the {role} at most: {} MiB", shop.memory(role));
        shop.tell(&line);
    }
}
