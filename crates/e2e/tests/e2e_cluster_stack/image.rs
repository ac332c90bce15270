//! The image through the tool that makes it: into the node's containerd, and by a registry.

use std::{process::Command, time::Duration};

use obol_e2e::{cluster::Cluster, forward::Forward, obol_binary, part, process::Process, repository};

#[tokio::test(flavor = "multi_thread")]
async fn e2e_cluster_image_is_loaded_pushed_and_pulled_by_digest() {
    let cluster = Cluster::up();
    let mut registry = Process::start("registry", Command::new(part("cluster/bin/registry")).args(["--port", "0"]));
    let port = registry.wait_for(Duration::from_secs(10), |line| line.split_once("serving on port ").map(|(_, port)| port.to_owned()));
    let seen = Forward::to(&format!("http://127.0.0.1:{port}")).await;
    let seen = seen.url.trim_start_matches("http://").to_owned();
    cluster.trust_registry(&seen);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let name = "obol.test/obol:loaded";
    let mut xtask = Command::new(env!("CARGO"));
    xtask.args(["xtask", "image", "--load", "containerd", "--name", name, "--push", &format!("127.0.0.1:{port}/team/obol:v1"), "--binary"]);
    xtask.arg(obol_binary()).arg("--output").arg(folder.path()).current_dir(repository());
    cluster.with_containerd(&mut xtask);
    let output = xtask.output().expect("cargo starts");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "cargo xtask image failed: {out}\n{error}");
    let digest = out.lines().find(|line| line.starts_with("sha256:")).expect("it prints the digest");
    println!("{out}");
    assert!(folder.path().join("obol.cdx.json").is_file(), "its bill of materials lies beside it");

    // The loaded one is there, whoever pulls nothing; the pushed one comes as the kubelet pulls it.
    let pulled = format!("{seen}/team/obol@{digest}");
    for (pod, image, policy) in [("loaded", name, "Never"), ("pulled", &pulled, "Always")] {
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {pod}, namespace: default }}\n\
             spec:\n  restartPolicy: Never\n  containers: [{{ name: obol, image: '{image}', imagePullPolicy: {policy}, args: [--version] }}]\n"
        ));
        cluster.wait("default", &format!("pod/{pod}"), "jsonpath={.status.phase}=Succeeded", Duration::from_secs(60));
        assert!(cluster.kubectl(&["logs", pod]).starts_with("obol "), "it is our program");
        let status = cluster.object(&format!("pod/{pod}"), "default").expect("it has just run");
        println!("{pod}: {}", status["status"]["containerStatuses"][0]["imageID"]);
        cluster.kubectl(&["delete", "pod", pod, "--now"]);
    }
}
