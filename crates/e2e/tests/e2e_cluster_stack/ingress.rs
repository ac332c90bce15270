//! Somebody else's Traefik, which was there before obol and stays.

use std::time::Duration;

use obol_e2e::buyers::Buyer;

use crate::shop::Shop;

/// A Traefik of its own, with its GatewayClass and Gateway, as a platform team would keep it.
const EDGE: &str = "\
apiVersion: v1
kind: Namespace
metadata: { name: edge }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: edge, namespace: edge }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: edge }
rules:
  - { apiGroups: [''], resources: [namespaces, services, secrets, configmaps], verbs: [get, list, watch] }
  - { apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch] }
  - { apiGroups: [gateway.networking.k8s.io], resources: ['*'], verbs: [get, list, watch, update] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: edge }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edge }
subjects: [{ kind: ServiceAccount, name: edge, namespace: edge }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: { name: edge, labels: { class: edge } }
spec: { controllerName: traefik.io/gateway-controller }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: front, namespace: edge }
spec:
  gatewayClassName: edge
  listeners: [{ name: public, protocol: HTTP, port: 8000, allowedRoutes: { namespaces: { from: All } } }]
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: front, namespace: edge, labels: { app.kubernetes.io/name: traefik } }
spec:
  selector: { matchLabels: { app: front } }
  template:
    metadata: { labels: { app: front } }
    spec:
      serviceAccountName: edge
      containers:
        - name: traefik
          image: obol.test/traefik:1
          args:
            - --global.checknewversion=false
            - --entrypoints.web.address=:8000/tcp
            - --ping=true
            - --providers.kubernetesgateway=true
            - --providers.kubernetesgateway.labelselector=class=edge
          readinessProbe: { httpGet: { path: /ping, port: 8080 }, periodSeconds: 1 }
          volumeMounts: [{ name: tmp, mountPath: /tmp }]
      volumes: [{ name: tmp, emptyDir: {} }]
---
apiVersion: v1
kind: Service
metadata: { name: front, namespace: edge }
spec:
  selector: { app: front }
  ports: [{ name: http, port: 80, targetPort: 8000 }]
";

/// What is another's here, for the test that nothing of it is touched.
pub const THEIRS: [(&str, &str); 5] = [
    ("deployment/front", "edge"),
    ("service/front", "edge"),
    ("gateway/front", "edge"),
    ("gatewayclass/edge", "edge"),
    ("clusterrole/edge", "edge"),
];

/// With `weather` on sale behind our Traefik: names theirs in `stack.yaml`, and sells through it.
pub async fn of_their_own(shop: &mut Shop) {
    shop.cluster.apply(EDGE);
    shop.cluster.wait("edge", "deployment/front", "condition=Available", Duration::from_secs(60));
    let file = shop.stack.config().join("stack.yaml");
    let text = fs_err::read_to_string(&file).expect("a stack");
    fs_err::write(&file, format!("{text}\ningress: {{ install: false, gateway: edge/front, section: public }}\n")).expect("a file");
    shop.timed("a Gateway of their own: stack up", &["stack", "up"]);
    assert!(shop.cluster.object("deployment/traefik", "traefik").is_none(), "our Traefik goes: nothing on disk wants it any more");
    shop.entrance = ("service/front", "edge");
    shop.buys(Buyer::FetchV2, "weather", "→ bought").await;
}
