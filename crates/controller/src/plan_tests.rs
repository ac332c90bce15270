//! The plan by itself: what is known goes in, what is to be written comes out.

use std::collections::BTreeMap;

use obol_reconcile::{Site, reconcile};
use serde_json::json;

use super::*;
use crate::{
    Ingress, LeaseTimes,
    object::{Home, Reader},
    settings::Gate,
};

/// Everything that a plan is made of, to be bent by a test.
struct Known {
    settings: Settings,
    offers: Objects<ServiceOffer>,
    routes: Option<Objects<DynamicObject>>,
    grants: Option<Objects<DynamicObject>>,
}

impl Known {
    fn of(offers: &[(&str, &str, Value)]) -> Self {
        let gate = Gate {
            service: "x402-gateway".to_owned(),
            port: 8402,
            admin: "http://gate.test:9402".parse().unwrap(),
            interval: std::time::Duration::from_secs(10),
        };
        let settings = Settings {
            home: Home::default(),
            site: Site { cluster: true, ..Site::default() },
            ingress: Ingress::default(),
            gate,
            identity: "test".to_owned(),
            lease: LeaseTimes::default(),
        };
        let offers = offers.iter().map(|(namespace, name, spec)| offer(namespace, name, spec)).collect();
        Self { settings, offers, routes: Some(Objects::new()), grants: Some(Objects::new()) }
    }

    /// The writes that are due, by what they write to.
    fn plan(&self) -> BTreeMap<String, Write> {
        let read = Reader::new(self.settings.home.clone()).read(&self.offers);
        let now = OffsetDateTime::UNIX_EPOCH;
        let state = reconcile(read.values().filter_map(|read| read.slice.as_ref()), &State::default(), &self.settings.site, now);
        let world = World {
            settings: &self.settings,
            offers: &self.offers,
            read: &read,
            state: &state,
            routes: self.routes.as_ref(),
            routes_trouble: None,
            grants: self.grants.as_ref(),
            failures: &BTreeMap::new(),
            seen: Seen::default(),
        };
        plan(&world, now).into_iter().map(|write| (write.target(), write)).collect()
    }

    fn targets(&self) -> Vec<String> {
        self.plan().into_keys().collect()
    }

    /// Does what the plan says, as an API server would, until it says nothing more.
    fn settle(&mut self) {
        for _ in 0..3 {
            self.obey();
        }
        assert_eq!(self.targets(), [""; 0], "everything is as it should be");
    }

    fn obey(&mut self) {
        for write in self.plan().into_values() {
            match write {
                Write::Route(_, object) => drop(self.routes.as_mut().unwrap().insert(id(&object), Arc::new(object))),
                Write::Grant(object) => drop(self.grants.as_mut().unwrap().insert(id(&object), Arc::new(object))),
                Write::DeleteRoute(id, _) => drop(self.routes.as_mut().unwrap().remove(&id)),
                Write::DeleteGrant(id, _) => drop(self.grants.as_mut().unwrap().remove(&id)),
                Write::Status(id, write) => Arc::make_mut(self.offers.get_mut(&id).unwrap()).status = write.status,
            }
        }
    }
}

fn good() -> Value {
    let price = json!({ "perRequest": "0.001" });
    json!({
        "type": "http",
        "upstream": { "url": "http://10.0.0.7:9000" },
        "payment": { "network": "base-sepolia", "payTo": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC", "price": price },
    })
}

fn offer(namespace: &str, name: &str, spec: &Value) -> (Id, Arc<ServiceOffer>) {
    let object = json!({
        "metadata": { "namespace": namespace, "name": name, "uid": format!("uid-{namespace}-{name}"), "generation": 1 },
        "spec": spec,
    });
    ((namespace.to_owned(), name.to_owned()), Arc::new(serde_json::from_value(object).unwrap()))
}

const HOME: &str = "obol-offers";

#[test]
fn an_offer_gets_route_grant_and_status_and_then_nothing_is_written() {
    let mut known = Known::of(&[(HOME, "weather", good())]);
    let expected = ["apply grant obol-offers-to-gateway", "apply route obol-offers/weather", "status obol-offers/weather"];
    assert_eq!(known.targets(), expected);
    known.settle();
}

#[test]
fn nothing_is_made_or_deleted_of_a_kind_that_was_not_listed_yet() {
    let mut known = Known::of(&[(HOME, "weather", good())]);
    (known.routes, known.grants) = (None, None);
    assert_eq!(known.targets(), ["status obol-offers/weather"]);
}

#[test]
fn what_is_no_offer_any_more_loses_route_and_grant_and_others_keep_theirs() {
    let mut known = Known::of(&[(HOME, "weather", good()), ("team", "maps", good())]);
    known.settle();
    let foreign = DynamicObject::new("so-theirs", &build::routes()).within(HOME).data(json!({ "spec": {} }));
    known.routes.as_mut().unwrap().insert(id(&foreign), Arc::new(foreign));
    known.offers.remove(&("team".to_owned(), "maps".to_owned()));
    assert_eq!(known.targets(), ["apply grant obol-offers-to-gateway", "delete route team/so-maps"]);
    known.offers.clear();
    let all = ["delete grant obol-offers-to-gateway", "delete route obol-offers/so-weather", "delete route team/so-maps"];
    assert_eq!(known.targets(), all, "a route that we did not make stays");
}

#[test]
fn a_spec_that_nobody_can_read_leaves_the_route_of_the_one_before() {
    let mut known = Known::of(&[(HOME, "weather", good())]);
    known.settle();
    let (id, mut broken) = offer(HOME, "weather", &json!({ "type": "http", "upstream": { "url": "ftp://x" } }));
    Arc::make_mut(&mut broken).metadata.generation = Some(2);
    known.offers.insert(id, broken);
    assert_eq!(known.targets(), ["status obol-offers/weather"]);
}

#[test]
fn what_somebody_changed_is_put_right_by_one_write() {
    let mut known = Known::of(&[(HOME, "weather", good())]);
    known.settle();
    let route = known.routes.as_mut().unwrap().values_mut().next().unwrap();
    Arc::make_mut(route).data["spec"]["rules"][0]["backendRefs"][0]["port"] = json!(1);
    assert_eq!(known.targets(), ["apply route obol-offers/weather"]);
    let (wrong, plan) = (known.plan(), known.plan());
    let digests = |plan: &BTreeMap<String, Write>| plan.values().map(Write::digest).collect::<Vec<_>>();
    assert_eq!(digests(&wrong), digests(&plan), "the same write is known again");
}

#[test]
fn an_event_is_told_when_ready_changes_and_not_when_its_words_do() {
    let ready = |status: &str, reason: &str, message: &str| json!({ "conditions": [{ "type": "Ready", "status": status, "reason": reason, "message": message }] });
    let before = ready("False", "Unhealthy", "503 of the upstream");
    assert_eq!(notice(&before, &ready("False", "Unhealthy", "504 of the upstream")), None);
    assert_eq!(notice(&Value::Null, &ready("Unknown", "NotProbed", "")), None, "nothing is known of a new offer");
    assert!(notice(&before, &ready("True", "Ready", "")).is_some_and(|notice| notice.is_good && notice.reason == "Ready"));
    assert!(notice(&before, &ready("False", "Drained", "")).is_some_and(|notice| !notice.is_good && notice.reason == "Drained"));
}
