//! A real etcd and kube-apiserver on loopback, without any node: for what needs no Pods.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use kube::{Client, Config, config::AuthInfo};
use obol_e2e::process::Process;
use serde_json::Value;
use tempfile::TempDir;

/// Token of the cluster's administrator.
const ADMIN: &str = "admin-token";

/// Both processes; they end with it.
pub struct ApiServer {
    url: String,
    arguments: Vec<String>,
    // Before etcd: what is last ends last.
    apiserver: Mutex<Option<Process>>,
    _etcd: Process,
    folder: TempDir,
}

fn program(path: &str) -> Command {
    Command::new(obol_e2e::part(&format!("cluster/{path}")))
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl ApiServer {
    /// Starts both, waits until they are ready, and installs the definitions of ServiceOffer and the Gateway API.
    pub async fn start() -> Self {
        let this = Self::bare().await;
        this.install(&serde_saphyr::from_str::<Value>(&obol_offer::admission::crd_yaml()).unwrap()).await;
        for file in ["httproutes", "referencegrants"] {
            this.install(&gateway_api(file)).await;
        }
        for namespace in ["x402", "obol-offers", "team-a"] {
            this.create(&namespaces(), None, &serde_json::json!({ "metadata": { "name": namespace } })).await.unwrap();
        }
        this
    }

    async fn bare() -> Self {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let etcd_url = format!("http://127.0.0.1:{client}");
        let peer_url = format!("http://127.0.0.1:{peer}");
        let etcd = Process::start(
            "etcd",
            program("debian/usr/bin/etcd").args([
                "--data-dir",
                &text(at("etcd")),
                "--listen-client-urls",
                &etcd_url,
                "--advertise-client-urls",
                &etcd_url,
                "--listen-peer-urls",
                &peer_url,
                "--initial-advertise-peer-urls",
                &peer_url,
                "--initial-cluster",
                &format!("default={peer_url}"),
                "--unsafe-no-fsync",
            ]),
        );
        let key = text(at("sa.key"));
        let made = Command::new("openssl").args(["genrsa", "-out", &key, "2048"]).output().expect("openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let tokens = format!(
            "{ADMIN},admin,admin,\"system:masters\"\n\
             controller-token,system:serviceaccount:x402:obol-controller,c,\"system:serviceaccounts,system:authenticated\"\n\
             gateway-token,system:serviceaccount:x402:x402-gateway,g,\"system:serviceaccounts,system:authenticated\"\n"
        );
        std::fs::write(at("tokens.csv"), tokens).unwrap();
        let arguments = [
            format!("--etcd-servers={etcd_url}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", text(at("certs"))),
            format!("--service-account-key-file={key}"),
            format!("--service-account-signing-key-file={key}"),
            "--service-account-issuer=https://cluster.example".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            format!("--token-auth-file={}", text(at("tokens.csv"))),
            // There is no node, and nobody makes service accounts.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
        ];
        let url = format!("https://127.0.0.1:{port}");
        let this = Self { url, arguments: arguments.into(), apiserver: Mutex::default(), _etcd: etcd, folder };
        this.resume().await;
        this
    }

    /// Starts the API server again.
    pub async fn resume(&self) {
        let process = Process::start("kube-apiserver", program("bin/kube-apiserver").args(&self.arguments));
        *self.apiserver.lock().unwrap() = Some(process);
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let ready = self.admin().request_text(http::Request::get("/readyz").body(Vec::new()).unwrap()).await;
            if ready.is_ok() {
                return;
            }
            assert!(Instant::now() < deadline, "no API server: {ready:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Kills the API server; etcd goes on.
    pub fn kill(&self) {
        drop(self.apiserver.lock().unwrap().take());
    }

    /// A kubeconfig for a token.
    pub fn kubeconfig(&self, token: &str) -> PathBuf {
        let file = self.folder.path().join(format!("kubeconfig-{token}"));
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": { "server": self.url, "insecure-skip-tls-verify": true } }],
            "users": [{ "name": "test", "user": { "token": token } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        });
        std::fs::write(&file, text.to_string()).unwrap();
        file
    }

    /// How the API server is reached with a token.
    pub fn config(&self, token: &str) -> Config {
        let mut config = Config::new(self.url.parse().unwrap());
        config.accept_invalid_certs = true;
        config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        config
    }

    /// A client with a token.
    pub fn client(&self, token: &str) -> Client {
        Client::try_from(self.config(token)).unwrap()
    }

    /// A client of the administrator.
    pub fn admin(&self) -> Client {
        self.client(ADMIN)
    }

    /// How the administrator reaches it.
    pub fn admin_config(&self) -> Config {
        self.config(ADMIN)
    }

    /// Creates an object; unknown fields are refused, as kubectl has it.
    pub async fn create(&self, kind: &kube::api::ApiResource, namespace: Option<&str>, object: &Value) -> kube::Result<Value> {
        self.post(kind, namespace, object, "fieldValidation=Strict&fieldManager=test").await
    }

    /// Whether an object would be taken.
    pub async fn try_create(&self, kind: &kube::api::ApiResource, namespace: Option<&str>, object: &Value) -> kube::Result<Value> {
        self.post(kind, namespace, object, "fieldValidation=Strict&dryRun=All").await
    }

    async fn post(&self, kind: &kube::api::ApiResource, namespace: Option<&str>, object: &Value, query: &str) -> kube::Result<Value> {
        let mut object = object.clone();
        object["apiVersion"] = kind.api_version.clone().into();
        object["kind"] = kind.kind.clone().into();
        let group = if kind.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}", kind.api_version) };
        let within = namespace.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
        let uri = format!("{group}{within}/{}?{query}", kind.plural);
        let request =
            http::Request::post(uri).header("content-type", "application/json").body(serde_json::to_vec(&object).unwrap()).unwrap();
        self.admin().request(request).await
    }

    async fn install(&self, definition: &Value) {
        let kind = resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions");
        self.create(&kind, None, definition).await.unwrap_or_else(|error| panic!("{}: {error}", definition["metadata"]["name"]));
        let name = definition["metadata"]["name"].as_str().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let uri = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
            let found: Value = self.admin().request(http::Request::get(uri).body(Vec::new()).unwrap()).await.unwrap();
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
                assert!(!conditions.iter().any(|c| c["type"] == "NonStructuralSchema" && c["status"] == "True"), "{conditions:?}");
                return;
            }
            assert!(Instant::now() < deadline, "{name} is not established: {conditions:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A definition from the Go module of the Gateway API, at the version that the test cluster pins.
fn gateway_api(name: &str) -> Value {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testbed/cluster/traefik");
        let listed = Command::new("go")
            .args(["list", "-mod=mod", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api"])
            .current_dir(module)
            .output()
            .expect("go");
        let dir = String::from_utf8(listed.stdout).unwrap().trim().to_owned();
        assert!(!dir.is_empty(), "no Gateway API: {}", String::from_utf8_lossy(&listed.stderr));
        PathBuf::from(dir).join("config/crd/standard")
    });
    let file = folder.join(format!("gateway.networking.k8s.io_{name}.yaml"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_saphyr::from_str(&text).unwrap()
}

/// A kind by its names.
pub fn resource(group: &str, version: &str, kind: &str, plural: &str) -> kube::api::ApiResource {
    kube::api::ApiResource::from_gvk_with_plural(&kube::core::GroupVersionKind::gvk(group, version, kind), plural)
}

pub fn offers() -> kube::api::ApiResource {
    resource("obol.org", "v1alpha1", "ServiceOffer", "serviceoffers")
}

pub fn namespaces() -> kube::api::ApiResource {
    resource("", "v1", "Namespace", "namespaces")
}
