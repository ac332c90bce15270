//! A whole node in this process: files in, answers out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

use std::{net::SocketAddr, path::Path, time::Duration};

use obol_backend::{
    Addresses, Node, NodeConfig, NodeError,
    control::{Client, ControlError},
};
use obol_offer::{Address, Amount, ConditionKind, OfferKind};
use obol_stackdir::Dirs;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const ANY: &str = "127.0.0.1:0";

fn values(name: &str, price: &str, upstream: u16) -> String {
    format!(
        "name: {name}\nspec:\n  upstream: {{host: {{port: {upstream}}}}}\n  payment:\n    network: obol-sandbox\n    \
         payTo: \"0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC\"\n    price: {{perRequest: \"{price}\"}}\n"
    )
}

fn write(dirs: &Dirs, name: &str, text: &str) {
    let folder = dirs.config.join("applications").join(OfferKind::Http.folder()).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("values-offer.yaml"), text).unwrap();
}

fn dirs(root: &Path) -> Dirs {
    let dirs = Dirs::under(root);
    std::fs::create_dir_all(&dirs.config).unwrap();
    std::fs::write(dirs.config.join("stack.yaml"), "id: test\n").unwrap();
    dirs
}

fn config(dirs: &Dirs) -> NodeConfig {
    NodeConfig { listen: ANY.parse().ok(), admin: ANY.parse().ok(), ..NodeConfig::new(dirs.clone()) }
}

struct Running {
    at: Addresses,
    stop: CancellationToken,
    task: JoinHandle<Result<(), NodeError>>,
}

impl Running {
    async fn start(dirs: &Dirs) -> Self {
        let node = Node::start(config(dirs)).await.unwrap();
        let (at, stop) = (node.addresses(), CancellationToken::new());
        let task = tokio::spawn(node.run(stop.clone()));
        let running = Self { at, stop, task };
        until("ready", async || get(at.admin, "/readyz").await.0 == 200).await;
        running
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap().unwrap();
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let started = std::time::Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    started.elapsed()
}

/// Status and body.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0), body.to_owned())
}

/// An upstream that answers 200 to everything.
async fn upstream() -> u16 {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 2048];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_answers_out() {
    let root = tempfile::tempdir().unwrap();
    let dirs = dirs(root.path());
    assert!(matches!(Client::connect(&dirs).await, Err(ControlError::NotRunning(_))));
    let port = upstream().await;
    write(&dirs, "a", &values("a", "0.001", port));
    let node = Running::start(&dirs).await;

    let (status, challenge) = get(node.at.public, "/services/a/x").await;
    assert_eq!(status, 402, "{challenge}");
    assert_eq!(get(node.at.public, "/services/b").await.0, 404);
    let (status, catalog) = get(node.at.public, "/api/services.json").await;
    assert_eq!(status, 200);
    let catalog: serde_json::Value = serde_json::from_str(&catalog).unwrap();
    assert_eq!((&catalog["services"][0]["name"], &catalog["services"][0]["price"]), (&"a".into(), &"0.001".into()));

    write(&dirs, "b", &values("b", "0.002", port));
    let took = until("a slice written by hand", async || get(node.at.public, "/services/b").await.0 == 402).await;
    println!("a slice written by hand was live after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");

    let client = Client::connect(&dirs).await.unwrap();
    let status = client.status().await.unwrap();
    assert!(status.ready && status.offers.len() == 2 && status.warnings.is_empty(), "{status:?}");
    assert_eq!((status.listen.parse().ok(), status.admin.parse().ok()), (Some(node.at.public), Some(node.at.admin)));
    node.stop().await;
    assert!(matches!(client.status().await, Err(ControlError::NotRunning(_))));
    assert!(!client.socket().unwrap().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_tells_how_the_offer_fares() {
    let root = tempfile::tempdir().unwrap();
    let dirs = dirs(root.path());
    let node = Running::start(&dirs).await;
    let client = Client::connect(&dirs).await.unwrap();
    let name = "a".parse().unwrap();

    write(&dirs, "a", &values("a", "0.001", upstream().await));
    let views = client.sync(Some(&name)).await.unwrap();
    assert!(views[0].status.is_ready() && views[0].current, "{views:?}");
    assert_eq!(views[0].url, format!("http://{}/services/a", node.at.public));
    assert_eq!(get(node.at.public, "/services/a").await.0, 402);

    let nobody = TcpListener::bind(ANY).await.unwrap().local_addr().unwrap().port();
    write(&dirs, "a", &values("a", "0.001", nobody));
    let views = client.sync(Some(&name)).await.unwrap();
    assert_eq!(views[0].status.condition(ConditionKind::Ready).unwrap().reason, "Unhealthy");

    write(&dirs, "a", "name: a\nspec:\n  upstreem: {}\n");
    let view = client.sync(Some(&name)).await.unwrap().remove(0);
    assert!(!view.current && !view.diagnostics.is_empty() && view.price == "0.001 PLAY", "{view:?}");
    assert_eq!(client.offer(&name).await.unwrap().diagnostics, view.diagnostics);
    assert_eq!(get(node.at.public, "/services/a").await.0, 402);
    assert!(client.plan().await.unwrap().iter().all(|change| change.action == obol_reconcile::Action::None));

    std::fs::remove_dir_all(dirs.config.join("applications/sell-http/a")).unwrap();
    assert!(client.sync(Some(&name)).await.unwrap().is_empty());
    assert_eq!(client.offer(&name).await.unwrap_err().code(), "offer_unknown");
    assert_eq!(get(node.at.public, "/services/a").await.0, 404);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_per_directory_and_every_hindrance_has_its_name() {
    let root = tempfile::tempdir().unwrap();
    let dirs = dirs(root.path());
    let node = Running::start(&dirs).await;
    let refused = |config| async { Node::start(config).await.err().map(|error| (error.code(), error.to_string())) };
    let (code, message) = refused(config(&dirs)).await.unwrap();
    assert_eq!(code, "already_running");
    assert!(message.contains("obol stack status"), "{message}");
    // The second one did not take the socket from the first.
    assert!(Client::connect(&dirs).await.unwrap().status().await.is_ok());

    let other_root = tempfile::tempdir().unwrap();
    let other = self::dirs(other_root.path());
    let (code, message) = refused(NodeConfig { listen: Some(node.at.public), ..config(&other) }).await.unwrap();
    assert_eq!(code, "listen");
    assert!(message.contains(&node.at.public.to_string()) && message.contains("--listen"), "{message}");

    std::fs::write(other.config.join("stack.yaml"), "id: test\nlisten: nowhere\n").unwrap();
    let (code, message) = refused(config(&other)).await.unwrap();
    assert_eq!(code, "stack_invalid");
    assert!(message.contains("stack.yaml:2"), "{message}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn down_ends_the_node_and_a_start_brings_everything_back() {
    let root = tempfile::tempdir().unwrap();
    let dirs = dirs(root.path());
    write(&dirs, "a", &values("a", "0.001", 9));
    let node = Running::start(&dirs).await;
    let client = Client::connect(&dirs).await.unwrap();
    let me: Address = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse().unwrap();
    assert_eq!(client.sandbox_balance(me).await.unwrap(), Amount::ZERO);
    assert_eq!(client.sandbox_mint(me, Amount::from(5_000_000)).await.unwrap(), Amount::from(5_000_000));
    client.shutdown().await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), node.task).await.unwrap().unwrap().unwrap();

    let node = Running::start(&dirs).await;
    assert_eq!(get(node.at.public, "/services/a").await.0, 402);
    assert_eq!(client.sandbox_balance(me).await.unwrap(), Amount::from(5_000_000));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_on_disk_is_paid_for_with_play_money() {
    let root = tempfile::tempdir().unwrap();
    let dirs = dirs(root.path());
    write(&dirs, "a", &values("a", "0.001", upstream().await));
    let node = Running::start(&dirs).await;
    let client = Client::connect(&dirs).await.unwrap();
    let wallet = obol_buyer::Wallet::random();
    client.sandbox_mint(wallet.address(), Amount::from(10_000)).await.unwrap();

    let url = format!("http://{}/services/a/x", node.at.public);
    let buy = async || obol_buyer::pay(&wallet, obol_buyer::PayRequest::get(url.parse().unwrap(), "1".parse().unwrap())).await.unwrap();
    let answer = buy().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body.bytes(100).await.unwrap(), "ok");
    let balances = async || {
        let seller: Address = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse().unwrap();
        (client.sandbox_balance(wallet.address()).await.unwrap(), client.sandbox_balance(seller).await.unwrap())
    };
    assert_eq!(balances().await, (Amount::from(9_000), Amount::from(1_000)));

    // The new price is asked for as soon as the sync has answered.
    write(&dirs, "a", &values("a", "0.002", upstream().await));
    client.sync(Some(&"a".parse().unwrap())).await.unwrap();
    assert_eq!(buy().await.status, 200);
    assert_eq!(balances().await, (Amount::from(7_000), Amount::from(3_000)));
    node.stop().await;
}

/// The time is printed, for people; ten thousand are measured end to end elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_offers_all_answer() {
    let root = tempfile::tempdir().unwrap();
    let dirs = dirs(root.path());
    for index in 0..2000 {
        write(&dirs, &format!("o{index}"), &values(&format!("o{index}"), "0.001", 9));
    }
    let started = std::time::Instant::now();
    let node = Running::start(&dirs).await;
    println!("ready after {:?}", started.elapsed());
    for index in (0..2000).step_by(7) {
        assert_eq!(get(node.at.public, &format!("/services/o{index}")).await.0, 402);
    }
    write(&dirs, "o77", &values("o77", "0.005", 9));
    let client = Client::connect(&dirs).await.unwrap();
    let price = async || client.offer(&"o77".parse().unwrap()).await.unwrap().price == "0.005 PLAY";
    println!("an edit by hand was live after {:?}", until("the edit", price).await);
    let resident = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", resident.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default());
    assert_eq!(client.status().await.unwrap().offers.len(), 2000);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_dropped_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let dirs = dirs(root.path());
    write(&dirs, "a", &values("a", "0.001", 9));
    for _ in 0..3 {
        let node = Running::start(&dirs).await;
        assert_eq!(get(node.at.public, "/services/a").await.0, 402);
        node.task.abort();
        assert!(node.task.await.unwrap_err().is_cancelled());
        until("the socket to go", async || Client::connect(&dirs).await.is_err()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_socket_refuses_nonsense_with_a_code() {
    let root = tempfile::tempdir().unwrap();
    let dirs = dirs(root.path());
    let node = Running::start(&dirs).await;
    let client = Client::connect(&dirs).await.unwrap();
    let ask = async |request: String| {
        let mut stream = tokio::net::UnixStream::connect(client.socket().unwrap()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    for (request, status, code) in [
        (post("/v1/nothing", ""), "404", "no_such_call"),
        (post("/v1/sync", "{\"nom\": 1}"), "400", "bad_body"),
        (post("/v1/sync", "{\"name\": \"../etc\"}"), "400", "bad_body"),
        (post("/v1/sync", &format!("{{\"name\": \"{}\"}}", "a".repeat(100_000))), "400", "bad_body"),
        (
            post("/v1/sandbox/mint", "{\"address\": \"0x0000000000000000000000000000000000000000\", \"amount\": \"1\"}"),
            "409",
            "sandbox_reverted",
        ),
        ("GET /v1/offers/None! HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".into(), "404", "offer_unknown"),
        ("GET /v1/sandbox/balance/me HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".into(), "400", "address"),
    ] {
        let answer = ask(request).await;
        assert!(answer.contains(&format!("HTTP/1.1 {status}")) && answer.contains(&format!("\"code\":\"{code}\"")), "{code}: {answer}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_facilitators_and_payments() {
    let root = tempfile::tempdir().unwrap();
    let dirs = dirs(root.path());
    let port = upstream().await;
    let values = values("a", "0.001", port).replace("obol-sandbox", "base-sepolia") + "  facilitators: [\"http://127.0.0.1:9/x402\"]\n";
    write(&dirs, "a", &values);
    let node = Running::start(&dirs).await;
    let status = Client::connect(&dirs).await.unwrap().status().await.unwrap();
    let ids: Vec<_> = status.facilitators.iter().map(|f| f.id.as_str()).collect();
    assert!(ids.contains(&"http://127.0.0.1:9/x402"), "known before its first payment: {ids:?}");
    assert_eq!(status.payments, obol_backend::control::PaymentCounts::default());
    assert!(status.ready);
    node.stop().await;
}
