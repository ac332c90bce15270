//! Websockets through the gate.

use std::time::Duration;

use obol_gateway::GatewayConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::*;

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";

fn handshake(path: &str, extra: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    )
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(end.as_bytes()) {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut byte)).await.unwrap().unwrap();
        assert_eq!(read, 1, "ended after {}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_websocket_is_paid_at_its_handshake() {
    let (addr, seen) = raw_upstream(SWITCH).await;
    let shop = Shop::with(GatewayConfig::default(), |spec| spec.upstream.host.as_mut().unwrap().port = addr.port()).await;
    let unpaid = shop.raw(handshake("/services/a", "").as_bytes()).await;
    assert!(unpaid.starts_with("HTTP/1.1 402 "), "{unpaid}");
    assert!(seen.lock().unwrap().is_empty());

    let mut stream = connect(&shop).await;
    stream.write_all(handshake("/services/a", &format!("PAYMENT-SIGNATURE: {}\r\n", shop.payment())).as_bytes()).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("payment-response: ") && head.contains("upgrade: websocket"), "{head}");
    assert_eq!(shop.facilitator.settles(), 1, "money before the first byte");
    for word in ["one", "\u{0}\u{1}two\n"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut stream, word).await, format!("echo:{word}"));
    }
    until("delivered", || shop.cashier.stats().delivered == 1).await;
    let upstream_saw = String::from_utf8(seen.lock().unwrap().clone()).unwrap().to_ascii_lowercase();
    for part in ["get / http/1.1", "upgrade: websocket", "sec-websocket-key: k", "x-obol-payer: 0x"] {
        assert!(upstream_saw.contains(part), "{part} in {upstream_saw}");
    }
    assert!(!upstream_saw.contains("payment-signature"));
    drop(stream);
    shop.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(20), shop.running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_websocket_that_the_upstream_refuses_is_not_charged() {
    let shop = Shop::open().await;
    let payment = shop.payment();
    let answer = shop.raw(handshake("/services/a/404", &format!("PAYMENT-SIGNATURE: {payment}\r\n")).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let (addr, _) = raw_upstream("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n").await;
    let shop = Shop::with(GatewayConfig::default(), |spec| spec.upstream.host.as_mut().unwrap().port = addr.port()).await;
    let answer = shop.raw(handshake("/services/a", &format!("PAYMENT-SIGNATURE: {}\r\n", shop.payment())).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("upgrade_failed"), "{answer}");
    assert_eq!((shop.facilitator.begun(), shop.cashier.stats().released), (0, 1));
}

#[tokio::test]
async fn an_open_websocket_ends_with_the_drain() {
    let (addr, _) = raw_upstream(SWITCH).await;
    let config = GatewayConfig { drain_timeout: Duration::from_millis(200), ..GatewayConfig::default() };
    let shop = Shop::with(config, |spec| {
        spec.upstream.host.as_mut().unwrap().port = addr.port();
    })
    .await;
    let mut stream = connect(&shop).await;
    stream.write_all(handshake("/services/a/free/x", "").as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    shop.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(20), shop.running).await.unwrap().unwrap().unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
}
