//! What stands round a controller in these tests: an upstream, an ingress that takes every route, and a gateway that
//! loads every offer.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    client::{Body, ClientBuilder},
    runtime::watcher,
};
use obol_controller::{Controller, Gate, Home, Id, Ingress, LeaseTimes, Loaded, Mirror, Report, ServiceOffer, Settings, routes};
use obol_reconcile::Site;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::Notify,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tower::{Layer, Service};

use crate::apiserver::{ApiServer, offers};

pub const PAY_TO: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

pub struct World {
    pub server: ApiServer,
    pub upstream: String,
    gate: url::Url,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl World {
    pub async fn start() -> Self {
        let server = ApiServer::start().await;
        let changed = Arc::new(Notify::new());
        let seen: Arc<Mirror<ServiceOffer>> = Arc::new(Mirror::start(Api::all(server.admin()), watcher::Config::default(), changed));
        let (upstream, task) = http_server(|_| (200, "ok".to_owned())).await;
        let (gate, gate_task) = http_server(move |_| (200, serde_json::to_string(&report(&seen)).unwrap())).await;
        let taking = AbortOnDropHandle::new(tokio::spawn(take_routes(server.admin())));
        Self { server, upstream, gate: gate.parse().unwrap(), _tasks: vec![task, gate_task, taking] }
    }

    pub fn settings(&self, identity: &str) -> Settings {
        Settings {
            home: Home::default(),
            site: Site { cluster: true, ..Site::default() },
            ingress: Ingress::default(),
            gate: Gate { service: "x402-gateway".into(), port: 8402, admin: self.gate.clone(), interval: Duration::from_millis(200) },
            identity: identity.into(),
            lease: LeaseTimes { duration: Duration::from_secs(1), interval: Duration::from_millis(150) },
        }
    }

    pub fn controller(&self, calls: &Calls, identity: &str) -> Controller {
        let client = ClientBuilder::try_from(self.server.admin_config()).unwrap().with_layer(calls).build();
        Controller::new(client, self.settings(identity))
    }

    /// A controller that runs until it is dropped.
    pub fn run(&self, calls: &Calls, identity: &str) -> Running {
        let stop = CancellationToken::new();
        let run = self.controller(calls, identity).run(stop.clone());
        Running { stop, task: Some(tokio::spawn(async move { run.await.unwrap() })) }
    }

    pub fn spec(&self) -> Value {
        json!({
            "type": "http",
            "upstream": { "url": self.upstream, "healthPath": "/health" },
            "payment": { "network": "base-sepolia", "payTo": PAY_TO, "price": { "perRequest": "0.001" } },
        })
    }

    pub async fn offer(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut spec = self.spec();
        change(&mut spec);
        let object = json!({ "metadata": { "name": name }, "spec": spec });
        self.server.create(&offers(), Some(namespace), &object).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    pub fn offers(&self, namespace: &str) -> Api<ServiceOffer> {
        Api::namespaced(self.server.admin(), namespace)
    }

    pub async fn edit(&self, namespace: &str, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.offers(namespace).patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub fn routes_of(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.server.admin(), namespace, &routes())
    }

    /// Names of all routes of a namespace.
    pub async fn routes(&self, namespace: &str) -> Vec<String> {
        let list = self.routes_of(namespace).list(&Default::default()).await.unwrap();
        list.items.into_iter().filter_map(|route| route.metadata.name).collect()
    }

    pub async fn status(&self, namespace: &str, name: &str) -> Value {
        self.offers(namespace).get(name).await.unwrap().status
    }

    pub async fn until(&self, namespace: &str, name: &str, kind: &str, wanted: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let status = self.status(namespace, name).await;
            if condition(&status, kind) == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{namespace}/{name} is never {kind} {wanted}: {status:#}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    pub async fn until_ready(&self, namespace: &str, name: &str) {
        self.until(namespace, name, "Ready", "True/Reconciled").await;
    }
}

pub fn condition(status: &Value, kind: &str) -> String {
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    all.iter()
        .find(|condition| condition["type"] == kind)
        .map(|c| format!("{}/{}", c["status"].as_str().unwrap(), c["reason"].as_str().unwrap()))
        .unwrap_or_default()
}

pub struct Running {
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Running {
    pub async fn end(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.await.unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn report(seen: &Mirror<ServiceOffer>) -> Report {
    let loaded = |(id, object): (&Id, &Arc<ServiceOffer>)| Loaded {
        namespace: id.0.clone(),
        name: id.1.clone(),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        routed: true,
    };
    Report { offers: seen.objects().iter().flat_map(|objects| objects.iter().map(loaded).collect::<Vec<_>>()).collect() }
}

/// Says of every route that it is taken, as an ingress would.
async fn take_routes(client: Client) {
    let changed = Arc::new(Notify::new());
    let mirror: Mirror<DynamicObject> =
        Mirror::start_dynamic(Api::all_with(client.clone(), &routes()), watcher::Config::default(), changed.clone());
    let mut taken: BTreeMap<Id, (Option<String>, Option<i64>)> = BTreeMap::new();
    loop {
        changed.notified().await;
        for (id, route) in mirror.objects().iter().flat_map(|objects| objects.iter()) {
            let generation = route.metadata.generation;
            let version = (route.metadata.uid.clone(), generation);
            if route.data["spec"]["parentRefs"][0]["name"] != "traefik-gateway" || taken.get(id) == Some(&version) {
                continue;
            }
            let condition = |kind: &str| {
                json!({
                    "type": kind, "status": "True", "reason": kind, "message": "",
                    "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"
                })
            };
            let parent = json!({
                "parentRef": route.data["spec"]["parentRefs"][0], "controllerName": "example.com/ingress",
                "conditions": [condition("Accepted"), condition("ResolvedRefs")]
            });
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &id.0, &routes());
            let patch = Patch::Merge(json!({ "status": { "parents": [parent] } }));
            if api.patch_status(&id.1, &PatchParams::default(), &patch).await.is_ok() {
                taken.insert(id.clone(), version);
            }
        }
    }
}

/// A server that answers each path; its base URL.
pub async fn http_server(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> (String, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&request[..read]).into_owned();
                let (status, body) = answer(head.split(' ').nth(1).unwrap_or_default());
                let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
                let _ = stream.write_all(text.as_bytes()).await;
            });
        }
    });
    (url, AbortOnDropHandle::new(task))
}

/// Counts the calls of a controller, and ends it at one of them.
#[derive(Clone, Default)]
pub struct Calls(Arc<State>);

#[derive(Default)]
struct State {
    all: AtomicU64,
    writes: AtomicU64,
    /// Which call is the last, and whether it still reaches the API server. `0` means none.
    last: AtomicU64,
    reaches: std::sync::atomic::AtomicBool,
    crashed: CancellationToken,
}

impl Calls {
    /// Calls that end with number `last`, counted from 1: just before it is sent, or just after it was answered.
    pub fn ending_at(last: u64, reaches: bool) -> Self {
        let calls = Self::default();
        calls.0.last.store(last, Ordering::SeqCst);
        calls.0.reaches.store(reaches, Ordering::SeqCst);
        calls
    }

    pub fn all(&self) -> u64 {
        self.0.all.load(Ordering::SeqCst)
    }

    /// Writes that change anything but the lease.
    pub fn writes(&self) -> u64 {
        self.0.writes.load(Ordering::SeqCst)
    }

    pub async fn crashed(&self) {
        self.0.crashed.cancelled().await;
    }
}

impl<S> Layer<S> for Calls {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, calls: Calls(self.0.clone()) }
    }
}

#[derive(Clone)]
pub struct Counted<S> {
    inner: S,
    calls: Calls,
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let state = self.calls.0.clone();
        let number = state.all.fetch_add(1, Ordering::SeqCst) + 1;
        if request.method() != Method::GET && !request.uri().path().contains("/leases") {
            state.writes.fetch_add(1, Ordering::SeqCst);
        }
        let last = state.last.load(Ordering::SeqCst);
        let reaches = state.reaches.load(Ordering::SeqCst);
        if last > 0 && (number > last || (number == last && !reaches)) {
            state.crashed.cancel();
            return Box::pin(std::future::pending());
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            if number == last {
                state.crashed.cancel();
                std::future::pending::<()>().await;
            }
            answer
        })
    }
}
