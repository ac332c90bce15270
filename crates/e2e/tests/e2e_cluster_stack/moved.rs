//! One folder, first on a machine by itself and then in a cluster.

use obol_e2e::{buyers::Buyer, http};
use serde_json::Value;

use crate::shop::Shop;

/// What one who does not pay is told: status, headers, body.
#[derive(Debug, PartialEq)]
struct Told {
    status: u16,
    challenge: Option<String>,
    kind: Option<String>,
    body: String,
}

/// Asks as a buyer of `shop.test` does: the public name is the shop's, wherever it stands.
async fn ask(url: &str) -> Told {
    let answer = http().get(url).header("host", "shop.test").send().await.expect("an answer");
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (status, challenge, kind) = (answer.status().as_u16(), header("payment-required"), header("content-type"));
    Told { status, challenge, kind, body: answer.text().await.expect("a body") }
}

/// The fresh cluster is also where a folder is restored: `stack up` is all that it takes.
#[tokio::test(flavor = "multi_thread")]
async fn e2e_cluster_moved_folder_asks_the_same_in_the_same_bytes() {
    let mut shop = Shop::open().await;
    let payee = shop.payee.to_checksum(None);
    let facilitator = shop.facilitator.clone();
    let (listen, admin) = (shop.stack.listen, shop.stack.admin);
    let text = format!(
        "id: moved\nlisten: {listen}\nadmin: {admin}\npublicUrl: http://shop.test\n\
         defaults:\n  payTo: \"{payee}\"\n  network: base-sepolia\n  facilitators: [{facilitator}]\n"
    );
    fs_err::write(shop.stack.config().join("stack.yaml"), text).expect("a file");
    shop.sell("weather");
    let service = shop.service.url.clone();
    let routes = ["--route", "path=/deep/*,price=0.01", "--route", "path=/free,gate=free"];
    shop.stack
        .ok(&[&["sell", "http", "maps", "--upstream", &service, "--price", "2.5", "--description", "Maps & more"], &routes[..]].concat());

    let paths = ["/services/weather", "/services/maps/here?x=1", "/services/maps/deep/a", "/services/maps/free"];
    shop.stack.up().await;
    for path in paths {
        shop.stack.wait_for(path, if path.ends_with("free") { 200 } else { 402 }).await;
    }
    let mut standalone = Vec::new();
    for path in paths {
        standalone.push(ask(&shop.stack.url(path)).await);
    }
    let prices = |shop: &Shop| -> Vec<(Value, Value)> {
        let list: Value = serde_json::from_str(&shop.stack.ok(&["sell", "list", "--output", "json"])).expect("JSON");
        let offers = list.as_array().or_else(|| list["offers"].as_array()).expect("a list");
        offers.iter().map(|offer| (offer["name"].clone(), offer["price"].clone())).collect()
    };
    let before = prices(&shop);
    assert_eq!(before.len(), 2);
    shop.stack.kill();

    shop.stack.ok(&["stack", "init", "--backend", "kubernetes"]);
    shop.timed("moved from standalone to a bare cluster: stack up", &["stack", "up"]);
    shop.buys(Buyer::FetchV2, "weather", "→ bought").await;
    let took = shop.all_ready(2, std::time::Duration::from_secs(60)).await;
    shop.note("  `kubectl get so`: Ready", took);
    for (path, standalone) in paths.iter().zip(standalone) {
        let told = ask(&shop.url(path)).await;
        assert!(told.status == 200 || told.challenge.is_some(), "{path}: {told:?}");
        assert_eq!(told, standalone, "{path}: the same status, headers and bytes");
    }
    assert_eq!(prices(&shop), before, "the same prices");
    shop.close("cluster-moved.txt");
}
