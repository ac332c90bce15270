//! Facilitators behind real sockets that fail and lie.

use std::time::Duration;

use obol_settle::{Captured, Cashier, CashierConfig, PaymentPermit, Refusal, Secret};
use obol_x402::{LocalCheck, MatchedPayment};

use crate::support::*;

async fn admit(cashier: &Cashier, n: u64, remotes: &[&Remote]) -> Result<PaymentPermit, Refusal> {
    let urls: Vec<_> = remotes.iter().map(|remote| remote.url.clone()).collect();
    cashier.admit(&offer(), payment(n), &urls, REQUEST).await
}

async fn capture(settle: Vec<Does>) -> (Captured, Remote, Cashier, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let remote = Remote::start([valid()], settle).await;
    let cashier = Cashier::open(CashierConfig { settle_timeout: Duration::from_secs(2), ..config(dir.path()) }).await.unwrap();
    let captured = admit(&cashier, 1, &[&remote]).await.unwrap().capture().await;
    (captured, remote, cashier, dir)
}

#[tokio::test]
async fn e2e_a_payment_is_verified_and_settled_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let remote = Remote::start([valid()], [success()]).await;
    let credentials = vec![(remote.url.clone(), Secret::new("Bearer hunter2"))];
    let cashier = Cashier::open(CashierConfig { credentials, ..config(dir.path()) }).await.unwrap();
    let Captured::Settled(paid, delivery) = admit(&cashier, 1, &[&remote]).await.unwrap().capture().await else { panic!() };
    delivery.complete();
    assert_eq!(paid, receipt());
    let requests = remote.requests.lock().unwrap().clone();
    assert_eq!(requests.iter().map(|(path, ..)| path.as_str()).collect::<Vec<_>>(), ["/base/verify", "/base/settle"]);
    for (path, head, body) in &requests {
        assert_eq!(body.as_bytes(), payment(1).facilitator_body, "{path}");
        assert!(head.to_ascii_lowercase().contains("authorization: bearer hunter2"), "{path}");
    }
    let health = cashier.facilitators();
    assert_eq!((health.len(), health[0].healthy), (1, true));
    assert_eq!(health[0].id, remote.url.as_str().trim_end_matches('/'));
}

#[tokio::test]
async fn hostile_success_false_with_200_is_a_refusal() {
    let (captured, ..) = capture(vec![says(200, r#"{"success":false,"errorReason":"insufficient_funds","transaction":""}"#)]).await;
    assert!(matches!(captured, Captured::Refused { reason } if reason == "insufficient_funds"));
}

#[tokio::test]
async fn hostile_answers_to_settle_are_unknown_and_never_a_402() {
    let other_payer = r#"{"success":true,"payer":"0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC","transaction":"0xabc"}"#;
    let cases = [
        ("500 after settling", says(500, "Internal Server Error")),
        ("time-out after settling", Does::Stays),
        ("hangs up after settling", Does::HangsUp),
        ("garbage", says(200, "<html>paid!</html>")),
        ("enormous body", Does::Floods),
        ("another payer", says(200, other_payer)),
        ("hash with failure", says(200, r#"{"success":false,"errorReason":"reverted","transaction":"0xabc"}"#)),
    ];
    for (name, does) in cases {
        let (captured, remote, cashier, _dir) = capture(vec![does]).await;
        assert!(matches!(captured, Captured::Unsettled { .. }), "{name}: {captured:?}");
        assert_eq!(remote.count("/base/settle"), 1, "{name}");
        assert!(matches!(admit(&cashier, 1, &[&remote]).await, Err(Refusal::Unsettled { .. })), "{name}: the same payment");
        assert!(matches!(admit(&cashier, 2, &[&remote]).await, Err(Refusal::Unsettled { .. })), "{name}: a second payment");
    }
}

#[tokio::test]
async fn e2e_pending_then_success_is_settled() {
    let pending = says(200, r#"{"success":false,"errorReason":"settlement_pending","transaction":"0xabc"}"#);
    let (captured, remote, ..) = capture(vec![pending, success()]).await;
    assert!(matches!(captured, Captured::Settled(..)));
    let requests = remote.requests.lock().unwrap();
    assert_eq!(requests[1].2, requests[2].2, "the identical settle");
}

#[tokio::test]
async fn hostile_settle_that_was_turned_away_moved_nothing() {
    let (captured, remote, cashier, _dir) = capture(vec![says(429, "slow down"), success()]).await;
    assert!(matches!(captured, Captured::NotAsked));
    cashier.drain().await;
    assert!(matches!(admit(&cashier, 1, &[&remote]).await.unwrap().capture().await, Captured::Settled(..)));
}

#[tokio::test]
async fn e2e_a_time_out_after_settling_is_resolved_by_asking_again() {
    let dir = tempfile::tempdir().unwrap();
    let remote = Remote::start([valid()], [Does::HangsUp, says(502, ""), success()]).await;
    let cashier = Cashier::open(CashierConfig { recovery: SOON, ..config(dir.path()) }).await.unwrap();
    assert!(matches!(admit(&cashier, 1, &[&remote]).await.unwrap().capture().await, Captured::Unsettled { .. }));
    until("resolved", async || cashier.stats().unknown_now == 0).await;
    assert_eq!(admit(&cashier, 1, &[&remote]).await.unwrap_err(), Refusal::AlreadyUsed(receipt()));
    assert_eq!(remote.count("/base/verify"), 1);
}

#[tokio::test]
async fn verify_goes_down_the_list_and_settle_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let cashier = Cashier::open(config(dir.path())).await.unwrap();
    let dead = Remote { url: "http://127.0.0.1:1/".parse().unwrap(), ..Remote::start([], []).await };
    let broken = Remote::start([says(500, "oops")], [success()]).await;
    let good = Remote::start([valid()], [says(503, "")]).await;
    let permit = admit(&cashier, 1, &[&dead, &broken, &good]).await.unwrap();
    assert!(matches!(permit.capture().await, Captured::Unsettled { .. }));
    assert_eq!((broken.count("/base/settle"), good.count("/base/settle")), (0, 1), "who verified settles");

    let no = Remote::start([says(200, r#"{"isValid":false,"invalidReason":"insufficient_funds"}"#)], []).await;
    let refused = cashier.admit(&offer(), payment(2), &[no.url.clone(), good.url.clone()], [1; 32]).await;
    assert_eq!(refused.unwrap_err(), Refusal::Invalid { reason: "insufficient_funds".into() }, "a refusal is an answer");
    assert_eq!(good.count("/base/verify"), 1);
}

#[tokio::test]
async fn a_dead_facilitator_is_left_alone_after_three_failures() {
    let dir = tempfile::tempdir().unwrap();
    let cashier = Cashier::open(config(dir.path())).await.unwrap();
    let broken = Remote::start([says(500, "oops")], []).await;
    for n in 0..6 {
        assert_eq!(admit(&cashier, n, &[&broken]).await.unwrap_err(), Refusal::FacilitatorUnavailable);
    }
    assert_eq!(broken.count("/base/verify"), 3);
    assert!(!cashier.facilitators()[0].healthy);
}

#[tokio::test]
async fn a_308_to_loopback_keeps_method_and_body() {
    let dir = tempfile::tempdir().unwrap();
    let cashier = Cashier::open(config(dir.path())).await.unwrap();
    let real = Remote::start([valid()], [success()]).await;
    let moved = Remote::start([Does::Sends(real.url.to_string())], [Does::Sends(real.url.to_string())]).await;
    assert!(matches!(admit(&cashier, 1, &[&moved]).await.unwrap().capture().await, Captured::Settled(..)));
    assert!(real.requests.lock().unwrap().iter().all(|(_, _, body)| body.as_bytes() == payment(1).facilitator_body));

    // Plain HTTP to somewhere else is not followed: that would show a signed payment to the network.
    let away = Remote::start([valid()], [Does::Sends("http://192.0.2.1/".to_owned())]).await;
    let permit = cashier.admit(&offer(), payment(2), std::slice::from_ref(&away.url), [1; 32]).await.unwrap();
    assert!(matches!(permit.capture().await, Captured::NotAsked));
}

#[tokio::test]
async fn hostile_verify_without_a_payer_is_no_answer_for_a_smart_wallet() {
    let dir = tempfile::tempdir().unwrap();
    let cashier = Cashier::open(config(dir.path())).await.unwrap();
    let silent = Remote::start([says(200, r#"{"isValid":true}"#)], [success()]).await;
    let wallet = MatchedPayment { local_check: LocalCheck::Undecided, ..payment(1) };
    let refused = cashier.admit(&offer(), wallet, std::slice::from_ref(&silent.url), REQUEST).await;
    assert_eq!(refused.unwrap_err(), Refusal::FacilitatorUnavailable);
    assert!(admit(&cashier, 1, &[&silent]).await.is_ok());
}

#[tokio::test]
async fn hostile_a_second_answer_is_not_taken_for_the_next_request() {
    let dir = tempfile::tempdir().unwrap();
    let cashier = Cashier::open(config(dir.path())).await.unwrap();
    let Does::Says(_, valid) = valid() else { panic!() };
    let Does::Says(_, success) = success() else { panic!() };
    let refused = says(200, r#"{"success":false,"errorReason":"insufficient_funds"}"#);
    let twice = Remote::start([Does::SaysTwice(valid, success)], [refused]).await;
    let captured = admit(&cashier, 1, &[&twice]).await.unwrap().capture().await;
    assert!(matches!(captured, Captured::Refused { .. }), "{captured:?}");
    assert_eq!(twice.count("/base/settle"), 1);
}

#[tokio::test]
async fn what_facilitators_support_orders_them_and_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let other = Remote::start([valid()], [success()]).await;
    *other.supported.lock().unwrap() = Some(r#"{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:1"}]}"#.to_owned());
    let silent = Remote::start([valid()], [success()]).await;
    let kinds = |cashier: &Cashier| cashier.facilitators().iter().find(|f| other.url.as_str().starts_with(&f.id)).and_then(|f| f.kinds);

    let cashier = Cashier::open(config(dir.path())).await.unwrap();
    cashier.watch_facilitators(std::slice::from_ref(&other.url));
    until("known", async || kinds(&cashier) == Some(1)).await;
    assert!(admit(&cashier, 1, &[&other, &silent]).await.is_ok());
    assert_eq!((other.count("/base/verify"), silent.count("/base/verify")), (0, 1));
    until("kept", async || dir.path().join("journal.supported.json").exists()).await;

    *other.supported.lock().unwrap() = None;
    drop(cashier);
    let cashier = Cashier::open(config(dir.path())).await.unwrap();
    cashier.watch_facilitators(std::slice::from_ref(&other.url));
    assert_eq!(kinds(&cashier), Some(1), "from disk, before it is asked");
    // It is still asked when nobody else is there: what it says is a preference, not a ban.
    assert!(admit(&cashier, 2, &[&other]).await.is_ok());
}
