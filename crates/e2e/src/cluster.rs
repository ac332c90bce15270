//! A real single-node Kubernetes (`testbed/cluster`), with helm and helmfile beside it.

use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use crate::{part, repository};

/// The machine as Pods see it; they know it as `machine.test`, too. Servers that they are to reach
/// listen here, once the cluster is up.
pub static MACHINE: LazyLock<String> = LazyLock::new(|| format!("10.200.{}.1", *NUMBER));
/// Which of the clusters of this machine (`OBOL_CLUSTER`, a digit).
static NUMBER: LazyLock<String> = LazyLock::new(|| std::env::var("OBOL_CLUSTER").unwrap_or_else(|_| "0".to_owned()));

/// The cluster. One test at a time has it, over all processes; it stays up when dropped, for the next.
#[derive(Debug)]
pub struct Cluster {
    _lock: File,
}

/// A component of the node. Killed, it comes back by itself half a second later.
#[derive(Debug, Clone, Copy)]
pub enum Component {
    /// The store of the API server.
    Etcd,
    /// The container engine; containers go on without it.
    Containerd,
    /// `kube-apiserver`.
    ApiServer,
    /// `kube-controller-manager`.
    Controllers,
    /// `kube-scheduler`.
    Scheduler,
    /// `kubelet`.
    Kubelet,
    /// `kube-proxy`.
    Proxy,
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Etcd => "etcd",
            Self::Containerd => "containerd",
            Self::ApiServer => "apiserver",
            Self::Controllers => "controllers",
            Self::Scheduler => "scheduler",
            Self::Kubelet => "kubelet",
            Self::Proxy => "proxy",
        })
    }
}

impl Cluster {
    /// The cluster as it is, brought up if it is down. Waits while another test has it.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn up() -> Self {
        let cluster = Self::lock();
        if !cluster.is_up() {
            cluster.script("up.sh", &[]);
        }
        cluster
    }

    /// A cluster with nothing in it but DNS: an earlier one is removed.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn fresh() -> Self {
        let cluster = Self::lock();
        cluster.script("down.sh", &[]);
        cluster.script("up.sh", &[]);
        cluster
    }

    /// Ends every process of the node and starts it again with its state, images and volumes.
    ///
    /// # Panics
    /// When it does not come up again.
    pub fn reboot(&self) {
        self.script("down.sh", &["--keep"]);
        self.script("up.sh", &["--keep"]);
    }

    /// Ends it and removes all that it made.
    ///
    /// # Panics
    /// When something is left.
    pub fn down(self) {
        self.script("down.sh", &[]);
    }

    fn lock() -> Self {
        let path = part("cluster").join(format!("lock-{}", *NUMBER));
        let lock = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        flock(&lock, FlockOperation::LockExclusive).expect("a lock can be waited for");
        Self { _lock: lock }
    }

    fn is_up(&self) -> bool {
        let mut status = command("control.sh");
        status.arg("up").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// Path of a kubeconfig with every right.
    pub fn kubeconfig(&self) -> PathBuf {
        part(&format!("cluster/run/{}/pki/admin.kubeconfig", *NUMBER))
    }

    /// Name of the one node, and of its cgroup.
    pub fn node(&self) -> String {
        format!("obol-{}", *NUMBER)
    }

    /// A program of the cluster (`kubectl`, `helm`, `helmfile`) that finds the others and the cluster.
    pub fn program(&self, name: &str) -> Command {
        let bin = part("cluster/bin");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(part(&format!("cluster/bin/{name}")));
        command.env("PATH", format!("{}:{path}", bin.display())).env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// What `kubectl` prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn kubectl(&self, args: &[&str]) -> String {
        let output = self.try_kubectl(args);
        checked(&format!("kubectl {}", args.join(" ")), output)
    }

    /// Runs `kubectl`, which may fail.
    ///
    /// # Panics
    /// When it does not start.
    pub fn try_kubectl(&self, args: &[&str]) -> Output {
        self.program("kubectl").args(args).stdin(Stdio::null()).output().expect("kubectl starts")
    }

    /// Applies YAML.
    ///
    /// # Panics
    /// When the API server refuses it.
    pub fn apply(&self, manifests: &str) {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs_err::write(file.path(), manifests).expect("a temporary file");
        self.kubectl(&["apply", "-f", &file.path().display().to_string()]);
    }

    /// Makes a Service of a server that listens on [`MACHINE`], and returns its URL
    /// `http://NAME.shop.svc:9000`, which Pods alone can resolve.
    ///
    /// # Panics
    /// When `url` names no port, or the API server refuses.
    pub fn service(&self, name: &str, url: &str) -> String {
        let machine = &*MACHINE;
        let port = url.trim_end_matches('/').rsplit(':').next().expect("a port");
        self.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{ name: shop }}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\n\
             spec: {{ ports: [{{ name: http, port: 9000, targetPort: {port} }}] }}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {{ name: {name}, namespace: shop, labels: {{ kubernetes.io/service-name: {name} }} }}\n\
             endpoints: [{{ addresses: [{machine}] }}]\nports: [{{ name: http, port: {port} }}]\n"
        ));
        format!("http://{name}.shop.svc:9000")
    }

    /// An object as JSON, such as `object("pod/x", "default")`; nothing if it does not exist.
    ///
    /// # Panics
    /// When the API server does not answer.
    pub fn object(&self, name: &str, namespace: &str) -> Option<serde_json::Value> {
        let found = self.kubectl(&["get", name, "-n", namespace, "-o", "json", "--ignore-not-found"]);
        (!found.trim().is_empty()).then(|| serde_json::from_str(&found).expect("kubectl prints JSON"))
    }

    /// Installs the Gateway API (standard channel) and returns when its kinds are served.
    ///
    /// # Panics
    /// When it cannot.
    pub fn install_gateway_api(&self) {
        self.install_definitions("gateway-api");
    }

    /// Installs Traefik's own kinds.
    ///
    /// # Panics
    /// When it cannot.
    pub fn install_traefik_kinds(&self) {
        self.install_definitions("traefik");
    }

    fn install_definitions(&self, name: &str) {
        let file = part(&format!("cluster/crds/{name}.yaml")).display().to_string();
        self.kubectl(&["apply", "--server-side", "-f", &file]);
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "customresourcedefinitions", "--all"]);
    }

    /// Imports an image from a tar of an OCI layout (`cargo xtask image`).
    ///
    /// # Panics
    /// When it is none.
    pub fn load(&self, tar: &Path) {
        self.script("control.sh", &["load", &tar.display().to_string()]);
    }

    /// Lets the node pull images from a registry that speaks plain HTTP, `address:port` as Pods see it.
    ///
    /// # Panics
    /// When its folder cannot be written.
    pub fn trust_registry(&self, address: &str) {
        let folder = part(&format!("cluster/run/{}", *NUMBER)).join("registries").join(address);
        fs_err::create_dir_all(&folder).expect("a folder of the cluster");
        let text = format!("server = \"http://{address}\"\n[host.\"http://{address}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
        fs_err::write(folder.join("hosts.toml"), text).expect("a file of the cluster");
    }

    /// Lets a program find `ctr` and the node's containerd, as on a machine that runs one.
    pub fn with_containerd(&self, command: &mut Command) {
        let path = std::env::var("PATH").unwrap_or_default();
        let socket = part(&format!("cluster/run/{}/containerd.sock", *NUMBER));
        command.env("CONTAINERD_ADDRESS", socket).env("PATH", format!("{}:{path}", part("cluster/debian/usr/bin").display()));
    }

    /// Process id of a component on this machine; nothing while it is down.
    pub fn pid(&self, component: Component) -> Option<u32> {
        self.script("control.sh", &["pid", &component.to_string()]).trim().parse().ok()
    }

    /// Kills a component (SIGKILL), and returns when another process has taken its place.
    ///
    /// # Panics
    /// When it cannot, and when nothing comes back within a minute.
    pub fn kill(&self, component: Component) {
        let before = self.pid(component);
        self.script("control.sh", &["kill", &component.to_string()]);
        // Else the node looks ready in the moment before it notices.
        let begin = Instant::now();
        while self.pid(component).is_none_or(|pid| Some(pid) == before) {
            assert!(begin.elapsed() < Duration::from_secs(60), "{component} did not come back within a minute");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills a component and keeps it away until [`Self::start`].
    ///
    /// # Panics
    /// When it cannot.
    pub fn stop(&self, component: Component) {
        self.script("control.sh", &["stop", &component.to_string()]);
    }

    /// Lets a stopped component come back; it needs a moment to be ready.
    ///
    /// # Panics
    /// When it cannot.
    pub fn start(&self, component: Component) {
        self.script("control.sh", &["start", &component.to_string()]);
    }

    /// Waits until API server and kubelet answer and the node is ready, and says how long it took.
    ///
    /// # Panics
    /// After a minute.
    pub fn await_ready(&self) -> Duration {
        let begin = Instant::now();
        let api = ["get", "--raw", "/readyz"];
        let healthz = format!("/api/v1/nodes/{}/proxy/healthz", self.node());
        let kubelet = ["get", "--raw", &healthz];
        let node = ["wait", "--for=condition=Ready", "node", "--all", "--timeout=5s"];
        while ![&api[..], &kubelet, &node].iter().all(|args| self.try_kubectl(args).status.success()) {
            assert!(begin.elapsed() < Duration::from_secs(60), "the cluster did not get ready within a minute");
            std::thread::sleep(Duration::from_millis(100));
        }
        begin.elapsed()
    }

    /// Waits until `condition` holds of the objects that `kubectl wait` is given.
    ///
    /// # Panics
    /// When it does not within `patience`; the message lists what is there.
    pub fn wait(&self, namespace: &str, what: &str, condition: &str, patience: Duration) {
        let timeout = format!("--timeout={}s", patience.as_secs());
        let output = self.try_kubectl(&["wait", "-n", namespace, what, &format!("--for={condition}"), &timeout]);
        if !output.status.success() {
            let there = self.kubectl(&["get", "pods,events", "-n", namespace, "-o", "wide"]);
            panic!("{what}: no {condition} within {patience:?}: {}\n{there}", String::from_utf8_lossy(&output.stderr));
        }
    }

    fn script(&self, name: &str, args: &[&str]) -> String {
        let output = command(name).args(args).output().expect("a script starts");
        checked(&format!("{name} {}", args.join(" ")), output)
    }
}

/// A script of the cluster.
fn command(name: &str) -> Command {
    let mut command = Command::new(repository().join("testbed/cluster").join(name));
    command.env("OBOL_CACHE", part("")).env("OBOL_CLUSTER", &*NUMBER).stdin(Stdio::null());
    command
}

fn checked(what: &str, output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).expect("programs print UTF-8")
}
