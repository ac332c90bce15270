//! `obol serve gateway`: the real binary on a real API server.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use obol_e2e::process::Process;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::World;

const HOME: &str = "obol-offers";

struct Gateway {
    _process: Process,
    public: String,
    admin: String,
    _data: TempDir,
}

fn start(world: &World, token: &str) -> Gateway {
    let data = TempDir::new().unwrap();
    let mut command = Command::new(obol_e2e::obol_binary());
    command.args(["--output", "json", "serve", "gateway", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
    command.arg(data.path()).env("KUBECONFIG", world.server.kubeconfig(token)).env_remove("POD_NAMESPACE");
    let mut process = Process::start("obol serve gateway", &mut command);
    let mut url = |key: &str| {
        let begins = format!("\"{key}\": \"");
        let address = |line: &str| Some(line.trim().strip_prefix(&begins)?.trim_end_matches([',', '"']).to_owned());
        format!("http://{}", process.wait_for(Duration::from_secs(20), address))
    };
    let (public, admin) = (url("listen"), url("admin"));
    Gateway { public, admin, _process: process, _data: data }
}

impl Gateway {
    async fn is_ready(&self) -> bool {
        let answer = obol_e2e::http().get(format!("{}/readyz", self.admin)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    async fn until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.is_ready().await {
            assert!(Instant::now() < deadline, "the gateway is never ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Atomic units that a path costs; `None` when it is not sold.
    async fn price(&self, path: &str) -> Option<String> {
        let answer = obol_e2e::http().get(format!("{}{path}", self.public)).send().await.unwrap();
        if answer.status() != 402 {
            return None;
        }
        let body: Value = answer.json().await.unwrap();
        Some(body["accepts"][0]["maxAmountRequired"].as_str().unwrap().to_owned())
    }

    async fn until_price(&self, path: &str, wanted: Option<&str>) -> Duration {
        let begun = Instant::now();
        loop {
            let price = self.price(path).await;
            if price.as_deref() == wanted {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{path} costs {price:?}, not {wanted:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn priced(price: &str) -> Value {
    json!({ "payment": { "price": { "perRequest": price } } })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_a_live_price_and_the_api_server_may_go() {
    let world = World::start().await;
    world.offer(HOME, "weather", |_| ()).await;
    world.offer("team-a", "weather", |spec| spec["path"] = json!("/services/team-weather")).await;
    let gateway = start(&world, "admin-token");
    gateway.until_ready().await;
    // Ready means that everything is there at once.
    assert_eq!(gateway.price("/services/weather").await.as_deref(), Some("1000"));
    assert_eq!(gateway.price("/services/team-weather/x").await.as_deref(), Some("1000"));

    let mut slowest = Duration::ZERO;
    for (price, units) in [("0.002", "2000"), ("0.003", "3000"), ("0.004", "4000")] {
        world.edit(HOME, "weather", priced(price)).await;
        slowest = slowest.max(gateway.until_price("/services/weather", Some(units)).await);
    }
    println!("from edit to live price: {slowest:?} at most");
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");

    // Two of one name and one place: the older has it, and keeps it.
    world.edit("team-a", "weather", json!({ "path": "/services/weather" })).await;
    gateway.until_price("/services/team-weather", None).await;
    assert_eq!(gateway.price("/services/weather").await.as_deref(), Some("4000"));
    let report: Value = obol_e2e::http().get(format!("{}/offers", gateway.admin)).send().await.unwrap().json().await.unwrap();
    let routed = |namespace: &str| {
        let all = report["offers"].as_array().unwrap();
        all.iter().find(|offer| offer["namespace"] == namespace).map(|offer| offer["routed"].clone())
    };
    assert_eq!((routed(HOME), routed("team-a")), (Some(json!(true)), Some(json!(false))));

    world.server.kill();
    for _ in 0..20 {
        assert_eq!(gateway.price("/services/weather").await.as_deref(), Some("4000"));
        assert!(gateway.is_ready().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.server.resume().await;
    world.edit(HOME, "weather", priced("0.005")).await;
    let back = gateway.until_price("/services/weather", Some("5000")).await;
    println!("after the API server came back: {back:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_has_seen_nothing_is_not_ready() {
    let world = World::start().await;
    world.offer(HOME, "weather", |_| ()).await;
    world.server.kill();
    let gateway = start(&world, "admin-token");
    for _ in 0..10 {
        assert!(!gateway.is_ready().await);
        let answer = obol_e2e::http().get(format!("{}/services/weather", gateway.public)).send().await.unwrap();
        assert_eq!(answer.status(), 503);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.server.resume().await;
    gateway.until_ready().await;
    assert_eq!(gateway.price("/services/weather").await.as_deref(), Some("1000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_during_a_thousand_edits() {
    let world = Arc::new(World::start().await);
    world.offer(HOME, "weather", |spec| spec["routes"] = json!([{ "path": "/free", "gate": "free" }])).await;
    let gateway = Arc::new(start(&world, "admin-token"));
    gateway.until_ready().await;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|index| {
            let (gateway, stop, asked) = (gateway.clone(), stop.clone(), asked.clone());
            tokio::spawn(async move {
                let http = obol_e2e::http();
                let (path, wanted) = if index % 2 == 0 { ("/services/weather/free", 200) } else { ("/services/weather", 402) };
                while !stop.load(Ordering::SeqCst) {
                    let answer = http.get(format!("{}{path}", gateway.public)).send().await.expect("an answer");
                    assert_eq!(answer.status(), wanted);
                    answer.bytes().await.expect("a whole answer");
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let begun = Instant::now();
    for edit in 1..=1000_u64 {
        world.edit(HOME, "weather", priced(&format!("0.{edit:06}"))).await;
    }
    gateway.until_price("/services/weather", Some("1000")).await;
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let asked = asked.load(Ordering::SeqCst);
    println!("{asked} requests during 1,000 edits in {:?}", begun.elapsed());
    assert!(asked > 1000, "{asked}");
}
