//! Ten thousand offers on disk: the node starts, and every route asks for its payment.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use obol_e2e::{http, stack::Stack, upstream::Upstream};

const OFFERS: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_offers_start_and_answer() {
    let upstream = Upstream::start().await;
    let mut stack = Stack::new();
    for number in 0..OFFERS {
        let name = format!("offer-{number}");
        let slice = stack.slice(&name);
        fs_err::create_dir_all(&slice).expect("a folder");
        fs_err::write(slice.join("values-offer.yaml"), values(&name, &upstream.url)).expect("a file");
    }
    let ready = stack.up_within(Duration::from_secs(120)).await;

    let start = Instant::now();
    let client = http();
    let answers = stream::iter(0..OFFERS)
        .map(|number| client.get(stack.url(&format!("/services/offer-{number}"))).send())
        .buffer_unordered(16)
        .fold(0, async |asked, answer| asked + usize::from(answer.expect("the node answers").status() == 402))
        .await;
    assert_eq!(answers, OFFERS, "every route asks for its payment");

    let told = format!(
        "{OFFERS} offers: ready after {:.2} s, all asked in {:.2} s, peak {} KiB",
        ready.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        stack.node().peak_memory_kib()
    );
    println!("{told}");
    obol_e2e::keep("many.txt", &told);
}

fn values(name: &str, upstream: &str) -> String {
    format!(
        "name: {name}\nspec:\n  type: http\n  upstream:\n    url: {upstream}\n  payment:\n    network: base-sepolia\n    \
         payTo: \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"\n    price:\n      perRequest: \"0.001\"\n  facilitators:\n    - http://127.0.0.1:9\n"
    )
}
