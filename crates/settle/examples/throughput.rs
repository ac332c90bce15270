//! How many payments a cashier admits and captures per second, with a facilitator that costs
//! nothing: what is left is the journal and its disk.
//!
//! `cargo run --release -p obol-settle --example throughput [payments] [at once] [folder]`
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a measurement, not a part of the product")]

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use futures_util::future::BoxFuture;
use obol_offer::{Address, Amount, B256, Network, Scheme, Terms};
use obol_settle::{Captured, Cashier, CashierConfig, Facilitator, Receipt, SettleOutcome, VerifyOutcome};
use obol_x402::{Authorization, AuthorizationKind, LocalCheck, MatchedPayment, Version};

struct Free;

impl Facilitator for Free {
    fn id(&self) -> &str {
        "free"
    }
    fn verify<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, VerifyOutcome> {
        Box::pin(async move { VerifyOutcome::Valid { payer: payment.authorization.from } })
    }
    fn settle<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, SettleOutcome> {
        let receipt = Receipt { transaction: "0xabc".into(), payer: payment.authorization.from, amount: payment.terms.amount };
        Box::pin(async move { SettleOutcome::Settled(receipt) })
    }
}

fn payment(n: u64) -> MatchedPayment {
    let network = Network::find("base-sepolia").unwrap();
    let pay_to: Address = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse().unwrap();
    let nonce = B256::left_padding_from(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let amount = Amount::from(1000);
    MatchedPayment {
        version: Version::V2,
        terms: Terms { scheme: Scheme::Exact, network, asset: network.default_asset(), pay_to, amount, max_timeout_seconds: 300 },
        authorization: Authorization {
            from: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".parse().unwrap(),
            to: pay_to,
            value: amount,
            valid_after: 0,
            valid_before: 4_000_000_000,
            nonce,
            kind: AuthorizationKind::Eip3009,
            signature: vec![1; 65],
        },
        local_check: LocalCheck::SignedByPayer,
        charge: amount,
        payload_digest: nonce.0,
        facilitator_body: format!(r#"{{"x402Version":2,"paymentPayload":{{"n":"{n:01000}"}},"paymentRequirements":{{}}}}"#).into_bytes(),
    }
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let payments: u64 = args.next().map_or(50_000, |n| n.parse().unwrap());
    let at_once: u64 = args.next().map_or(256, |n| n.parse().unwrap());
    let folder = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder).unwrap();
    let config = CashierConfig::new(folder.path().join("journal.redb"));
    let cashier = Cashier::open(CashierConfig { local: vec![("base-sepolia", Arc::new(Free))], ..config }).await.unwrap();
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let workers: Vec<_> = (0..at_once)
        .map(|_| {
            let (cashier, next) = (cashier.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Relaxed);
                    if n >= payments {
                        return;
                    }
                    let mut fingerprint = [0; 32];
                    fingerprint[..8].copy_from_slice(&n.to_be_bytes());
                    let permit = cashier.admit(&"weather".parse().unwrap(), payment(n), &[], fingerprint).await.unwrap();
                    match permit.capture().await {
                        Captured::Settled(_, delivery) => delivery.complete(),
                        other => panic!("{other:?}"),
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    cashier.drain().await;
    let took = started.elapsed();
    println!("{payments} payments, {at_once} at once: {:.0} per second", payments as f64 / took.as_secs_f64());
}
