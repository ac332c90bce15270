//! A seller's machine: three folders, the real binary, and a node that can be killed.

use std::{
    ffi::OsString,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

use alloy_primitives::Address;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{anvil::USDC, cluster::Cluster, forge, http, obol_binary, part, process::Process};

/// How long a node may take to get ready with a few offers.
const PATIENCE: Duration = Duration::from_secs(30);

/// A stack with its node. Everything is gone when it is dropped.
#[derive(Debug)]
pub struct Stack {
    /// Where buyers come.
    pub listen: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
    folder: TempDir,
    node: Option<Process>,
    env: Vec<(&'static str, OsString)>,
}

impl Stack {
    /// An empty stack; its node is not running.
    ///
    /// # Panics
    /// When its folders cannot be made.
    pub fn new() -> Self {
        Self::with("")
    }

    /// An empty stack with more in its `stack.yaml`.
    ///
    /// # Panics
    /// When its folders cannot be made.
    pub fn with(more: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("obol-e2e-").tempdir().expect("a temporary folder");
        let stack = Self { listen: free_address(), admin: free_address(), folder, node: None, env: Vec::new() };
        fs_err::create_dir_all(stack.config()).expect("a folder");
        let text = format!("id: e2e\nlisten: {}\nadmin: {}\n{more}", stack.listen, stack.admin);
        fs_err::write(stack.config().join("stack.yaml"), text).expect("a file");
        stack
    }

    /// An empty stack that settles on Base Sepolia behind `rpc`, with a key of its own.
    ///
    /// # Panics
    /// When its folders cannot be made.
    pub fn settling(rpc: &str, key: &str) -> Self {
        let stack = Self::new();
        let file = stack.folder.path().join("gas-key");
        fs_err::write(&file, key).expect("a file");
        fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("a file of ours");
        let networks = format!("networks:\n  base-sepolia:\n    rpc: [\"{rpc}\"]\n    facilitatorKey: ref+file://{}\n", file.display());
        let stack_yaml = stack.config().join("stack.yaml");
        let text = fs_err::read_to_string(&stack_yaml).expect("it was just written");
        fs_err::write(stack_yaml, text + &networks).expect("a file");
        stack
    }

    /// Three folders with nothing in them.
    ///
    /// # Panics
    /// When they cannot be made.
    pub fn bare() -> Self {
        let stack = Self::new();
        fs_err::remove_file(stack.config().join("stack.yaml")).expect("it was just written");
        stack
    }

    /// The stack directory.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// Folder of an offer.
    pub fn slice(&self, name: &str) -> PathBuf {
        self.config().join("applications/sell-http").join(name)
    }

    /// `obol` with this stack's folders, not started.
    pub fn command(&self) -> Command {
        self.program(obol_binary())
    }

    /// A line of a shell, not started, as somebody would type it who has this stack and `obol` on the PATH.
    ///
    /// # Panics
    /// When there is no binary.
    pub fn line(&self, line: &str) -> Command {
        let mut shell = self.program("bash");
        let binaries = obol_binary().parent().expect("the binary is in a folder").display().to_string();
        shell.args(["-euo", "pipefail", "-c", &format!("PATH={binaries}:$PATH; {line}")]).current_dir(self.folder.path());
        shell
    }

    /// Runs a [line](Self::line).
    ///
    /// # Panics
    /// When it fails.
    pub fn shell(&self, line: &str) {
        let output = self.line(line).output().expect("bash starts");
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "`{line}` failed ({}):\n{out}\n{error}", output.status);
    }

    fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.folder.path());
        for part in ["config", "data", "state"] {
            command.env(format!("OBOL_{}_DIR", part.to_uppercase()), self.folder.path().join(part));
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Lets `obol` find the cluster with its programs, and what a machine without network has to have.
    ///
    /// # Panics
    /// When its files cannot be written.
    pub fn find(&mut self, cluster: &Cluster) {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", part("cluster/bin").display());
        self.env = vec![("KUBECONFIG", cluster.kubeconfig().into()), ("PATH", path.into())];
        let manifests = self.folder.path().join("data/manifests");
        fs_err::create_dir_all(&manifests).expect("a folder");
        fs_err::copy(part("cluster/crds/gateway-api.yaml"), manifests.join("gateway-api.yaml")).expect("a file");
        // No load balancer gives addresses here, and no registry has images.
        let values = "image: obol.test/traefik:1\nservice:\n  type: ClusterIP\n";
        fs_err::create_dir_all(self.config().join("infrastructure")).expect("a folder");
        fs_err::write(self.config().join("infrastructure/values-traefik.yaml"), values).expect("a file");
    }

    /// Runs `obol` to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, args: &[impl AsRef<str>]) -> Output {
        self.command().args(args.iter().map(AsRef::as_ref)).output().expect("obol starts")
    }

    /// Runs `obol`, which must succeed, and returns its stdout.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, args: &[impl AsRef<str>]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        let line: Vec<_> = args.iter().map(AsRef::as_ref).collect();
        assert!(output.status.success(), "obol {} failed ({}):\n{error}", line.join(" "), output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `obol sell http NAME --upstream … --price 0.001 --pay-to … --network base-sepolia --facilitator …`.
    ///
    /// # Panics
    /// When it fails.
    pub fn sell(&self, name: &str, upstream: &str, pay_to: &str, facilitator: &str) {
        let offer = ["--upstream", upstream, "--price", "0.001", "--pay-to", pay_to];
        self.ok(&[&["sell", "http", name], &offer[..], &["--network", "base-sepolia", "--facilitator", facilitator]].concat());
    }

    /// Writes an offer that takes USDC in several ways (`eip3009`, `permit2`, `upto`), as a person would: 0.001 a
    /// request, or by `upto` 0.0005 a unit of which there are two at most.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn sell_by(&self, name: &str, upstream: &str, pay_to: Address, facilitator: Option<&str>, ways: &[&str]) {
        let payment = |way: &&str| {
            let price = match *way {
                "upto" => json!({ "perUnit": "0.0005", "unit": "page", "maxUnits": 2 }),
                _ => json!({ "perRequest": "0.001" }),
            };
            let (scheme, method) = if *way == "upto" { ("upto", "eip3009") } else { ("exact", *way) };
            json!({
                "scheme": scheme,
                "network": "base-sepolia",
                "payTo": pay_to.to_checksum(None),
                "price": price,
                "asset": {
                    "address": USDC.to_checksum(None), "symbol": "USDC", "decimals": 6, "transferMethod": method,
                    "eip712Name": "USDC", "eip712Version": "2",
                },
            })
        };
        let payments: Vec<_> = ways.iter().map(payment).collect();
        let facilitators: Vec<_> = facilitator.into_iter().collect();
        let spec = json!({ "upstream": { "url": upstream }, "payments": payments, "facilitators": facilitators });
        fs_err::create_dir_all(self.slice(name)).expect("a folder");
        // JSON is YAML.
        fs_err::write(self.slice(name).join("values-offer.yaml"), json!({ "name": name, "spec": spec }).to_string()).expect("a file");
    }

    /// Waits until the challenge of a path lists as many payments, and returns them.
    ///
    /// # Panics
    /// When it never does.
    pub async fn wait_for_accepts(&self, path: &str, count: usize) -> Value {
        let (client, end) = (http(), Instant::now() + PATIENCE);
        let mut last = Value::Null;
        while Instant::now() < end {
            let answer = client.get(self.url(path)).send().await;
            let header = answer.ok().and_then(|answer| Some(forge::decode(answer.headers().get("payment-required")?.to_str().ok()?)));
            last = header.map_or(Value::Null, |challenge| challenge["accepts"].clone());
            if last.as_array().is_some_and(|accepts| accepts.len() == count) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{path} never lists {count} payments, but {last}");
    }

    /// Puts members at the end of an offer's `spec`, in place of an earlier call's.
    ///
    /// # Panics
    /// When the offer's file cannot be changed.
    pub fn set(&self, name: &str, members: &str) {
        const MARK: &str = "  # by the test";
        let file = self.slice(name).join("values-offer.yaml");
        let text = fs_err::read_to_string(&file).expect("the offer has a file");
        let kept = text.split(MARK).next().unwrap_or_default().trim_end();
        let members: String = members.lines().map(|line| format!("\n  {line}")).collect();
        fs_err::write(&file, format!("{kept}\n{MARK}{members}\n")).expect("the offer's file can be written");
    }

    /// Starts the node and waits until it is ready. Returns how long that took.
    ///
    /// # Panics
    /// When it does not get ready.
    pub async fn up(&mut self) -> Duration {
        self.up_within(PATIENCE).await
    }

    /// [`Stack::up`] with another bound.
    ///
    /// # Panics
    /// When it does not get ready.
    pub async fn up_within(&mut self, patience: Duration) -> Duration {
        let start = Instant::now();
        let node = Process::start("obol stack up", self.command().args(["stack", "up"]));
        let node = self.node.insert(node);
        let ready = format!("http://{}/readyz", self.admin);
        let client = http();
        loop {
            if client.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return start.elapsed();
            }
            assert!(node.is_running(), "the node ended:\n{}", node.tail());
            assert!(start.elapsed() < patience, "the node is not ready after {patience:?}:\n{}", node.tail());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The running node.
    ///
    /// # Panics
    /// When it is not running.
    pub fn node(&mut self) -> &mut Process {
        self.node.as_mut().expect("the node runs")
    }

    /// Ends the node at once (SIGKILL), as a power cut would.
    pub fn kill(&mut self) {
        self.node = None;
    }

    /// `obol stack status --output json`.
    ///
    /// # Panics
    /// When it fails.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["stack", "status", "--output", "json"])).expect("status is JSON")
    }

    /// URL of a path at the public listener.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen)
    }

    /// Waits until `GET path` is answered with `status`.
    ///
    /// # Panics
    /// When it never is.
    pub async fn wait_for(&self, path: &str, status: u16) {
        let client = http();
        let end = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < end {
            match client.get(self.url(path)).send().await {
                Ok(answer) if answer.status() == status => return,
                Ok(answer) => last = answer.status().to_string(),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{path} is still answered with {last} instead of {status}");
    }
}

impl Default for Stack {
    fn default() -> Self {
        Self::new()
    }
}

/// A loopback address that was free a moment ago, below the ports that the system gives to
/// outgoing connections: between two starts of a node none of those may take it.
/// A loopback address that nobody listens on.
///
/// # Panics
/// When there is none.
pub fn free_address() -> SocketAddr {
    let candidates = std::iter::repeat_with(|| SocketAddr::from(([127, 0, 0, 1], rand::random_range(10_000..32_000))));
    candidates.take(1_000).find(|address| TcpListener::bind(address).is_ok()).expect("a free port")
}
