//! The one helmfile pass: a file with just the releases that change, and helmfile over it.

use std::path::{Path, PathBuf};

use fs_err as fs;
use obol_stackdir::{Dirs, StackDir};
use serde_json::json;
use tokio::process::Command;

use super::{
    ClusterError,
    desired::Desired,
    tools::{self, Tools},
};

/// What the pass does with one release.
pub(super) enum Step<'a> {
    Install(&'a Desired),
    /// Name and namespace.
    Remove(&'a str, &'a str),
}

/// How to reach the cluster.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) context: String,
    /// Where the context is; the environment's own when absent.
    pub(super) kubeconfig: Option<PathBuf>,
}

/// A folder for one pass, gone when it is dropped: values may hold the address of a node with its
/// key.
struct Scratch(PathBuf);

impl Scratch {
    fn make(dirs: &Dirs) -> Result<Self, ClusterError> {
        let path = dirs.state.join("pass");
        let failed = |source| ClusterError::File { path: path.clone(), source };
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        crate::files::make_private(&path).map_err(|error| failed(std::io::Error::other(error.to_string())))?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, ClusterError> {
        let path = self.0.join(name);
        fs::write(&path, text).map_err(|source| ClusterError::File { path: path.clone(), source })?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs helmfile over these steps at once, none of which needs another: one that fails then leaves the
/// others alone. (With `needs`, helmfile stops after the first group that has a failure.)
pub(super) async fn apply(
    dirs: &Dirs,
    dir: &StackDir,
    tools: &Tools,
    target: &Target,
    steps: &[Step<'_>],
    line: &mut (dyn FnMut(&str) + Send),
) -> Result<(), ClusterError> {
    let scratch = Scratch::make(dirs)?;
    // JSON is YAML, but helmfile looks for its top-level keys at the beginning of lines.
    let mut text = "releases:\n".to_owned();
    for (index, step) in steps.iter().enumerate() {
        let release = match step {
            Step::Install(desired) => json!({
                "name": desired.name,
                "namespace": desired.namespace,
                "chart": dir.root().join("charts").join(desired.chart),
                "values": [scratch.write(&format!("values-{index}.yaml"), &desired.values.to_string())?],
            }),
            // Helmfile wants a chart even of what goes; it is not read.
            Step::Remove(name, namespace) => json!({
                "name": name, "namespace": namespace, "chart": dir.root().join("charts/sell-http"), "installed": false,
            }),
        };
        text.push_str(&format!("  - {release}\n"));
    }
    let file = scratch.write("helmfile.yaml", &text)?;
    run(tools, target, &file, &["sync", "--sync-args=--force-conflicts"], line).await
}

/// Runs somebody's own helmfile, as it is.
pub(super) async fn sync_own(tools: &Tools, target: &Target, file: &Path, line: &mut (dyn FnMut(&str) + Send)) -> Result<(), ClusterError> {
    run(tools, target, file, &["sync"], line).await
}

/// Takes away what somebody's own helmfile has installed.
pub(super) async fn destroy_own(
    tools: &Tools,
    target: &Target,
    file: &Path,
    line: &mut (dyn FnMut(&str) + Send),
) -> Result<(), ClusterError> {
    run(tools, target, file, &["destroy"], line).await
}

async fn run(tools: &Tools, target: &Target, file: &Path, verb: &[&str], line: &mut (dyn FnMut(&str) + Send)) -> Result<(), ClusterError> {
    let mut command = Command::new(&tools.helmfile);
    command.arg("--file").arg(file).arg("--helm-binary").arg(&tools.helm);
    command.args(["--kube-context", &target.context, "--no-color"]);
    // A pass must not wait for somebody else's server.
    command.env("HELMFILE_UPGRADE_NOTICE_DISABLED", "1");
    // Our charts depend on no others; somebody's own may.
    if verb.len() > 1 {
        command.arg("--skip-deps");
    }
    if let Some(kubeconfig) = &target.kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    // More helm processes than this only take turns.
    let at_once = std::thread::available_parallelism().map_or(4, |cores| cores.get() * 2);
    command.args(verb).arg(format!("--concurrency={at_once}"));
    tools::run(&mut command, line).await
}
