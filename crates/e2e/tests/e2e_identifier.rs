//! The x402 extension `payment-identifier`, with the official client for it.

use obol_e2e::{
    anvil::{Anvil, KEYS},
    buyers::{Answer, run},
    facilitators::{Facilitator, Maker},
    forge,
    postgres::Postgres,
    stack::Stack,
    upstream::Upstream,
};

const PRICE: u64 = 1_000;

fn buy(key: &str, url: &str, id: &str) -> Answer {
    run(std::process::Command::new("node").arg(obol_e2e::part("node/buyer-id.mjs")).args([url, id]).env("X402_KEY", key))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_named_by_the_official_client_is_charged_once_per_payer() {
    sell(vec![Stack::new()]).await;
}

/// The same, from two gateways in turn that share a journal.
#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_named_by_the_official_client_is_charged_once_by_two_gateways() {
    let (database, secret) = (Postgres::start(), tempfile::NamedTempFile::new().expect("a file"));
    fs_err::write(secret.path(), database.url()).expect("a file");
    let shared = format!("journal:\n  postgres: ref+file://{}\n", secret.path().display());
    sell(vec![Stack::with(&shared), Stack::with(&shared)]).await;
    let named = "select count(*) from obol.payment where state = 'delivered' and detail->>'id' is not null";
    assert_eq!(database.query(named), "3", "the journal");
}

async fn sell(mut stacks: Vec<Stack>) {
    let anvil = Anvil::start().await;
    let facilitator = Facilitator::start(Maker::TypeScript, &anvil.url);
    let (upstream, payee) = (Upstream::start().await, forge::fresh_address());
    for stack in &mut stacks {
        stack.sell("weather", &upstream.url, &payee.to_string(), &facilitator.url);
        stack.set("weather", "delivery:\n  onLost: storedAnswer\n  paymentIdentifier: optional\n");
        stack.up().await;
    }
    let (today, tomorrow) = ("/services/weather/today", "/services/weather/tomorrow");
    let mut turn = 0;
    // Every purchase from the next gateway.
    let mut url = |path: &str| {
        turn += 1;
        stacks[turn % stacks.len()].url(path)
    };
    let id = "pay_7d5d747be160e280";

    let first = buy(KEYS[3], &url(today), id);
    assert_eq!(first.status, 200, "{} {}", first.body, first.error);
    let paid = first.receipt.expect("a receipt").transaction;
    assert!(anvil.succeeded(paid).await);
    // The client asks for the price, signs anew, and is charged nothing.
    for _ in 0..2 {
        let again = buy(KEYS[3], &url(today), id);
        assert_eq!((again.status, again.body.as_str()), (200, first.body.as_str()), "{}", again.error);
        assert_eq!(again.receipt.expect("a receipt").transaction, paid);
    }
    assert_eq!(anvil.balance(payee).await, PRICE);
    let other = buy(KEYS[3], &url(tomorrow), id);
    assert_eq!(other.status, 409);
    assert!(other.body.contains("payment_identifier_conflict"), "{}", other.body);
    // Another payer's purchase of that name is another purchase; so is another name.
    assert_eq!(buy(KEYS[4], &url(today), id).status, 200);
    assert_eq!(buy(KEYS[3], &url(today), "pay_another_name_at_all").status, 200);
    assert_eq!(anvil.balance(payee).await, 3 * PRICE);
    assert_eq!(upstream.take_seen().iter().filter(|seen| seen.target.ends_with("today")).count(), 3);

    // Nobody has to send one, unless the offer says so.
    assert_eq!(obol_e2e::buyers::Buyer::FetchV2.buy(&url(today)).status, 200);
    for stack in &stacks {
        stack.set("weather", "delivery:\n  onLost: storedAnswer\n  paymentIdentifier: required\n");
        stack.ok(&["stack", "status"]);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let without = obol_e2e::buyers::Buyer::FetchV2.buy(&stack.url(today));
            if without.status == 400 && without.body.contains("payment_identifier_required") {
                break;
            }
            assert!(std::time::Instant::now() < end, "{} {}", without.status, without.body);
        }
        assert_eq!(buy(KEYS[3], &stack.url(today), id).body, first.body, "still the same purchase");
    }
}
