//! Where buyers come into a cluster, as far as its objects tell, and what a person has to do besides.

use k8s_openapi::api::core::v1::Service;
use kube::api::DynamicObject;

/// A URL, and a hint.
type Entrance = (Option<String>, Option<String>);

/// Through the Service before our Traefik.
pub(super) fn of_service(service: &Service) -> Entrance {
    let spec = service.spec.clone().unwrap_or_default();
    let port = spec.ports.iter().flatten().find(|port| port.name.as_deref() == Some("web"));
    let number = port.map_or(80, |port| port.port);
    let url = |host: &str, port: i32| {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        if port == 80 { format!("http://{host}/") } else { format!("http://{host}:{port}/") }
    };
    match spec.type_.as_deref() {
        Some("LoadBalancer") => {
            let given = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let given = given.and_then(|balancer| balancer.ingress.as_ref()?.first());
            match given.and_then(|given| given.ip.clone().or_else(|| given.hostname.clone())) {
                Some(host) => (Some(url(&host, number)), None),
                None => {
                    let hint = "the Service traefik/traefik waits for an address of a load balancer; a cluster without one needs \
                                `service: {type: NodePort}` in infrastructure/values-traefik.yaml";
                    (None, Some(hint.to_owned()))
                }
            }
        }
        Some("NodePort") => {
            let node_port = port.and_then(|port| port.node_port).unwrap_or_default();
            let hint =
                format!("port {node_port} of every node leads to the shop; write `publicUrl: http://NODE:{node_port}` in stack.yaml");
            (None, Some(hint))
        }
        _ => {
            let hint = format!(
                "this address is good inside the cluster alone: put a tunnel or a proxy before it and write `publicUrl` in stack.yaml, or \
                 type `kubectl --namespace traefik port-forward service/traefik 8402:{number}` to try it from here"
            );
            (spec.cluster_ip.filter(|address| address != "None").map(|address| url(&address, number)), Some(hint))
        }
    }
}

/// Through a Gateway of one's own.
pub(super) fn of_gateway(gateway: Option<&DynamicObject>, namespace: &str, name: &str) -> Entrance {
    let Some(gateway) = gateway else {
        return (None, Some(format!("the Gateway {namespace}/{name} of stack.yaml is not in the cluster")));
    };
    match gateway.data.pointer("/status/addresses/0/value").and_then(|value| value.as_str()) {
        Some(address) => (Some(format!("http://{address}/")), None),
        None => {
            let hint =
                format!("the Gateway {namespace}/{name} has no address; write `publicUrl` in stack.yaml where buyers find it elsewhere");
            (None, Some(hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value, status: Value) -> Entrance {
        of_service(&serde_json::from_value(json!({ "spec": spec, "status": status })).unwrap())
    }

    #[test]
    fn buyers_are_sent_where_they_can_go_and_sellers_told_what_is_missing() {
        let ports = json!([{ "name": "web", "port": 8080, "nodePort": 30080 }]);
        let balanced = json!({ "loadBalancer": { "ingress": [{ "ip": "2001:db8::1" }] } });
        let told = |entrance: Entrance| format!("{}\n{}", entrance.0.unwrap_or_default(), entrance.1.unwrap_or_default());
        let all = [
            service(json!({ "type": "LoadBalancer", "ports": ports }), balanced),
            service(json!({ "type": "LoadBalancer", "ports": ports }), json!({})),
            service(json!({ "type": "NodePort", "ports": ports }), json!({})),
            service(json!({ "type": "ClusterIP", "clusterIP": "10.96.0.9", "ports": [{ "name": "web", "port": 80 }] }), json!({})),
            of_gateway(None, "edge", "public"),
            of_gateway(Some(&gateway(json!({ "addresses": [{ "value": "192.0.2.7" }] }))), "edge", "public"),
            of_gateway(Some(&gateway(json!({}))), "edge", "public"),
        ];
        insta::assert_snapshot!(all.map(told).join("\n"));
    }

    fn gateway(status: Value) -> DynamicObject {
        let object = json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {}, "status": status });
        serde_json::from_value(object).unwrap()
    }
}
