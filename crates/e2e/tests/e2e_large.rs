//! Bodies of any size pass through in both directions while the node's memory stays small.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use obol_e2e::{anvil::KEYS, facilitators::Maker, forge, http, shop::Shop};

const GIB: u64 = 1024 * 1024 * 1024;
const SIZE: u64 = 2 * GIB;
/// Most that the node may ever have in memory, in KiB.
const BOUND: u64 = 64 * 1024;
const CHUNK: usize = 64 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn two_gibibytes_pass_both_ways_below_64_mebibytes() {
    let Shop { anvil, upstream: _upstream, payee, mut stack, facilitator: _facilitator } = Shop::open("bulk", Maker::TypeScript).await;
    let terms = forge::terms(payee, 1_000);
    let now = anvil.now().await;
    let payment = || forge::header(&forge::payment(KEYS[7], &terms, 0, now + 280));

    let start = std::time::Instant::now();
    let request = http().get(stack.url(&format!("/services/bulk/download/{SIZE}"))).header("payment-signature", payment());
    let answer = request.send().await.expect("the node answers");
    assert_eq!(answer.status(), 200);
    let mut body = answer.bytes_stream();
    let mut received = 0;
    while let Some(chunk) = body.next().await {
        received += chunk.expect("the body goes on").len() as u64;
    }
    assert_eq!(received, SIZE);
    let down = (start.elapsed(), stack.node().peak_memory_kib());

    let start = std::time::Instant::now();
    let chunk = Bytes::from(vec![b'o'; CHUNK]);
    let chunks = SIZE / CHUNK as u64;
    let body = reqwest::Body::wrap_stream(stream::iter((0..chunks).map(move |_| Ok::<_, std::io::Error>(chunk.clone()))));
    let request = http().post(stack.url("/services/bulk/upload")).header("payment-signature", payment()).body(body);
    let answer = request.send().await.expect("the node answers");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.expect("a body"), format!("POST /upload with {SIZE} bytes"));
    let up = (start.elapsed(), stack.node().peak_memory_kib());

    let told = format!(
        "2 GiB down in {:.1} s, peak {} KiB; 2 GiB up in {:.1} s, peak {} KiB",
        down.0.as_secs_f64(),
        down.1,
        up.0.as_secs_f64(),
        up.1
    );
    println!("{told}");
    obol_e2e::keep("large.txt", &told);
    assert!(up.1 < BOUND, "the node needed {} KiB", up.1);
    assert_eq!(anvil.balance(payee).await, 2_000);
}
