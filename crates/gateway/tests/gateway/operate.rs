//! What operators see, and how a gateway ends.

use std::time::Duration;

use http::StatusCode;
use obol_gateway::GatewayConfig;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::*;

#[tokio::test]
async fn ready_only_with_a_table() {
    let shop = Shop::empty(GatewayConfig::default(), Upstream::start().await).await;
    assert_eq!(shop.admin_status("/healthz").await, StatusCode::OK);
    assert_eq!(shop.admin_status("/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
    let got = shop.get("/services/a").await;
    assert_eq!((got.status, got.json()["error"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("not_ready")));
    shop.table.store(Some(table(&[])));
    assert_eq!(shop.admin_status("/readyz").await, StatusCode::OK);
    assert_eq!(shop.admin_status("/else").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn metrics_tell_what_happened_and_forget_removed_offers() {
    let shop = Shop::open().await;
    shop.get("/services/a").await;
    let payment = shop.payment();
    shop.get_paid("/services/a/x", &payment).await;
    shop.get_paid("/services/a/x", &payment).await;
    shop.raw(b"GET / HTTP/1.1\r\n\r\n").await;
    let metrics = shop.metrics().await;
    for line in [
        "obol_gateway_challenges_total{offer=\"a\"} 1",
        "obol_gateway_requests_total{offer=\"a\",status=\"2xx\"} 1",
        "obol_gateway_requests_total{offer=\"a\",status=\"4xx\"} 2",
        "obol_gateway_payments_total{offer=\"a\",network=\"base-sepolia\",outcome=\"settled\"} 1",
        "obol_gateway_payments_total{offer=\"a\",network=\"base-sepolia\",outcome=\"payment_already_used\"} 1",
        "obol_gateway_captured_total{offer=\"a\",network=\"base-sepolia\",asset=\"USDC\"} 1000.0",
        "obol_gateway_settle_seconds_count{network=\"base-sepolia\"} 1",
        "obol_gateway_framing_refused_total{code=\"bad_host\"} 1",
        "obol_gateway_in_flight{offer=\"a\"} 0",
        "obol_gateway_cashier_admitted_total 1",
        "obol_gateway_cashier_unknown_now 0",
        "obol_gateway_facilitator_healthy{facilitator=\"fake\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    shop.table.store(Some(table(&[&offer("b", &spec(1))])));
    assert!(!shop.metrics().await.contains("offer=\"a\""));
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_progress() {
    let shop = Shop::open().await;
    let payment = shop.payment();
    let (addr, shutdown) = (shop.addr, shop.shutdown.clone());
    // An idle connection must not hold the drain up.
    let mut idle = connect(&shop).await;
    idle.write_all(b"GET /services/a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let slow = shop.get_paid("/services/a/slow", &payment);
    let stop = async {
        until("in progress", || shop.upstream.heads() == 1).await;
        shutdown.cancel();
    };
    let (got, ()) = tokio::join!(slow, stop);
    assert_eq!((got.status, got.text()), (StatusCode::OK, "slow"));
    tokio::time::timeout(Duration::from_secs(10), shop.running).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(addr).await.is_err());
}
