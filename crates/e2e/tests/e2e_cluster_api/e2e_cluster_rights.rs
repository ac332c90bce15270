//! What the programs of a cluster may do, as their chart says, and what they may not.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, api::PostParams};
use serde_json::Value;

use crate::apiserver::{ApiServer, resource};

/// The chart's rules with the one value filled in that they use; helm itself renders them elsewhere.
fn rules() -> Vec<Value> {
    let file = obol_e2e::repository().join("charts/obol/templates/rbac.yaml");
    let text = std::fs::read_to_string(file).unwrap().replace("{{ .Release.Namespace | quote }}", "x402");
    let plain: Vec<&str> = text.lines().filter(|line| !line.contains("{{") && line.trim() != "labels:").collect();
    plain.join("\n").split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

async fn may(server: &ApiServer, token: &str, what: (&str, &str, &str, &str, &str)) -> bool {
    let (verb, group, kind, namespace, name) = what;
    let (plural, subresource) = kind.split_once('/').map_or((kind, None), |(plural, sub)| (plural, Some(sub.to_owned())));
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let attributes = ResourceAttributes {
        verb: text(verb),
        group: text(group),
        resource: text(plural),
        subresource,
        namespace: text(namespace),
        name: text(name),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..Default::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(server.client(token));
    api.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

#[tokio::test(flavor = "multi_thread")]
async fn each_program_may_do_its_work_and_no_more() {
    let server = ApiServer::start().await;
    for object in rules() {
        let kind = object["kind"].as_str().unwrap();
        let (group, plural) = match kind {
            "ServiceAccount" => ("", "serviceaccounts"),
            "ClusterRole" => ("rbac.authorization.k8s.io", "clusterroles"),
            "ClusterRoleBinding" => ("rbac.authorization.k8s.io", "clusterrolebindings"),
            "Role" => ("rbac.authorization.k8s.io", "roles"),
            "RoleBinding" => ("rbac.authorization.k8s.io", "rolebindings"),
            other => panic!("{other}"),
        };
        let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
        server.create(&resource(group, "v1", kind, plural), namespace.as_deref(), &object).await.unwrap();
    }
    const OBOL: &str = "obol.org";
    const ROUTES: &str = "gateway.networking.k8s.io";
    const LEASES: &str = "coordination.k8s.io";
    let controller = [
        (true, ("list", OBOL, "serviceoffers", "", "")),
        (true, ("watch", OBOL, "serviceoffers", "", "")),
        (true, ("patch", OBOL, "serviceoffers/status", "team-a", "")),
        (true, ("create", ROUTES, "httproutes", "team-a", "")),
        (true, ("patch", ROUTES, "httproutes", "team-a", "")),
        (true, ("delete", ROUTES, "httproutes", "team-a", "")),
        (true, ("watch", ROUTES, "referencegrants", "", "")),
        (true, ("patch", ROUTES, "referencegrants", "x402", "")),
        (true, ("create", LEASES, "leases", "x402", "")),
        (true, ("update", LEASES, "leases", "x402", "obol-controller")),
        (true, ("create", "events.k8s.io", "events", "team-a", "")),
        (false, ("patch", OBOL, "serviceoffers", "obol-offers", "")),
        (false, ("create", OBOL, "serviceoffers", "obol-offers", "")),
        (false, ("delete", OBOL, "serviceoffers", "obol-offers", "")),
        (false, ("patch", ROUTES, "referencegrants", "team-a", "")),
        (false, ("deletecollection", ROUTES, "httproutes", "", "")),
        (false, ("update", LEASES, "leases", "x402", "another")),
        (false, ("update", LEASES, "leases", "kube-system", "obol-controller")),
        (false, ("get", "", "secrets", "x402", "obol-gate")),
        (false, ("list", "", "secrets", "", "")),
        (false, ("list", "", "pods", "x402", "")),
        (false, ("create", "apps", "deployments", "obol-offers", "")),
        (false, ("patch", ROUTES, "gateways", "traefik", "traefik-gateway")),
    ];
    let gateway = [
        (true, ("list", OBOL, "serviceoffers", "", "")),
        (true, ("watch", OBOL, "serviceoffers", "", "")),
        (false, ("patch", OBOL, "serviceoffers/status", "obol-offers", "")),
        (false, ("patch", OBOL, "serviceoffers", "obol-offers", "")),
        (false, ("list", ROUTES, "httproutes", "", "")),
        (false, ("get", LEASES, "leases", "x402", "obol-controller")),
        (false, ("get", "", "secrets", "x402", "obol-gate")),
        (false, ("create", "events.k8s.io", "events", "x402", "")),
    ];
    let matrix = controller.into_iter().map(|row| ("controller-token", row)).chain(gateway.into_iter().map(|row| ("gateway-token", row)));
    for (token, (wanted, what)) in matrix {
        assert_eq!(may(&server, token, what).await, wanted, "{token}: {what:?}");
    }
}
