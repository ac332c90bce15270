//! A controller that dies between any two calls: the next one finishes its work, and then leaves things alone.

use std::time::Duration;

use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::world::{Calls, World};

const HOME: &str = "obol-offers";

/// Two offers to publish, one of another namespace, and the route of an offer that is no more.
async fn prepare(world: &World) {
    world.offer(HOME, "alpha", |_| ()).await;
    world.offer(HOME, "beta", |spec| spec["hostname"] = json!("beta.example")).await;
    world.offer("team-a", "alpha", |spec| spec["path"] = json!("/services/gamma")).await;
    let orphan = json!({
        "metadata": { "name": "so-gone", "labels": { "app.kubernetes.io/managed-by": "obol-controller", "obol.org/offer": "gone" } },
        "spec": { "parentRefs": [{ "name": "traefik-gateway", "namespace": "traefik" }] }
    });
    world.server.create(&obol_controller::routes(), Some(HOME), &orphan).await.unwrap();
}

async fn clear(world: &World) {
    let all = ListParams::default();
    for namespace in [HOME, "team-a"] {
        world.offers(namespace).delete_collection(&DeleteParams::default(), &all).await.unwrap();
        world.routes_of(namespace).delete_collection(&DeleteParams::default(), &all).await.unwrap();
    }
    grants(world).delete_collection(&DeleteParams::default(), &all).await.unwrap();
    forget_lease(world).await;
}

/// Instead of waiting for it to run out.
async fn forget_lease(world: &World) {
    let leases: kube::Api<k8s_openapi::api::coordination::v1::Lease> = kube::Api::namespaced(world.server.admin(), "x402");
    let _ = leases.delete("obol-controller", &DeleteParams::default()).await;
}

fn grants(world: &World) -> kube::Api<kube::api::DynamicObject> {
    kube::Api::namespaced_with(world.server.admin(), "x402", &obol_controller::grants())
}

/// Waits until everything is as it should be.
async fn converge(world: &World) {
    for (namespace, name) in [(HOME, "alpha"), (HOME, "beta"), ("team-a", "alpha")] {
        world.until_ready(namespace, name).await;
    }
    for _ in 0..200 {
        if world.routes(HOME).await.len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.routes(HOME).await, ["so-alpha", "so-beta"]);
    assert_eq!(world.routes("team-a").await, ["so-alpha"]);
    let grants = grants(world).list(&ListParams::default()).await.unwrap().items;
    let from: Vec<usize> = grants.iter().map(|grant| grant.data["spec"]["from"].as_array().unwrap().len()).collect();
    assert_eq!(from, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_converges_after_a_crash_between_any_two_calls() {
    let world = World::start().await;
    // How many calls a whole run takes.
    prepare(&world).await;
    let calls = Calls::default();
    let running = world.run(&calls, "whole");
    converge(&world).await;
    let whole = calls.all();
    running.end().await;
    assert!(whole > 10, "{whole}");

    let mut crashes = 0;
    for last in 1..=whole {
        for reaches in [false, true] {
            clear(&world).await;
            prepare(&world).await;
            let calls = Calls::ending_at(last, reaches);
            let doomed = world.run(&calls, "doomed");
            // A run may take fewer calls than the first one did: then there is nothing left to interrupt.
            crashes += u32::from(tokio::time::timeout(Duration::from_secs(3), calls.crashed()).await.is_ok());
            drop(doomed);
            forget_lease(&world).await;

            let calls = Calls::default();
            let running = world.run(&calls, "next");
            converge(&world).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
            let written = calls.writes();
            tokio::time::sleep(Duration::from_millis(400)).await;
            assert_eq!(calls.writes(), written, "writes at rest after a crash at call {last} (reaches: {reaches})");
            running.end().await;
        }
    }
    println!("{crashes} crashes over {whole} calls");
    assert!(u64::from(crashes) >= whole, "{crashes}");
}
