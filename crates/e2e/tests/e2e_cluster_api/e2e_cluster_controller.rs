//! What the controller makes of offers.

use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::{
    apiserver::resource,
    world::{Calls, PAY_TO, World, condition},
};

const HOME: &str = "obol-offers";

#[tokio::test(flavor = "multi_thread")]
async fn offers_become_reachable_and_a_stack_at_rest_is_left_alone() {
    let world = World::start().await;
    let calls = Calls::default();
    let running = world.run(&calls, "one");
    world.offer(HOME, "weather", |_| ()).await;
    world.offer("team-a", "weather", |spec| spec["path"] = json!("/services/team-weather")).await;
    world.until_ready(HOME, "weather").await;
    world.until_ready("team-a", "weather").await;

    let status = world.status(HOME, "weather").await;
    let kinds: Vec<String> = ["ModelReady", "UpstreamHealthy", "Draining", "PaymentGateReady", "RoutePublished", "Registered", "Ready"]
        .iter()
        .map(|kind| condition(&status, kind))
        .collect();
    let expected =
        ["True/Skipped", "True/Healthy", "False/Active", "True/Reconciled", "True/Reconciled", "True/Reconciled", "True/Reconciled"];
    assert_eq!(kinds, expected);
    let order: Vec<&str> = status["conditions"].as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect();
    assert_eq!(order.last(), Some(&"Ready"));
    assert_eq!(
        (&status["endpoint"], &status["price"], &status["network"]),
        (&json!("/services/weather"), &json!("0.001 USDC"), &json!("base-sepolia"))
    );
    assert_eq!(status["observedGeneration"], 1);

    let route = world.routes_of(HOME).get("so-weather").await.unwrap();
    assert_eq!(route.data["spec"]["rules"][0]["matches"][0]["path"], json!({ "type": "PathPrefix", "value": "/services/weather" }));
    assert_eq!(route.data["spec"]["rules"][0]["backendRefs"][0]["name"], "x402-gateway");
    let owner = &route.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.controller), ("ServiceOffer", "weather", Some(true)));
    let managers: Vec<_> = route.metadata.managed_fields.iter().flatten().filter_map(|m| m.manager.as_deref()).collect();
    assert!(managers.contains(&"obol-controller"), "{managers:?}");

    let grants: kube::Api<kube::api::DynamicObject> = kube::Api::namespaced_with(world.server.admin(), "x402", &obol_controller::grants());
    let all = grants.list(&Default::default()).await.unwrap().items;
    assert_eq!(all.len(), 1);
    let from: Vec<&str> = all[0].data["spec"]["from"].as_array().unwrap().iter().map(|f| f["namespace"].as_str().unwrap()).collect();
    assert_eq!((all[0].metadata.name.as_deref(), from), (Some("obol-offers-to-gateway"), vec![HOME, "team-a"]));

    // At rest: probes, questions to the gateway and the lease go on, and nothing is written.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = (calls.writes(), world.offers(HOME).get("weather").await.unwrap().metadata.resource_version);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(before, (calls.writes(), world.offers(HOME).get("weather").await.unwrap().metadata.resource_version));

    // What was changed by others is put right; what was added by others is theirs.
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { "a": "b" } }, "spec": { "hostnames": ["evil.example"] } }));
    world.routes_of(HOME).patch("so-weather", &PatchParams::default(), &patch).await.unwrap();
    for _ in 0..200 {
        let route = world.routes_of(HOME).get("so-weather").await.unwrap();
        if route.data["spec"].get("hostnames").is_none_or(|hosts| hosts == &json!([])) {
            assert_eq!(route.metadata.annotations.unwrap()["a"], "b");
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    world.offers(HOME).delete("weather", &DeleteParams::default()).await.unwrap();
    for _ in 0..200 {
        if world.routes(HOME).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((world.routes(HOME).await.len(), world.routes("team-a").await.len()), (0, 1));
    running.end().await;
    let events = resource("events.k8s.io", "v1", "Event", "events");
    let events: kube::Api<kube::api::DynamicObject> = kube::Api::namespaced_with(world.server.admin(), "team-a", &events);
    let events = events.list(&Default::default()).await.unwrap().items;
    assert!(events.iter().any(|event| event.data["reason"] == "Ready" && event.data["regarding"]["name"] == "weather"), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_offer_never_stops_the_others() {
    let world = World::start().await;
    // Too late for the API server's rules, early enough for ours.
    world.offer(HOME, "mistyped", |spec| spec["payment"]["payTo"] = json!(PAY_TO.replace("3C44C", "3c44C"))).await;
    world.offer(HOME, "sandboxed", |spec| spec["payment"]["network"] = json!("obol-sandbox")).await;
    world.offer(HOME, "sick", |spec| spec["upstream"]["url"] = json!("http://127.0.0.1:1")).await;
    world.offer(HOME, "first", |spec| spec["path"] = json!("/services/shared")).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.offer(HOME, "a-second", |spec| spec["path"] = json!("/services/shared")).await;
    world.offer("team-a", "hosted", |spec| spec["hostname"] = json!("shop.example")).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world
        .offer(HOME, "hosted-too", |spec| {
            spec["hostname"] = json!("shop.example");
            spec["path"] = json!("/services/hosted");
        })
        .await;
    // Somebody else's route by the name that ours would have.
    let foreign = json!({ "metadata": { "name": "so-taken" }, "spec": { "parentRefs": [{ "name": "other" }] } });
    world.server.create(&obol_controller::routes(), Some(HOME), &foreign).await.unwrap();
    world.offer(HOME, "taken", |_| ()).await;
    world.offer(HOME, "good", |_| ()).await;

    let running = world.run(&Calls::default(), "one");
    world.until_ready(HOME, "good").await;
    world.until_ready(HOME, "first").await;
    world.until_ready("team-a", "hosted").await;
    world.until(HOME, "mistyped", "Ready", "False/InvalidSpec").await;
    world.until(HOME, "sandboxed", "Ready", "False/SandboxNeedsLoopback").await;
    world.until(HOME, "sick", "UpstreamHealthy", "False/Unhealthy").await;
    world.until(HOME, "a-second", "RoutePublished", "False/PathConflict").await;
    world.until(HOME, "hosted-too", "RoutePublished", "False/HostnameConflict").await;
    world.until(HOME, "taken", "RoutePublished", "False/ApplyFailed").await;
    let foreign = world.routes_of(HOME).get("so-taken").await.unwrap();
    assert_eq!((&foreign.data["spec"]["parentRefs"][0]["name"], foreign.metadata.labels), (&json!("other"), None));
    let routes = world.routes(HOME).await;
    assert_eq!(routes, ["so-first", "so-good", "so-sick", "so-taken"]);

    // The older one goes, the newer gets its place.
    world.offers(HOME).delete("first", &DeleteParams::default()).await.unwrap();
    world.until_ready(HOME, "a-second").await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_offer_is_served_until_its_grace_ends() {
    let world = World::start().await;
    let running = world.run(&Calls::default(), "one");
    world.offer(HOME, "weather", |_| ()).await;
    world.until_ready(HOME, "weather").await;
    let now = time::OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    let now = now.format(&time::format_description::well_known::Rfc3339).unwrap();
    world.edit(HOME, "weather", json!({ "drainAt": now, "drainGracePeriod": "4s" })).await;
    world.until(HOME, "weather", "Draining", "True/Draining").await;
    assert_eq!(world.routes(HOME).await, ["so-weather"]);
    world.until(HOME, "weather", "Draining", "False/Drained").await;
    world.until(HOME, "weather", "Ready", "False/Drained").await;
    for _ in 0..100 {
        if world.routes(HOME).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.routes(HOME).await, Vec::<String>::new());
    world.edit(HOME, "weather", json!({ "drainAt": null })).await;
    world.until_ready(HOME, "weather").await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_controller_writes_and_another_takes_over() {
    let world = World::start().await;
    let (first, second) = (Calls::default(), Calls::default());
    let one = world.run(&first, "one");
    world.offer(HOME, "weather", |_| ()).await;
    world.until_ready(HOME, "weather").await;
    let two = world.run(&second, "two");
    tokio::time::sleep(Duration::from_millis(800)).await;
    world.edit(HOME, "weather", json!({ "path": "/elsewhere" })).await;
    world.until(HOME, "weather", "Ready", "True/Reconciled").await;
    assert_eq!(second.writes(), 0);
    // Killed, not ended: the lease has to run out.
    drop(one);
    world.edit(HOME, "weather", json!({ "path": "/once-more" })).await;
    for _ in 0..300 {
        if world.status(HOME, "weather").await["endpoint"] == "/once-more" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.until_ready(HOME, "weather").await;
    assert!(second.writes() > 0);
    two.end().await;
}
