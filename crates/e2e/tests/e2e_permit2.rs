//! Payments by Permit2, `exact` and `upto`, up to the money moving on a real EVM node: with clients and a
//! facilitator that we did not write, and with our own, on our stand-in for Permit2 and on the deployed code.

use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{SolCall, sol};
use obol_e2e::{
    anvil::{Anvil, KEYS, USDC},
    buyers::Buyer,
    facilitators::{Facilitator as Remote, Maker, chain, in_process},
    forge, http,
    stack::Stack,
    upstream::Upstream,
};
use obol_offer::{Amount, Scheme, Terms, TransferMethod};
use obol_settle::{ChainFinding, ChainView, Facilitator, SettleOutcome, VerifyOutcome};
use obol_x402::{
    LocalCheck, MatchedPayment, PaymentHeaders, Quote, QuoteInfo, decode, match_payment,
    permit2::{PERMIT2, UPTO_PROXY},
};
use serde_json::{Value, json};

const CEILING: u64 = 100_000;
const USED: u64 = 1_858;
const PRICE: u64 = 1_000;
const PAYER: &str = KEYS[8];
/// The key of the facilitator in the process; the other one has its own.
const GAS: &str = KEYS[9];

sol! {
    function invalidateUnorderedNonces(uint256 wordPos, uint256 mask);
}

fn terms(scheme: Scheme, payee: Address) -> Terms {
    let plain = forge::terms(payee, CEILING);
    let mut asset = plain.asset.clone();
    asset.transfer_method = TransferMethod::Permit2;
    Terms { scheme, asset, ..plain }
}

/// A payment that a gateway has matched.
async fn payment(anvil: &Anvil, scheme: Scheme, payee: Address, facilitator: Address) -> MatchedPayment {
    let (now, terms) = (anvil.now().await, terms(scheme, payee));
    let mut info = QuoteInfo::default();
    info.facilitators.add(terms.network, facilitator);
    let quote = Quote::new(vec![terms.clone()], info);
    let header = forge::header(&forge::payment_to(PAYER, &terms, Some(facilitator), 0..now + 200));
    let headers = PaymentHeaders { v1: vec![], v2: vec![header.as_bytes()] };
    let payment = decode(&headers).expect("the header is well formed").expect("there is a payment");
    let matched = match_payment(&payment, &quote, "http://127.0.0.1/services/x", now, |_| true).expect("it matches");
    assert_eq!(matched.local_check, LocalCheck::SignedByPayer);
    matched
}

/// A chain on which the payer has let Permit2 spend.
async fn anvil(deployed: bool) -> Anvil {
    let anvil = Anvil::start().await;
    if deployed {
        anvil.place_deployed_permit2().await;
    }
    anvil.approve_permit2(forge::address(PAYER), U256::MAX).await;
    anvil
}

async fn ask(facilitator: &Remote, step: &str, payment: &MatchedPayment) -> Value {
    let request = http().post(format!("{}/{step}", facilitator.url)).header("content-type", "application/json");
    request.body(payment.facilitator_body.clone()).send().await.expect("it answers").json().await.expect("in JSON")
}

/// Who settles `upto`, as the facilitator itself says.
async fn supported(facilitator: &Remote) -> Address {
    let answer = http().get(format!("{}/supported", facilitator.url)).send().await.expect("it answers");
    let supported: Value = answer.json().await.expect("in JSON");
    let kind = supported["kinds"].as_array().and_then(|kinds| kinds.iter().find(|kind| kind["scheme"] == "upto"));
    kind.expect("it takes upto")["extra"]["facilitatorAddress"].as_str().and_then(|text| text.parse().ok()).expect("an address")
}

/// What is used of what is authorised.
const CASES: [(Scheme, u64); 4] = [(Scheme::Exact, CEILING), (Scheme::Upto, USED), (Scheme::Upto, 1), (Scheme::Upto, CEILING)];

fn charge(payment: &MatchedPayment, used: u64) -> MatchedPayment {
    payment.clone().charging(Amount::from(used)).expect("it is within the ceiling")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_facilitator_that_we_did_not_write_settles_what_was_used() {
    for deployed in [false, true] {
        let anvil = anvil(deployed).await;
        let remote = Remote::start(Maker::TypeScript, &anvil.url);
        let settles = supported(&remote).await;
        for (scheme, used) in CASES {
            let payee = forge::fresh_address();
            let payment = payment(&anvil, scheme, payee, settles).await;
            let verified = ask(&remote, "verify", &payment).await;
            assert_eq!(verified["isValid"], true, "{scheme:?}, deployed {deployed}: {verified}");
            assert_eq!(anvil.balance(payee).await, 0, "verifying moves nothing");
            let settled = ask(&remote, "settle", &charge(&payment, used)).await;
            assert_eq!(settled["success"], true, "{scheme:?}, deployed {deployed}: {settled}");
            let hash: B256 = settled["transaction"].as_str().and_then(|hash| hash.parse().ok()).expect("a hash");
            assert!(anvil.succeeded(hash).await);
            assert_eq!(anvil.balance(payee).await, used, "{scheme:?}, deployed {deployed}");
            if scheme == Scheme::Upto {
                assert_eq!(settled["amount"], used.to_string());
            }
            // The chain proves it to us too, and the same nonce moves nothing more.
            let finding = chain(&anvil).look(&charge(&payment, used), anvil.now().await, None).await;
            assert_eq!(finding, ChainFinding::Settled { transaction: hash.to_string(), amount: used.into(), is_final: false });
            let again = ask(&remote, "settle", &charge(&payment, used)).await;
            assert_eq!(anvil.balance(payee).await, used, "{again}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_facilitator_settles_what_was_used_and_tells_the_same_when_asked_again() {
    for deployed in [false, true] {
        let anvil = anvil(deployed).await;
        let us = in_process(&anvil, GAS);
        assert_eq!(us.upto(us.chain().network()), Some(us.address()));
        for (scheme, used) in CASES {
            let payee = forge::fresh_address();
            let payment = payment(&anvil, scheme, payee, us.address()).await;
            assert_eq!(us.verify(&payment).await, VerifyOutcome::Valid { payer: forge::address(PAYER) }, "{scheme:?} {deployed}");
            let payment = charge(&payment, used);
            let outcome = us.settle(&payment).await;
            let SettleOutcome::Settled(receipt) = &outcome else { panic!("{scheme:?}, deployed {deployed}: {outcome:?}") };
            assert_eq!((receipt.payer, receipt.amount), (forge::address(PAYER), used.into()));
            assert_eq!(anvil.balance(payee).await, used, "{scheme:?}, deployed {deployed}");
            // After a crash there is nothing but the chain.
            assert_eq!(in_process(&anvil, GAS).settle(&payment).await, outcome);
            assert_eq!(anvil.balance(payee).await, used);
            assert_eq!(us.verify(&payment).await, VerifyOutcome::Invalid { reason: "permit2_invalid_nonce".into() });
        }
    }
}

/// How many transactions our facilitator has sent.
async fn sent(anvil: &Anvil) -> Value {
    anvil.rpc("eth_getTransactionCount", json!([forge::address(GAS), "latest"])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_used_is_no_transaction() {
    let anvil = anvil(false).await;
    let us = in_process(&anvil, GAS);
    let before = sent(&anvil).await;
    let payment = payment(&anvil, Scheme::Upto, forge::fresh_address(), us.address()).await;
    let outcome = us.settle(&charge(&payment, 0)).await;
    assert!(matches!(&outcome, SettleOutcome::Settled(receipt) if receipt.transaction.is_empty() && receipt.amount == Amount::ZERO));
    assert_eq!(sent(&anvil).await, before);
    assert_eq!(us.verify(&payment).await, VerifyOutcome::Valid { payer: forge::address(PAYER) }, "the nonce is unused");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_contracts_refuse_is_refused_before_it_costs_gas() {
    for deployed in [false, true] {
        let anvil = anvil(deployed).await;
        let us = in_process(&anvil, GAS);
        let before = sent(&anvil).await;
        let good = payment(&anvil, Scheme::Upto, forge::fresh_address(), us.address()).await;
        let elsewhere = payment(&anvil, Scheme::Upto, forge::fresh_address(), USDC).await;
        let bend = |change: fn(&mut MatchedPayment)| {
            let mut bent = good.clone();
            change(&mut bent);
            bent
        };
        let early = bend(|p| p.authorization.valid_after = 4_000_000_000);
        let cases: [(&str, MatchedPayment); 7] = [
            ("invalid_permit2_signature", bend(|p| p.authorization.signature[3] ^= 1)),
            ("invalid_permit2_signature", bend(|p| p.authorization.signature.truncate(40))),
            ("invalid_permit2_recipient_mismatch", bend(|p| p.authorization.to = USDC)),
            ("permit2_amount_mismatch", bend(|p| p.authorization.value = 7.into())),
            ("permit2_deadline_expired", bend(|p| p.authorization.valid_before = 5)),
            ("permit2_payment_too_early", early),
            ("upto_facilitator_mismatch", elsewhere),
        ];
        for (reason, bent) in cases {
            assert_eq!(us.verify(&bent).await, VerifyOutcome::Invalid { reason: reason.into() }, "deployed {deployed}");
            assert_eq!(us.settle(&bent).await, SettleOutcome::Refused { reason: reason.into() }, "deployed {deployed}");
        }
        let above = bend(|p| p.charge = (CEILING + 1).into());
        let reason = "invalid_upto_evm_payload_settlement_exceeds_amount".to_owned();
        assert_eq!(us.settle(&above).await, SettleOutcome::Refused { reason });

        anvil.approve_permit2(forge::address(PAYER), U256::from(CEILING - 1)).await;
        let reason = || "permit2_allowance_required".to_owned();
        assert_eq!(us.verify(&good).await, VerifyOutcome::Invalid { reason: reason() });
        assert_eq!(us.settle(&good).await, SettleOutcome::Refused { reason: reason() });
        anvil.approve_permit2(forge::address(PAYER), U256::MAX).await;
        anvil.rpc("anvil_setCode", json!([UPTO_PROXY, "0x"])).await;
        assert_eq!(us.verify(&good).await, VerifyOutcome::Invalid { reason: "permit2_proxy_not_deployed".into() });
        assert_eq!(sent(&anvil).await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_tells_payments_of_one_payer_apart() {
    for deployed in [false, true] {
        let anvil = anvil(deployed).await;
        let (us, chain, payee) = (in_process(&anvil, GAS), chain(&anvil), forge::fresh_address());
        let since = anvil.now().await;
        let mut settled = Vec::new();
        for scheme in [Scheme::Upto, Scheme::Exact, Scheme::Upto] {
            let payment = payment(&anvil, scheme, payee, us.address()).await;
            let payment = if scheme == Scheme::Upto { charge(&payment, USED) } else { payment };
            assert!(matches!(chain.look(&payment, since, None).await, ChainFinding::Unused { is_final: false, .. }));
            let SettleOutcome::Settled(receipt) = us.settle(&payment).await else { panic!("it settles") };
            settled.push((payment, receipt));
        }
        for (payment, receipt) in &settled {
            let expected = ChainFinding::Settled { transaction: receipt.transaction.clone(), amount: payment.charge, is_final: false };
            // By its own hash, without any, and by the hash of another payment.
            for named in [Some(&receipt.transaction), None, Some(&settled[1].1.transaction), Some(&settled[2].1.transaction)] {
                assert_eq!(chain.look(payment, since, named.map(String::as_str)).await, expected, "deployed {deployed}");
            }
        }
        // A facilitator that charged other than it was asked to is found out, and what moved is told.
        let (first, receipt) = &settled[0];
        let mut asked = first.clone();
        asked.charge = 5.into();
        let expected = ChainFinding::Settled { transaction: receipt.transaction.clone(), amount: USED.into(), is_final: false };
        assert_eq!(chain.look(&asked, since, None).await, expected);

        // The payer makes a nonce worthless.
        let unmade = payment(&anvil, Scheme::Upto, payee, us.address()).await;
        let nonce = U256::from_be_bytes(unmade.authorization.nonce.0);
        let cancel = invalidateUnorderedNoncesCall { wordPos: nonce >> 8, mask: U256::ONE << (nonce & U256::from(0xff)) };
        anvil.transact(forge::address(PAYER), PERMIT2, cancel.abi_encode()).await;
        assert_eq!(chain.look(&unmade, since, None).await, ChainFinding::UsedElsewhere { is_final: false }, "deployed {deployed}");
        anvil.rpc("anvil_mine", json!(["0x100"])).await;
        assert_eq!(chain.look(&unmade, since, None).await, ChainFinding::UsedElsewhere { is_final: true });
    }
}

async fn buy(anvil: &Anvil, upstream: &Upstream, buyer: Buyer, url: String, payee: Address) {
    let before = (anvil.balance(buyer.address()).await, anvil.balance(payee).await);
    let answer = tokio::task::spawn_blocking(move || buyer.buy(&url)).await.expect("it ends");
    assert_eq!(answer.status, 200, "{buyer}: {answer:?}");
    let receipt = answer.receipt.as_ref().unwrap_or_else(|| panic!("{buyer}: no receipt: {answer:?}"));
    assert!(receipt.success && anvil.succeeded(receipt.transaction).await, "{buyer}: {answer:?}");
    assert_eq!(receipt.payer, Some(buyer.address()), "{buyer}");
    let after = (anvil.balance(buyer.address()).await, anvil.balance(payee).await);
    let moved = U256::from(PRICE);
    assert_eq!((before.0 - after.0, after.1 - before.1), (moved, moved), "{buyer}");
    assert_eq!(upstream.take_seen().len(), 1, "{buyer}");
}

/// Half of [`PRICE`].
const UNIT: u64 = 500;

/// Buys something that is charged by use, after the answer.
async fn meter(anvil: &Anvil, upstream: &Upstream, buyer: Buyer, url: String, payee: Address, units: u64) {
    let before = (anvil.balance(buyer.address()).await, anvil.balance(payee).await);
    let answer = tokio::task::spawn_blocking(move || buyer.buy(&url)).await.expect("it ends");
    assert_eq!(answer.status, 200, "{buyer}: {answer:?}");
    assert_eq!(upstream.take_seen().len(), 1, "{buyer}");
    let used = U256::from(UNIT * units);
    for _ in 0..400 {
        if anvil.balance(payee).await != before.1 {
            break;
        }
        if units == 0 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let after = (anvil.balance(buyer.address()).await, anvil.balance(payee).await);
    assert_eq!((before.0 - after.0, after.1 - before.1), (used, used), "{buyer}, {units} units");
}

/// What `obol pay` reports.
fn obol_pays(stack: &Stack, path: &str, more: &[&str]) -> Value {
    let mut command = stack.command();
    command.args(["pay", &stack.url(path), "--max", "0.01", "--output", "json"]).args(more);
    let output = command.env("OBOL_PAY_KEY", Buyer::FetchV2.key()).output().expect("obol starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    told.lines()
        .find_map(|line| serde_json::from_str(line).ok())
        .or_else(|| serde_json::from_str(&told).ok())
        .unwrap_or_else(|| panic!("{told}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients_pay_a_gateway_by_permit2_and_upto_whoever_settles() {
    let anvil = Anvil::start().await;
    anvil.place_deployed_permit2().await;
    for buyer in Buyer::ALL {
        anvil.approve_permit2(buyer.address(), U256::MAX).await;
    }
    let upstream = Upstream::start().await;
    let remote = Remote::start(Maker::TypeScript, &anvil.url);
    for own in [false, true] {
        let mut stack = if own { Stack::settling(&anvil.url, GAS) } else { Stack::new() };
        let payee = forge::fresh_address();
        let url = (!own).then_some(remote.url.as_str());
        stack.sell_by("permit", &upstream.url, payee, url, &["permit2", "eip3009"]);
        stack.sell_by("metered", &upstream.url, payee, url, &["upto", "permit2"]);
        stack.up().await;
        let accepts = stack.wait_for_accepts("/services/permit", 2).await;
        assert_eq!(accepts[0]["extra"]["assetTransferMethod"], "permit2");
        let settles = if own { forge::address(GAS) } else { supported(&remote).await };
        let accepts = stack.wait_for_accepts("/services/metered", 2).await;
        assert_eq!(accepts[0]["extra"]["facilitatorAddress"], settles.to_checksum(None), "own {own}");
        upstream.take_seen();
        // v1 clients know the second way only.
        for buyer in [Buyer::FetchV2, Buyer::PythonV2, Buyer::FetchV1, Buyer::PythonV1] {
            buy(&anvil, &upstream, buyer, stack.url("/services/permit/a"), payee).await;
        }
        buy(&anvil, &upstream, Buyer::FetchV2, stack.url("/services/metered/a"), payee).await;
        for (buyer, units) in [(Buyer::FetchUpto, 1), (Buyer::PythonUpto, 2), (Buyer::FetchUpto, 0), (Buyer::PythonUpto, 1)] {
            meter(&anvil, &upstream, buyer, stack.url(&format!("/services/metered/units/{units}")), payee, units).await;
        }
        let paid = obol_pays(&stack, "/services/metered/units/1", &["--scheme", "upto", "--rpc", &anvil.url]);
        assert_eq!((&paid["paid"]["amount"], &paid["paid"]["authorised"]), (&"500".into(), &"1000".into()), "{paid}");
        let paid = obol_pays(&stack, "/services/permit/a", &[]);
        assert_eq!((&paid["paid"]["amount"], &paid["paid"]["authorised"]), (&"1000".into(), &"1000".into()), "{paid}");
        // Who settles is known at once after a restart, though nobody can be asked.
        stack.kill();
        stack.up().await;
        stack.wait_for_accepts("/services/metered", 2).await;
    }
}
