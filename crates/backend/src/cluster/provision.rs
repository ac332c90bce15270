//! Local clusters: the few commands of k3d and k3s that bring one up, and where the machine is as
//! seen from inside. Thin on purpose; tested against recorded answers.

use std::{net::IpAddr, path::Path};

use obol_stackdir::{BackendKind, Dirs, StackConfig};
use serde_json::Value;
use tokio::process::Command;

use super::{ClusterError, helmfile::Target, tools};

/// k3s' own kubeconfig.
const K3S_KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";

/// How the stack's cluster is reached; nothing is asked yet.
pub(super) fn target(config: &StackConfig) -> Target {
    match config.backend {
        BackendKind::K3d => Target { context: format!("k3d-{}", config.id), kubeconfig: None },
        BackendKind::K3s => Target { context: "default".to_owned(), kubeconfig: Some(K3S_KUBECONFIG.into()) },
        _ => Target { context: config.context.clone().unwrap_or_default(), kubeconfig: None },
    }
}

/// Brings the cluster up, if it is one that obol provisions.
pub(super) async fn up(dirs: &Dirs, config: &StackConfig, line: &mut (dyn FnMut(&str) + Send)) -> Result<(), ClusterError> {
    match config.backend {
        BackendKind::K3d => {
            let k3d = k3d(&dirs.data)?;
            match k3d_state(&k3d, &config.id).await? {
                None => {
                    // Ours is the Traefik that buyers come through, so k3s brings none.
                    let port = format!("{}:80@loadbalancer", config.listen);
                    let arguments = ["cluster", "create", &config.id, "--wait", "--k3s-arg", "--disable=traefik@server:*", "--port", &port];
                    tools::run(Command::new(&k3d).args(arguments), line).await?;
                }
                Some(0) => tools::run(Command::new(&k3d).args(["cluster", "start", &config.id, "--wait"]), line).await?,
                Some(_) => {}
            }
            load_image(&dirs.data, Command::new(&k3d).args(["image", "import", "--cluster", &config.id]), line).await
        }
        BackendKind::K3s => {
            let k3s = k3s(&dirs.data)?;
            let systemctl = systemctl(&dirs.data)?;
            let active = Command::new(&systemctl).args(["is-active", "--quiet", "k3s"]).status().await;
            if !active.is_ok_and(|status| status.success()) {
                // Returns when the API server answers, by which time its kubeconfig is written.
                tools::run(Command::new(systemctl).args(["start", "k3s"]), line).await?;
            }
            load_image(&dirs.data, Command::new(&k3s).args(["ctr", "images", "import"]), line).await
        }
        _ => Ok(()),
    }
}

/// Stops the cluster, if obol has made it.
pub(super) async fn down(dirs: &Dirs, config: &StackConfig, line: &mut (dyn FnMut(&str) + Send)) -> Result<(), ClusterError> {
    if config.backend != BackendKind::K3d {
        return Ok(());
    }
    tools::run(Command::new(k3d(&dirs.data)?).args(["cluster", "stop", &config.id]), line).await
}

/// Deletes the cluster with everything in it, if obol has made it.
pub(super) async fn delete(dirs: &Dirs, config: &StackConfig, line: &mut (dyn FnMut(&str) + Send)) -> Result<(), ClusterError> {
    if config.backend != BackendKind::K3d {
        return Ok(());
    }
    tools::run(Command::new(k3d(&dirs.data)?).args(["cluster", "delete", &config.id]), line).await
}

/// The machine's address as Pods see it; `None` for clusters that run elsewhere.
pub(super) async fn host(dirs: &Dirs, config: &StackConfig) -> Result<Option<IpAddr>, ClusterError> {
    let output = match config.backend {
        BackendKind::K3d => {
            let docker = tools::find("docker", &dirs.data).ok_or_else(|| missing("docker", "k3d needs it"))?;
            let network = format!("k3d-{}", config.id);
            output(Command::new(docker).args(["network", "inspect", &network, "--format", "{{(index .IPAM.Config 0).Gateway}}"])).await?
        }
        BackendKind::K3s => {
            let k3s = k3s(&dirs.data)?;
            let path = "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}";
            output(Command::new(k3s).args(["kubectl", "get", "nodes", "-o", path])).await?
        }
        _ => return Ok(None),
    };
    Ok(output.split_whitespace().find_map(|word| word.parse().ok()))
}

/// Imports the image's tar where one lies ready; else the cluster pulls it.
async fn load_image(data: &Path, import: &mut Command, line: &mut (dyn FnMut(&str) + Send)) -> Result<(), ClusterError> {
    let file = data.join("images").join(concat!("obol-v", env!("CARGO_PKG_VERSION"), ".tar"));
    if !file.is_file() {
        return Ok(());
    }
    tools::run(import.arg(file), line).await
}

/// How many of the cluster's servers run; `None` when there is no such cluster.
async fn k3d_state(k3d: &Path, id: &str) -> Result<Option<u64>, ClusterError> {
    let text = output(Command::new(k3d).args(["cluster", "list", "--output", "json"])).await?;
    let clusters: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
    let found = clusters.iter().find(|cluster| cluster["name"] == id);
    Ok(found.map(|cluster| cluster["serversRunning"].as_u64().unwrap_or_default()))
}

fn k3d(data: &Path) -> Result<std::path::PathBuf, ClusterError> {
    let fix = "install k3d v5.8.3 from https://k3d.io, and Docker; or write `backend: kubernetes` with a context of your own";
    tools::find("k3d", data).ok_or_else(|| missing("k3d", fix))
}

fn k3s(data: &Path) -> Result<std::path::PathBuf, ClusterError> {
    let fix =
        "type `curl -sfL https://get.k3s.io | INSTALL_K3S_VERSION=v1.34.1+k3s1 sh -s - --disable=traefik --write-kubeconfig-mode=644`";
    tools::find("k3s", data).ok_or_else(|| missing("k3s", fix))
}

fn systemctl(data: &Path) -> Result<std::path::PathBuf, ClusterError> {
    let fix = "k3s is run by systemd here; without it start k3s yourself and write `backend: kubernetes` with its context";
    tools::find("systemctl", data).ok_or_else(|| missing("systemctl", fix))
}

fn missing(program: &'static str, fix: &str) -> ClusterError {
    ClusterError::Program { program, cause: "is not installed".to_owned(), fix: fix.to_owned() }
}

async fn output(command: &mut Command) -> Result<String, ClusterError> {
    let mut text = String::new();
    tools::run(command, &mut |line| {
        text.push_str(line);
        text.push('\n');
    })
    .await?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A program that writes down how it was called, and answers what the real one was seen to.
    fn fake(data: &Path, name: &str, answers: &str) {
        let bin = data.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        let script = format!("#!/bin/sh\necho \"{name} $*\" >> {}/calls\ncase \"$*\" in\n{answers}\nesac\n", data.display());
        std::fs::write(bin.join(name), script).unwrap();
        std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn calls(data: &Path) -> Vec<String> {
        std::fs::read_to_string(data.join("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn stack(backend: BackendKind) -> (tempfile::TempDir, Dirs, StackConfig) {
        let folder = tempfile::tempdir().unwrap();
        let dirs = Dirs::under(folder.path());
        std::fs::create_dir_all(&dirs.data).unwrap();
        let config = StackConfig { id: "shop".to_owned(), backend, ..Default::default() };
        (folder, dirs, config)
    }

    #[tokio::test]
    async fn a_k3d_cluster_is_created_once_started_when_stopped_and_left_alone_when_it_runs() {
        for (list, expected) in [
            ("[]", Some("k3d cluster create shop --wait --k3s-arg --disable=traefik@server:* --port 127.0.0.1:8402:80@loadbalancer")),
            (r#"[{"name":"shop","serversCount":1,"serversRunning":0}]"#, Some("k3d cluster start shop --wait")),
            (r#"[{"name":"shop","serversCount":1,"serversRunning":1}]"#, None),
        ] {
            let (_folder, dirs, config) = stack(BackendKind::K3d);
            fake(&dirs.data, "k3d", &format!("  'cluster list'*) echo '{list}';;"));
            up(&dirs, &config, &mut |_| {}).await.unwrap();
            let called = calls(&dirs.data);
            assert_eq!(called.first().map(String::as_str), Some("k3d cluster list --output json"));
            assert_eq!(called.get(1).map(String::as_str), expected);
        }
    }

    #[tokio::test]
    async fn an_image_that_lies_ready_is_imported_and_the_machine_is_found() {
        let (_folder, dirs, config) = stack(BackendKind::K3d);
        fake(&dirs.data, "k3d", r#"  'cluster list'*) echo '[{"name":"shop","serversRunning":1}]';;"#);
        fake(&dirs.data, "docker", "  'network inspect k3d-shop'*) echo 172.18.0.1;;");
        let image = dirs.data.join("images").join(concat!("obol-v", env!("CARGO_PKG_VERSION"), ".tar"));
        std::fs::create_dir_all(image.parent().unwrap()).unwrap();
        std::fs::write(&image, "").unwrap();
        up(&dirs, &config, &mut |_| {}).await.unwrap();
        assert_eq!(calls(&dirs.data)[1], format!("k3d image import --cluster shop {}", image.display()));
        assert_eq!(host(&dirs, &config).await.unwrap(), Some("172.18.0.1".parse().unwrap()));
        down(&dirs, &config, &mut |_| {}).await.unwrap();
        assert_eq!(calls(&dirs.data).last().unwrap(), "k3d cluster stop shop");
        delete(&dirs, &config, &mut |_| {}).await.unwrap();
        assert_eq!(calls(&dirs.data).last().unwrap(), "k3d cluster delete shop");
    }

    #[tokio::test]
    async fn k3s_is_started_when_it_does_not_run_and_is_left_running() {
        for (active, expected) in [("exit 3", Some("systemctl start k3s")), ("exit 0", None)] {
            let (_folder, dirs, config) = stack(BackendKind::K3s);
            fake(&dirs.data, "systemctl", &format!("  is-active*) {active};;"));
            fake(&dirs.data, "k3s", "  'kubectl get nodes'*) echo 192.0.2.7;;");
            let image = dirs.data.join("images").join(concat!("obol-v", env!("CARGO_PKG_VERSION"), ".tar"));
            std::fs::create_dir_all(image.parent().unwrap()).unwrap();
            std::fs::write(&image, "").unwrap();
            up(&dirs, &config, &mut |_| {}).await.unwrap();
            let import = format!("k3s ctr images import {}", image.display());
            let wanted: Vec<_> = ["systemctl is-active --quiet k3s"].into_iter().chain(expected).chain([import.as_str()]).collect();
            assert_eq!(calls(&dirs.data), wanted);
            assert_eq!(host(&dirs, &config).await.unwrap(), Some("192.0.2.7".parse().unwrap()));
            // We did not make it, and others may use it.
            let before = calls(&dirs.data).len();
            down(&dirs, &config, &mut |_| {}).await.unwrap();
            delete(&dirs, &config, &mut |_| {}).await.unwrap();
            assert_eq!(calls(&dirs.data).len(), before);
        }
    }

    #[tokio::test]
    async fn what_a_program_complains_of_is_told() {
        let (_folder, dirs, config) = stack(BackendKind::K3d);
        fake(&dirs.data, "k3d", "  'cluster list'*) echo '[]';; *) echo 'Error: port 8402 is taken' >&2; exit 1;;");
        let error = up(&dirs, &config, &mut |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("k3d cluster create shop") && error.to_string().contains("port 8402 is taken"), "{error}");
    }

    #[test]
    fn every_backend_has_its_context() {
        let (_folder, _, config) = stack(BackendKind::K3d);
        assert_eq!(target(&config).context, "k3d-shop");
        let k3s = target(&StackConfig { backend: BackendKind::K3s, ..config.clone() });
        assert_eq!((k3s.context.as_str(), k3s.kubeconfig.as_deref()), ("default", Some(Path::new(K3S_KUBECONFIG))));
        let own = StackConfig { backend: BackendKind::Kubernetes, context: Some("prod".to_owned()), ..config };
        assert_eq!(target(&own).context, "prod");
    }
}
