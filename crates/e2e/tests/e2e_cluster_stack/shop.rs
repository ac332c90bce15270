//! A seller with a cluster, and all that stands around it: a chain, a facilitator, a service, buyers.

use std::{
    fmt::Write as _,
    process::Command,
    time::{Duration, Instant},
};

use alloy_primitives::U256;
use obol_e2e::{
    anvil::Anvil,
    buyers::Buyer,
    cluster::Cluster,
    facilitators::{Facilitator, Maker},
    forge,
    forward::Forward,
    http, image,
    stack::Stack,
    upstream::Upstream,
};
use obol_offer::Address;
use serde_json::Value;

/// Atomic units of one request to an offer that [`Shop::sell`] makes.
pub const PRICE: u64 = 1_000;
/// How long anything may take to be payable.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Shop {
    pub stack: Stack,
    pub cluster: Cluster,
    pub anvil: Anvil,
    pub payee: Address,
    /// URL of the facilitator, for Pods.
    pub facilitator: String,
    pub service: Forward,
    /// Service, with its namespace, through which buyers come.
    pub entrance: (&'static str, &'static str),
    report: String,
    /// The one behind [`Self::facilitator`].
    pub settles: Option<(Facilitator, Forward)>,
    _upstream: Upstream,
}

impl Shop {
    /// A bare cluster that has our image, and a folder in which nothing is.
    pub async fn open() -> Self {
        let begin = Instant::now();
        let cluster = Cluster::fresh();
        cluster.load(&image());
        let mut report = String::new();
        note(&mut report, "a bare cluster with our image", begin.elapsed());
        let anvil = Anvil::start().await;
        let facilitator = Facilitator::start(Maker::TypeScript, &anvil.url);
        let upstream = Upstream::start().await;
        let forwards = (Forward::to(&facilitator.url).await, Forward::to(&upstream.url).await);
        let name = cluster.service("facilitator", &forwards.0.url);
        let mut stack = Stack::bare();
        stack.find(&cluster);
        Self {
            stack,
            cluster,
            anvil,
            payee: forge::fresh_address(),
            facilitator: name,
            service: forwards.1,
            entrance: ("service/traefik", "traefik"),
            report,
            settles: Some((facilitator, forwards.0)),
            _upstream: upstream,
        }
    }

    /// `obol stack init` for this cluster.
    pub fn init(&self) {
        let payee = self.payee.to_checksum(None);
        let defaults = ["--pay-to", &payee, "--network", "base-sepolia", "--facilitator", &self.facilitator];
        self.stack.ok(&[&["stack", "init", "--backend", "kubernetes"], &defaults[..]].concat());
    }

    /// `obol sell http NAME`, with everything else as it is in `stack.yaml`.
    pub fn sell(&self, name: &str) {
        self.stack.ok(&["sell", "http", name, "--upstream", &self.service.url, "--price", "0.001"]);
    }

    /// Runs `obol` and notes how long it took; data it printed.
    pub fn timed(&mut self, what: &str, args: &[&str]) -> String {
        let begin = Instant::now();
        let printed = self.stack.ok(args);
        self.note(what, begin.elapsed());
        printed
    }

    /// Notes how long something took.
    pub fn note(&mut self, what: &str, took: Duration) {
        note(&mut self.report, what, took);
    }

    /// Notes a line.
    pub fn tell(&mut self, line: &str) {
        println!("{line}");
        let _ = writeln!(self.report, "{line}");
    }

    /// Where buyers come: Traefik, by the address of its Service.
    pub fn url(&self, path: &str) -> String {
        let service = self.cluster.object(self.entrance.0, self.entrance.1).expect("Traefik has a Service");
        format!("http://{}{path}", service["spec"]["clusterIP"].as_str().expect("an address"))
    }

    /// Waits until an offer asks for its price, buys once through Traefik, and checks that the money
    /// has moved: once, whatever was tried.
    pub async fn buys(&mut self, buyer: Buyer, name: &str, what: &str) {
        let begin = Instant::now();
        let before = (self.anvil.balance(buyer.address()).await, self.anvil.balance(self.payee).await);
        let path = format!("/services/{name}");
        let mut last = String::from("no answer");
        // After an `up` of something else the Service may be another one.
        while self.challenge(&path).await.map_err(|why| last = why).is_err() {
            self.patient(begin, name, &last);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let answer = loop {
            let url = self.url(&format!("{path}/today"));
            let answer = tokio::task::spawn_blocking(move || buyer.buy(&url)).await.expect("no panic");
            if answer.status == 200 {
                break answer;
            }
            self.patient(begin, name, &format!("{answer:?}"));
        };
        self.note(what, begin.elapsed());
        assert_eq!(answer.body, "GET /today with 0 bytes", "the service's own answer");
        let receipt = answer.receipt.expect("a receipt");
        assert!(receipt.success && self.anvil.succeeded(receipt.transaction).await, "the receipt's transaction is on chain");
        let after = (self.anvil.balance(buyer.address()).await, self.anvil.balance(self.payee).await);
        assert_eq!((before.0 - after.0, after.1 - before.1), (U256::from(PRICE), U256::from(PRICE)), "{name}: the price has moved, once");
    }

    /// The answer to one who does not pay, through Traefik.
    async fn challenge(&self, path: &str) -> Result<(), String> {
        let service = self.cluster.object(self.entrance.0, self.entrance.1).ok_or("no Traefik")?;
        let url = format!("http://{}{path}", service["spec"]["clusterIP"].as_str().unwrap_or_default());
        match http().get(url).timeout(Duration::from_secs(5)).send().await {
            Ok(answer) if answer.status() == 402 => Ok(()),
            Ok(answer) => Err(answer.status().to_string()),
            Err(error) => Err(format!("{error:?}")),
        }
    }

    fn patient(&self, begin: Instant, name: &str, last: &str) {
        if begin.elapsed() > PATIENCE {
            let pods = self.cluster.kubectl(&["get", "pods,so,httproutes", "-A", "-o", "wide"]);
            let logs = ["x402-gateway", "obol-controller", "facilitator"].map(|name| self.logs(name));
            panic!("{name} cannot be bought after {PATIENCE:?}: {last}\n{pods}\n{}", logs.concat());
        }
    }

    fn logs(&self, of: &str) -> String {
        let output = self.cluster.try_kubectl(&["logs", "-n", "x402", "-l", &format!("app.kubernetes.io/name={of}"), "--tail=40"]);
        format!("--- {of}\n{}", String::from_utf8_lossy(&output.stdout))
    }

    /// Waits until every offer that `kubectl get so` shows is Ready.
    pub async fn all_ready(&self, count: usize, patience: Duration) -> Duration {
        let begin = Instant::now();
        loop {
            let list: Value = serde_json::from_str(&self.cluster.kubectl(&["get", "so", "-n", "obol-offers", "-o", "json"])).expect("JSON");
            let offers = list["items"].as_array().expect("a list");
            let ready = offers.iter().filter(|offer| is_ready(offer)).count();
            if ready == count && offers.len() == count {
                return begin.elapsed();
            }
            assert!(begin.elapsed() < patience, "{ready} of {} are ready, and {count} are sold:\n{}", offers.len(), self.show());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn show(&self) -> String {
        self.cluster.kubectl(&["get", "so", "-A", "-o", "wide"])
    }

    /// Process on this machine of `obol serve ROLE` in a Pod.
    pub fn pid(&self, role: &str) -> u32 {
        let line = format!("/obol\0serve\0{role}\0");
        let processes = fs_err::read_dir("/proc").expect("Linux").flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let node = format!("/{}/", self.cluster.node());
        let ours = |pid: &u32| {
            let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            read("cmdline").starts_with(&line) && read("cgroup").contains(&node)
        };
        pids.find(ours).unwrap_or_else(|| panic!("no process `obol serve {role}`"))
    }

    /// Ends a process at once.
    pub fn kill(&self, pid: u32) {
        let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill starts");
        assert!(killed.success(), "process {pid} is gone already");
    }

    /// The largest resident set of `obol serve ROLE` so far, in MiB (`VmHWM`).
    pub fn memory(&self, role: &str) -> u64 {
        let status = fs_err::read_to_string(format!("/proc/{}/status", self.pid(role))).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux reports VmHWM");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
    }

    /// `obol … --output json`, as JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.stack.ok(&[args, &["--output", "json"]].concat())).expect("JSON")
    }

    /// Appends to a file of the stack directory.
    pub fn append(&self, file: &str, text: &str) {
        let path = self.stack.config().join(file);
        let before = fs_err::read_to_string(&path).unwrap_or_default();
        fs_err::write(path, before + text).expect("a file");
    }

    /// A secret stands neither on disk nor in the cluster, but in a Secret and where it was put at first.
    pub fn keeps(&self, secret: &str) {
        let kinds = "configmaps,serviceoffers,pods,deployments,statefulsets,services,httproutes,events";
        assert!(!self.cluster.kubectl(&["get", kinds, "--all-namespaces", "-o", "yaml"]).contains(secret), "an object shows it");
        for (release, namespace) in [("obol", "x402"), ("traefik", "traefik")] {
            let output = self.cluster.program("helm").args(["get", "all", release, "--namespace", namespace]).output();
            let output = output.expect("helm starts");
            assert!(output.status.success() && !String::from_utf8_lossy(&output.stdout).contains(secret), "the release {release} shows it");
        }
        let folders = ["config", "state"].map(|name| self.stack.config().with_file_name(name).display().to_string());
        let grep = Command::new("grep").args(["-r", "-l", "-F", secret]).args(&folders).output().expect("grep starts");
        assert_eq!(String::from_utf8_lossy(&grep.stdout), "", "a file shows it");
    }

    /// Keeps the report.
    pub fn close(self, name: &str) {
        obol_e2e::keep(name, &self.report);
    }
}

fn note(report: &mut String, what: &str, took: Duration) {
    let line = format!("{what:<60} {:>6.1} s", took.as_secs_f64());
    println!("{line}");
    let _ = writeln!(report, "{line}");
}

fn is_ready(offer: &Value) -> bool {
    let conditions = offer["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
