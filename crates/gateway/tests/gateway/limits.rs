//! Bounds.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use http_body::Frame;
use http_body_util::StreamBody;
use obol_gateway::GatewayConfig;
use obol_offer::LimitsSpec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

async fn limited(limits: LimitsSpec) -> Shop {
    Shop::with(GatewayConfig::default(), |spec| spec.limits = Some(limits)).await
}

#[tokio::test]
async fn an_offer_takes_so_many_requests_at_once() {
    let shop = limited(LimitsSpec { max_in_flight: Some(1), ..LimitsSpec::default() }).await;
    let payment = shop.payment();
    let slow = shop.get_paid("/services/a/slow", &payment);
    let second = async {
        until("the first is in progress", || shop.upstream.heads() == 1).await;
        let got = shop.get("/services/a/free/x").await;
        // A table swap keeps the count.
        shop.table.store(shop.table.load_full());
        (got, shop.get("/services/a/free/x").await)
    };
    let (first, (busy, again)) = tokio::join!(slow, second);
    assert_eq!((first.status, busy.status, again.status), (StatusCode::OK, StatusCode::TOO_MANY_REQUESTS, StatusCode::TOO_MANY_REQUESTS));
    assert_eq!((busy.json()["error"].as_str(), busy.header("retry-after")), (Some("too_many_in_flight"), "1"));
    assert_eq!(shop.get("/services/a/free/x").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_offer_takes_so_many_requests_per_second() {
    let shop = limited(LimitsSpec { rps: Some(2), ..LimitsSpec::default() }).await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(shop.get("/services/a/free/x").await.status);
    }
    assert_eq!(statuses[..2], [StatusCode::OK, StatusCode::OK]);
    assert!(statuses.contains(&StatusCode::TOO_MANY_REQUESTS), "{statuses:?}");
    let payment = shop.payment();
    let got = shop.get_paid("/services/a/x", &payment).await;
    if got.status == StatusCode::TOO_MANY_REQUESTS {
        assert_eq!(shop.cashier.stats().admitted, 0, "a refused request claims no payment");
    }
}

#[tokio::test]
async fn bodies_are_bounded_by_length_and_while_streaming() {
    let shop = limited(LimitsSpec { max_body_bytes: Some(1000), ..LimitsSpec::default() }).await;
    for path in ["/services/a/x", "/services/a/free/x"] {
        let payment = shop.payment();
        let post = || shop.request("POST", path).header("payment-signature", &payment);
        let got = shop.send(post(), vec![b'x'; 1001]).await;
        assert_eq!((got.status, got.json()["error"].as_str()), (StatusCode::PAYLOAD_TOO_LARGE, Some("body_too_large")), "{path}");
        let frames = (0..50).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b'x'; 100]))));
        let got = send_stream(&shop, post().header("host", "a").body(StreamBody::new(stream::iter(frames))).unwrap()).await.unwrap();
        assert_eq!((got.status, got.json()["error"].as_str()), (StatusCode::PAYLOAD_TOO_LARGE, Some("body_too_large")), "{path}");
        assert_eq!(shop.send(post(), vec![b'x'; 1000]).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(shop.facilitator.begun(), 1);
}

#[tokio::test]
async fn challenges_are_bounded_per_client() {
    let shop = Shop::with(GatewayConfig { challenge_rate: 3, ..GatewayConfig::default() }, |_| {}).await;
    let mut got = Vec::new();
    for _ in 0..8 {
        got.push(shop.get("/services/a").await);
    }
    assert_eq!(got.iter().take(3).filter(|g| g.status == StatusCode::PAYMENT_REQUIRED).count(), 3);
    let refused = got.iter().find(|g| g.status == StatusCode::TOO_MANY_REQUESTS).unwrap();
    assert_eq!((refused.json()["error"].as_str(), refused.header("retry-after")), (Some("challenge_rate"), "1"));
    let payment = shop.payment();
    assert_eq!(shop.get_paid("/services/a", &payment).await.status, StatusCode::OK, "who pays is not held up");
}

#[tokio::test]
async fn slow_heads_and_idle_connections_are_closed() {
    let config = GatewayConfig { head_timeout: Duration::from_millis(300), ..GatewayConfig::default() };
    let shop = Shop::with(config, |_| {}).await;
    for start in ["", "G", "GET /services/a HTTP/1.1\r\nHost: a\r\nX-Slow: ", "GET /services/a HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut stream = connect(&shop).await;
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "{start:?}");
        assert_eq!(!answer.is_empty(), start.ends_with("\r\n\r\n"), "{start:?}");
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_wait() {
    let shop = Shop::with(GatewayConfig { max_connections: 1, ..GatewayConfig::default() }, |_| {}).await;
    let mut first = connect(&shop).await;
    first.write_all(b"GET /services/a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut some = [0; 16];
    first.read_exact(&mut some).await.unwrap();
    let second = shop.raw(b"GET /services/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut second = std::pin::pin!(second);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut second).await.is_err());
    drop(first);
    assert!(second.await.contains(" 402 "));
}

#[tokio::test]
async fn a_buyer_who_does_not_read_is_let_go() {
    let config = GatewayConfig { stall_timeout: Duration::from_millis(300), ..GatewayConfig::default() };
    let shop = Shop::with(config, |spec| spec.limits = Some(LimitsSpec { max_in_flight: Some(1), ..LimitsSpec::default() })).await;
    let mut stream = connect(&shop).await;
    stream.write_all(b"GET /services/a/free/big HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until("in progress", || shop.upstream.heads() == 1).await;
    let mut status = shop.get("/services/a/free/x").await.status;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        status = shop.get("/services/a/free/x").await.status;
        if status == StatusCode::OK {
            break;
        }
    }
    assert_eq!(status, StatusCode::OK);
    drop(stream);
}
