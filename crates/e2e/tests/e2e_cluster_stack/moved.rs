//! One folder, first on a machine by itself and then in a cluster; there it gets a facilitator and, at last, gateways
//! that share a database.

use std::{
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use alloy_primitives::U256;
use futures_util::future::join_all;
use obol_e2e::{
    anvil::KEYS,
    buyers::Buyer,
    forge,
    forward::Forward,
    http,
    models::{MODEL, ModelServer},
    postgres::Postgres,
};
use serde_json::{Value, json};

use crate::shop::{PRICE, Shop};

/// What one who does not pay is told: status, headers, body.
#[derive(Debug, PartialEq)]
struct Told {
    status: u16,
    challenge: Option<String>,
    kind: Option<String>,
    body: String,
}

/// Asks as a buyer of `shop.test` does: the public name is the shop's, wherever it stands.
async fn ask(url: &str, body: Option<&Value>) -> Told {
    let request = body.map_or_else(|| http().get(url), |body| http().post(url).json(body));
    let answer = request.header("host", "shop.test").send().await.expect("an answer");
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (status, challenge, kind) = (answer.status().as_u16(), header("payment-required"), header("content-type"));
    Told { status, challenge, kind, body: answer.text().await.expect("a body") }
}

/// The fresh cluster is also where a folder is restored: `stack up` is all that it takes.
#[tokio::test(flavor = "multi_thread")]
async fn e2e_cluster_moved_folder_asks_the_same_in_the_same_bytes() {
    let mut shop = Shop::open().await;
    // Payments are settled by the shop alone, with this key.
    shop.settles = None;
    let key = secret(&shop, "gas-key", KEYS[0]);
    let rpc = Forward::to(&shop.anvil.url).await;
    let payee = shop.payee.to_checksum(None);
    let (listen, admin) = (shop.stack.listen, shop.stack.admin);
    let text = format!(
        "id: moved\nlisten: {listen}\nadmin: {admin}\npublicUrl: http://shop.test\n\
         defaults:\n  payTo: \"{payee}\"\n  network: base-sepolia\n  facilitators: [\"http://127.0.0.1:9\"]\n\
         networks:\n  base-sepolia:\n    rpc: [\"{}\"]\n    facilitatorKey: {key}\n",
        rpc.url
    );
    fs_err::write(shop.stack.config().join("stack.yaml"), text).expect("a file");
    shop.sell("weather");
    let (service, llama) = (shop.service.url.clone(), ModelServer::llama().await);
    let model = Forward::to(&llama.url).await;
    let routes = ["--route", "path=/deep/*,price=0.01", "--route", "path=/free,gate=free"];
    shop.stack
        .ok(&[&["sell", "http", "maps", "--upstream", &service, "--price", "2.5", "--description", "Maps & more"], &routes[..]].concat());
    shop.stack.ok(&["sell", "http", "tiles", "--upstream", &service, "--per-unit", "0.0005", "--unit", "tile", "--max-units", "4"]);
    let rates = ["--per-mtok", "20", "--per-mtok-output", "60", "--max-tokens", "16"];
    shop.stack.ok(&[&["sell", "inference", "chat", "--upstream", &model.url, "--model", MODEL], &rates[..]].concat());

    let prompt = json!({ "model": MODEL, "messages": [{ "role": "user", "content": "one two three" }] });
    let questions = [
        ("/services/weather", None),
        ("/services/maps/here?x=1", None),
        ("/services/maps/deep/a", None),
        ("/services/maps/free", None),
        ("/services/tiles/a", None),
        ("/services/chat/v1/chat/completions", Some(&prompt)),
    ];
    shop.stack.up().await;
    let mut standalone = Vec::new();
    for (path, body) in questions {
        standalone.push(until_whole(&shop.stack.url(path), body).await);
    }
    let prices = |shop: &Shop| -> Vec<(Value, Value)> {
        let list = shop.json(&["sell", "list"]);
        let offers = list.as_array().or_else(|| list["offers"].as_array()).expect("a list");
        offers.iter().map(|offer| (offer["name"].clone(), offer["price"].clone())).collect()
    };
    let before = prices(&shop);
    assert_eq!(before.len(), 4);
    shop.stack.kill();

    shop.stack.ok(&["stack", "init", "--backend", "kubernetes"]);
    shop.timed("moved from standalone to a bare cluster: stack up", &["stack", "up"]);
    shop.buys(Buyer::FetchV2, "weather", "→ bought, settled by our own facilitator").await;
    let took = shop.all_ready(4, Duration::from_secs(60)).await;
    shop.note("  `kubectl get so`: Ready", took);
    for ((path, body), standalone) in questions.into_iter().zip(standalone) {
        let told = until_whole(&shop.url(path), body).await;
        assert_eq!(told, standalone, "{path}: the same status, headers and bytes");
    }
    assert_eq!(prices(&shop), before, "the same prices");
    settled_by_its_own_pod(&mut shop).await;
    shared_by_three(&mut shop).await;
    shop.close("cluster-moved.txt");
}

/// Puts a secret beside the stack directory, and returns the reference to it.
fn secret(shop: &Shop, name: &str, text: &str) -> String {
    let folder = shop.stack.config().with_file_name("secrets");
    fs_err::create_dir_all(&folder).expect("a folder");
    fs_err::write(folder.join(name), text).expect("a file");
    fs_err::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    format!("ref+file://{}", folder.join(name).display())
}

/// Waits until the answer has all that there is to it: an `upto` challenge names who settles, once that is known.
async fn until_whole(url: &str, body: Option<&Value>) -> Told {
    let begin = Instant::now();
    loop {
        let told = ask(url, body).await;
        let is_metered = url.contains("/tiles") || url.contains("/chat");
        let challenge = told.challenge.as_deref().map(forge::decode);
        let is_whole = match &challenge {
            None => told.status == 200,
            Some(challenge) => !is_metered || challenge["accepts"].to_string().contains("facilitatorAddress"),
        };
        if is_whole {
            return told;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{url}: {told:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn settled_by_its_own_pod(shop: &mut Shop) {
    shop.keeps(&KEYS[0][2..]);
    let pods = shop.cluster.object("statefulset/x402-gateway", "x402").expect("the gateway").to_string();
    assert!(!pods.contains("OBOL_FACILITATOR_KEY"), "gateways hold no key");
    let service = |name: &str, port: u16| {
        let found = shop.cluster.object(&format!("service/{name}"), "x402").expect("a Service");
        format!("{}:{port}", found["spec"]["clusterIP"].as_str().expect("an address")).parse().expect("an address")
    };
    assert!(TcpStream::connect_timeout(&service("x402-gateway", 8402), Duration::from_secs(5)).is_ok(), "anybody reaches the gateway");
    assert!(TcpStream::connect_timeout(&service("facilitator", 8404), Duration::from_secs(2)).is_err(), "the gateway alone reaches it");

    // A metered one: what was used of a signed ceiling.
    shop.anvil.approve_permit2(Buyer::FetchUpto.address(), U256::MAX).await;
    let before = shop.anvil.balance(shop.payee).await;
    let (begin, url) = (Instant::now(), shop.url("/services/tiles/units/3"));
    let answer = tokio::task::spawn_blocking(move || Buyer::FetchUpto.buy(&url)).await.expect("no panic");
    assert_eq!(answer.status, 200, "{answer:?}");
    // The answer leaves first.
    while shop.anvil.balance(shop.payee).await - before != U256::from(3 * 500) {
        assert!(begin.elapsed() < Duration::from_secs(60), "3 tiles cost {}", shop.anvil.balance(shop.payee).await - before);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    shop.note("  a metered answer bought", begin.elapsed());
}

/// Payments move into a database, and three gateways work on them.
async fn shared_by_three(shop: &mut Shop) {
    const PASSWORD: &str = "journal-hunter2";
    let database = Postgres::start();
    let forward = Forward::to(&format!("http://{}", database.address())).await;
    let at = forward.url.trim_start_matches("http://");
    let url = secret(shop, "journal-url", &format!("postgres://obol:{PASSWORD}@{at}/postgres?sslmode=disable"));
    shop.append("stack.yaml", &format!("journal:\n  postgres: {url}\n"));
    shop.append("infrastructure/values-obol.yaml", "gateway:\n  replicas: 3\n");
    shop.timed("journal in PostgreSQL, three gateways: stack up", &["stack", "up"]);
    shop.keeps(PASSWORD);
    assert!(shop.cluster.object("statefulset/x402-gateway", "x402").is_none(), "the one with a volume is gone");
    assert_eq!(shop.cluster.object("deployment/x402-gateway", "x402").expect("a Deployment")["status"]["readyReplicas"], 3);
    let took = shop.all_ready(4, Duration::from_secs(60)).await;
    shop.note("  `kubectl get so`: Ready at all three", took);
    shop.buys(Buyer::FetchV2, "weather", "→ bought").await;

    // One dies amid payments; whatever is sent again is charged once.
    const PAYMENTS: u64 = 9;
    let before = shop.anvil.balance(shop.payee).await;
    let (terms, now) = (forge::terms(shop.payee, PRICE), shop.anvil.now().await);
    let payments = (0..PAYMENTS).map(|n| forge::header(&forge::payment(KEYS[7 + n as usize % 2], &terms, 0, now + 280)));
    let address = shop.url("/services/weather");
    let buying = join_all(payments.enumerate().map(|(n, payment)| buy_for_certain(format!("{address}/item/{n}"), payment, n)));
    let dying = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        shop.kill(shop.pid("gateway"));
    };
    let (told, ()) = tokio::join!(buying, dying);
    assert_eq!(shop.anvil.balance(shop.payee).await - before, U256::from(PAYMENTS * PRICE), "each is charged once: {told:?}");
    shop.buys(Buyer::FetchV1, "weather", "one of three killed → bought").await;
    let count = database.query("select count(*) from obol.payment where state in ('delivered', 'owed')");
    assert_eq!(count, (PAYMENTS + 2).to_string(), "all are in the database");
    let listed = shop.json(&["payments", "export", "--format", "json"]);
    assert_eq!(listed.as_array().expect("a list").len() as u64, PAYMENTS + 2, "every gateway can tell of them");
}

/// The same payment again and again, until it is known what became of it.
async fn buy_for_certain(url: String, payment: String, n: usize) -> u16 {
    tokio::time::sleep(Duration::from_millis(n as u64 * 100)).await;
    let begin = Instant::now();
    loop {
        let answer = http().get(&url).header("payment-signature", &payment).timeout(Duration::from_secs(60)).send().await;
        let told = answer.map(|answer| (answer.status().as_u16(), answer.headers().contains_key("payment-response")));
        match told {
            Ok((status @ (200 | 409), true)) => return status,
            other => assert!(begin.elapsed() < Duration::from_secs(90), "{url}: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
