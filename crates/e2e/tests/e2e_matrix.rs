//! Every real client pays one and the same offer, whichever real facilitator settles it.

use std::fmt::Write;

use obol_e2e::{
    anvil::Anvil,
    buyers::Buyer,
    facilitators::{Facilitator, Maker},
    forge,
    stack::Stack,
    upstream::{Seen, Upstream},
};

/// 0.001 USDC in atomic units.
const PRICE: u64 = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn every_client_pays_through_every_facilitator() {
    let anvil = Anvil::start().await;
    let upstream = Upstream::start().await;
    let mut stack = Stack::new();
    stack.up().await;

    let mut table = format!("{:<24}", "client \\ facilitator");
    Maker::ALL.iter().for_each(|maker| write!(table, " | {maker:<16}").expect("a string takes text"));
    let mut rows: Vec<String> = Buyer::ALL.iter().map(|buyer| format!("\n{buyer:<24}")).collect();
    let mut broken = Vec::new();

    for maker in Maker::ALL {
        let facilitator = Facilitator::start(maker, &anvil.url);
        let payee = forge::fresh_address();
        let name = format!("weather-{}", maker as u8);
        stack.sell(&name, &upstream.url, &payee.to_checksum(None), &facilitator.url);
        let path = format!("/services/{name}");
        stack.wait_for(&path, 402).await;
        upstream.take_seen();

        // One after the other: a facilitator with one key settles one payment at a time.
        for (buyer, row) in Buyer::ALL.into_iter().zip(&mut rows) {
            let outcome = pay(&anvil, &upstream, buyer, &stack.url(&format!("{path}/today")), payee).await;
            write!(row, " | {:<16}", if outcome.is_ok() { "paid" } else { "FAILED" }).expect("a string takes text");
            broken.extend(outcome.err().map(|reason| format!("{buyer} through {maker}: {reason}")));
        }
    }
    table.push_str(&rows.concat());
    println!("\n{table}\n");
    obol_e2e::keep("matrix.txt", &table);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

async fn pay(anvil: &Anvil, upstream: &Upstream, buyer: Buyer, url: &str, payee: obol_offer::Address) -> Result<(), String> {
    let before = (anvil.balance(buyer.address()).await, anvil.balance(payee).await);
    let target = url.to_owned();
    let answer = tokio::task::spawn_blocking(move || buyer.buy(&target)).await.map_err(|error| error.to_string())?;
    let after = (anvil.balance(buyer.address()).await, anvil.balance(payee).await);

    let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("{what}: {answer:?}")) };
    check(answer.status == 200, "the answer is not 200")?;
    check(answer.body == "GET /today with 0 bytes", "the body is not the upstream's")?;
    let seen = upstream.take_seen();
    check(seen.len() == 1, "the upstream was not asked exactly once")?;
    let payment = |seen: &Seen| ["payment-signature", "x-payment"].iter().any(|name| seen.headers.contains_key(*name));
    check(!seen.iter().any(payment), "the payment went upstream")?;
    check(before.0 - after.0 == PRICE, "the payer did not lose exactly the price")?;
    check(after.1 - before.1 == PRICE, "the payee did not gain exactly the price")?;
    let receipt = answer.receipt.as_ref().ok_or_else(|| format!("no receipt: {answer:?}"))?;
    check(receipt.success, "the receipt says no")?;
    check(receipt.payer == Some(buyer.address()), "the receipt names another payer")?;
    check(anvil.succeeded(receipt.transaction).await, "the receipt's transaction is not on chain")
}
