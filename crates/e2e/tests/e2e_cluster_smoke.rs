//! The test cluster itself: Pods, Services, DNS, volumes, the ways between machine and Pods, and
//! that it comes back from kills and a reboot.

use std::{
    io::Write,
    net::TcpListener,
    time::{Duration, Instant},
};

use obol_e2e::{
    cluster::{Cluster, Component, MACHINE},
    keep, repository,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `work` and notes its seconds.
fn timed<T>(report: &mut String, what: &str, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = work();
    let line = format!("{what:<44} {:>6.1} s\n", begin.elapsed().as_secs_f64());
    print!("{line}");
    report.push_str(&line);
    result
}

fn probe(cluster: &Cluster, args: &[&str]) -> String {
    let pod = ["exec", "-n", "smoke", "hello-0", "--", "/probe"];
    cluster.kubectl(&[&pod, args].concat()).trim().to_owned()
}

/// Asks a URL from this machine.
async fn get(url: &str) -> String {
    let begin = Instant::now();
    loop {
        let answer = obol_e2e::http().get(url).timeout(Duration::from_secs(5)).send().await.and_then(reqwest::Response::error_for_status);
        match answer {
            Ok(answer) => return answer.text().await.expect("a body").trim().to_owned(),
            // Endpoints follow a Pod's readiness a moment later.
            Err(error) => assert!(begin.elapsed() < PATIENCE, "{url}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Lets one address block into the Pods of the StatefulSet.
fn policy(from: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{ name: hello, namespace: smoke }}\n\
         spec: {{ podSelector: {{ matchLabels: {{ app: hello }} }}, ingress: [{{ from: [{{ ipBlock: {{ cidr: {from} }} }}] }}] }}\n"
    )
}

#[tokio::test]
async fn e2e_cluster_runs_pods_and_survives_kills_and_a_reboot() {
    let mut report = String::new();
    let cluster = timed(&mut report, "up, from nothing", Cluster::fresh);
    timed(&mut report, "StatefulSet with a volume ready", || {
        cluster.apply(&fs_err::read_to_string(repository().join("testbed/cluster/smoke.yaml")).expect("in the repository"));
        cluster.kubectl(&["rollout", "status", "-n", "smoke", "statefulset/hello", "--timeout=60s"]);
    });

    let service = cluster.object("service/hello", "smoke").expect("the Service exists");
    let url = format!("http://{}/", service["spec"]["clusterIP"].as_str().expect("an address"));
    assert_eq!(get(&url).await, "hello-0 GET / 1", "machine → Service");
    assert_eq!(probe(&cluster, &["get", "http://hello.smoke.svc.cluster.local/in"]), "hello-0 GET /in 2", "Pod → DNS → Service → itself");
    assert_eq!(probe(&cluster, &["resolve", "machine.test"]), *MACHINE);
    let unknown = cluster.try_kubectl(&["exec", "-n", "smoke", "hello-0", "--", "/probe", "resolve", "nowhere.test"]);
    assert!(!unknown.status.success(), "a name that does not exist resolves");

    let listener = TcpListener::bind((MACHINE.as_str(), 0)).expect("the machine's end of the cable is up");
    let outside = format!("http://machine.test:{}/", listener.local_addr().expect("bound").port());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a Pod comes");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nmachine").expect("it listens");
    });
    assert_eq!(probe(&cluster, &["get", &outside]), "machine", "Pod → machine");
    server.join().expect("the server ends");

    cluster.apply(&policy("172.16.0.0/32"));
    let begin = Instant::now();
    while obol_e2e::http().get(&url).timeout(Duration::from_secs(1)).send().await.is_ok() {
        assert!(begin.elapsed() < PATIENCE, "a NetworkPolicy that lets nobody in lets the machine in");
    }
    cluster.apply(&policy(&format!("{}/32", *MACHINE)));
    assert_eq!(get(&url).await, "hello-0 GET / 3", "a NetworkPolicy that lets the machine in");
    cluster.kubectl(&["delete", "networkpolicy", "-n", "smoke", "hello"]);

    let privileged = "apiVersion: v1\nkind: Pod\nmetadata: { name: root, namespace: smoke }\n\
                      spec: { containers: [{ name: root, image: 'obol.test/probe:1' }] }\n";
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs_err::write(file.path(), privileged).expect("a temporary file");
    let refused = cluster.try_kubectl(&["apply", "-f", &file.path().display().to_string()]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("violates PodSecurity"), "Pod Security is not enforced");

    for component in [Component::Kubelet, Component::ApiServer, Component::Containerd, Component::Etcd] {
        let before = cluster.pid(component).expect("it runs");
        timed(&mut report, &format!("{component} killed → ready again"), || {
            cluster.kill(component);
            cluster.await_ready();
        });
        assert_ne!(cluster.pid(component).expect("it is back"), before);
    }
    cluster.stop(Component::ApiServer);
    assert_eq!(cluster.pid(Component::ApiServer), None);
    assert_eq!(get(&url).await, "hello-0 GET / 4", "Services go on without the API server");
    cluster.start(Component::ApiServer);
    cluster.await_ready();

    timed(&mut report, "Pod deleted → answers again", || {
        cluster.kubectl(&["delete", "pod", "-n", "smoke", "hello-0", "--now"]);
        cluster.kubectl(&["rollout", "status", "-n", "smoke", "statefulset/hello", "--timeout=60s"]);
    });
    assert_eq!(get(&url).await, "hello-0 GET / 5", "the volume outlives the Pod");

    timed(&mut report, "reboot", || cluster.reboot());
    assert!(get(&url).await.starts_with("hello-0 GET / "), "volume and Pod outlive a reboot");
    timed(&mut report, "down", || cluster.down());
    keep("cluster-smoke.txt", &report);
}
