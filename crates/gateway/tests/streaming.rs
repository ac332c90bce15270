//! Bodies of any size with bounded memory. Alone in its process, which it measures.
// Helpers outside `#[test]` functions are test code too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/mod.rs"]
mod support;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use support::*;

const SIZE: usize = 64 * 1024 * 1024;

/// Most memory this process ever had, in KiB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn large_bodies_stream_both_ways_in_bounded_memory() {
    let shop = Shop::open().await;
    let payment = shop.payment();
    assert_eq!(shop.get_paid("/services/a/x", &payment).await.status.as_u16(), 200);
    let before = peak();

    let request = shop.request("GET", "/services/a/big").header("payment-signature", shop.payment());
    let response = client(false).request(request.body(http_body_util::Full::<Bytes>::default()).unwrap()).await.unwrap();
    assert!(response.headers().contains_key("payment-response"));
    let mut body = response.into_body();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        total += frame.unwrap().data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(total, SIZE);

    let chunk = Bytes::from(vec![b'y'; 64 * 1024]);
    let frames = stream::iter(0..SIZE / chunk.len()).map(move |_| Ok::<_, std::io::Error>(Frame::data(chunk.clone())));
    let request = shop.request("POST", "/services/a/sink").header("host", "a").header("payment-signature", shop.payment());
    let got = send_stream(&shop, request.body(StreamBody::new(frames)).unwrap()).await.unwrap();
    assert_eq!(got.text(), SIZE.to_string());

    let grown = peak() - before;
    assert!(grown < 16 * 1024, "peak memory grew by {grown} KiB for {SIZE} bytes each way");
    until("delivered", || shop.cashier.stats().delivered == 3).await;
}
