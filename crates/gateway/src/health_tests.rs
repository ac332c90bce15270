use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use obol_offer::{HostUpstream, OfferName, PaymentSpec, PriceSpec, UpstreamSpec};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

fn target(upstream: UpstreamSpec) -> Option<Target> {
    let name: OfferName = "a".parse().unwrap();
    let spec = OfferSpec {
        upstream,
        payment: Some(PaymentSpec {
            network: "base-sepolia".into(),
            pay_to: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into(),
            price: PriceSpec { per_request: Some("0.001".into()), ..Default::default() },
            ..PaymentSpec::default()
        }),
        ..OfferSpec::default()
    };
    Some(Target::of(&Offer::validate(&name, &spec).unwrap(), &spec))
}

fn at(url: &str, health_path: Option<&str>) -> Target {
    target(UpstreamSpec { url: Some(url.into()), health_path: health_path.map(Into::into), ..UpstreamSpec::default() }).unwrap()
}

/// A server that answers each path with the raw bytes given for it, and counts.
async fn server(answers: &[(&'static str, &'static str)]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answers: BTreeMap<&'static str, &'static str> = answers.iter().copied().collect();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let answers = answers.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default();
                match answers.get(path) {
                    Some(&"silence") => tokio::time::sleep(Duration::from_secs(60)).await,
                    Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                    None => stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap(),
                }
            });
        }
    });
    (url, count)
}

#[test]
fn the_probe_goes_below_the_upstreams_own_path() {
    assert_eq!(at("http://a.example/base/", None).url, "http://a.example/base/health");
    assert_eq!(at("https://a.example", Some("/up")).url, "https://a.example/up");
    let host = UpstreamSpec { host: Some(HostUpstream { port: 9000 }), ..UpstreamSpec::default() };
    assert_eq!(target(host).unwrap().url, "http://127.0.0.1:9000/health");
    let service = UpstreamSpec { service: Some("web".into()), port: Some(80), ..UpstreamSpec::default() };
    assert_eq!(target(service).unwrap().url, "http://web.default.svc:80/health");
}

#[tokio::test]
async fn only_2xx_is_well_and_a_missing_default_path_is_reachable() {
    let ok = "HTTP/1.1 204 No Content\r\n\r\n";
    let moved = "HTTP/1.1 302 Found\r\nlocation: /up\r\ncontent-length: 0\r\n\r\n";
    let sick = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    let (url, _) = server(&[("/up", ok), ("/moved", moved), ("/sick", sick), ("/garbage", "who?\r\n\r\n"), ("/b/health", ok)]).await;
    let client = client().unwrap();
    let unwell = |health: Health| match health {
        Health::Unhealthy(cause) => cause,
        other => panic!("{other:?}"),
    };
    assert_eq!(probe(&client, &at(&url, Some("/up"))).await, Health::Healthy);
    assert_eq!(probe(&client, &at(&format!("{url}/b"), None)).await, Health::Healthy);
    assert_eq!(probe(&client, &at(&url, None)).await, Health::Reachable);
    assert!(unwell(probe(&client, &at(&url, Some("/health"))).await).ends_with("answered 404"));
    assert!(unwell(probe(&client, &at(&url, Some("/moved"))).await).ends_with("answered 302"));
    assert!(unwell(probe(&client, &at(&url, Some("/sick"))).await).ends_with("answered 503"));
    unwell(probe(&client, &at(&url, Some("/garbage"))).await);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(unwell(probe(&client, &at(&format!("http://{closed}"), None)).await).contains("refused"));
}

#[tokio::test]
async fn silence_is_not_waited_for_long() {
    let (url, _) = server(&[("/health", "silence")]).await;
    let cause = probe(&client().unwrap(), &at(&url, None)).await;
    assert_eq!(cause, Health::Unhealthy(format!("GET {url}/health did not answer within 2 s")));
}

async fn until(mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true");
}

#[tokio::test]
async fn new_targets_are_probed_at_once_and_removed_ones_forgotten() {
    let (url, count) = server(&[("/health", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")]).await;
    let prober = Prober::new();
    let running = tokio::spawn(prober.clone().run(client().unwrap()));
    // More targets than may be under way at once, all of the same server.
    let targets: BTreeSet<Target> = (0..100).map(|i| at(&url, Some(&format!("/x{i}")))).chain([at(&url, None)]).collect();
    prober.set(targets.clone());
    until(|| targets.iter().all(|target| prober.last(target).is_some())).await;
    assert_eq!(prober.last(&at(&url, None)).unwrap().health, Health::Healthy);
    assert_eq!(count.load(Ordering::SeqCst), 101);
    // The same set again asks nobody again.
    prober.set(targets.clone());
    prober.set(BTreeSet::new());
    until(|| targets.iter().all(|target| prober.last(target).is_none())).await;
    assert_eq!(count.load(Ordering::SeqCst), 101);
    running.abort();
}

#[test]
fn many_upstreams_are_asked_less_often() {
    assert!((9..=11).contains(&pause(1).as_secs()));
    assert!((45..=55).contains(&pause(10_000).as_secs()));
}
