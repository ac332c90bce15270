//! The stack in a Kubernetes cluster: one pass makes the releases there equal to the files here, with
//! the real `helm` and `helmfile` as the one way in.
//!
//! Nothing is remembered on this side. What Helm keeps in the cluster says what was installed with
//! which chart and values, and what lives there says whether somebody has changed it since; a
//! release that is right in both is not touched, so a pass over unchanged offers starts no helm.

mod chart;
mod desired;
mod drift;
mod entrance;
mod error;
mod ground;
mod helm;
mod helmfile;
mod observe;
mod pass;
mod provision;
mod remove;
mod secrets;
mod tools;

use std::time::Duration;

use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use obol_stackdir::{Dirs, StackConfig, StackDir};

pub use error::ClusterError;
pub use observe::{ClusterStatus, Workload};
pub use pass::{PassReport, ReleaseChange, ReleaseOutcome, ReleasePlan, Timing};
pub use remove::Removed;
pub use secrets::SecretPlan;

use helmfile::Target;

/// Where gateway and controller live.
pub const SYSTEM_NAMESPACE: &str = "x402";
/// Field manager of what obol makes outside its charts.
const MANAGER: &str = "obol";

/// Told what a pass is doing, a line at a time; `true` for lines of the programs it runs.
pub type Progress<'a> = dyn FnMut(&str, bool) + Send + 'a;

/// A stack and the cluster that it runs in.
#[derive(Clone)]
pub struct Cluster {
    dirs: Dirs,
    dir: StackDir,
    config: StackConfig,
    target: Target,
    client: Client,
}

impl Cluster {
    /// Reaches the cluster of `stack.yaml`.
    ///
    /// # Errors
    /// [`ClusterError::Context`] when the kubeconfig does not say how, [`ClusterError::Unreachable`]
    /// when nothing answers there.
    pub async fn connect(dirs: &Dirs, config: &StackConfig) -> Result<Self, ClusterError> {
        let target = provision::target(config);
        let client = client(&target).await?;
        Ok(Self { dirs: dirs.clone(), dir: StackDir::at(&dirs.config), config: config.clone(), target, client })
    }

    /// Brings up a cluster that obol provisions (k3d, k3s), then reaches it.
    ///
    /// # Errors
    /// As [`Cluster::connect`], and what the programs complain of.
    pub async fn provision(dirs: &Dirs, config: &StackConfig, progress: &mut Progress<'_>) -> Result<Self, ClusterError> {
        provision::up(dirs, config, &mut |line| progress(line, true)).await?;
        Self::connect(dirs, config).await
    }

    /// The kubeconfig context in use.
    pub fn context(&self) -> &str {
        &self.target.context
    }

    /// A client of the API server.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// The context that `kubectl` would use now.
pub fn current_context() -> Option<String> {
    Kubeconfig::read().ok()?.current_context.filter(|context| !context.is_empty())
}

async fn client(target: &Target) -> Result<Client, ClusterError> {
    // The first caller in the process chooses; all of ours choose the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let context = &target.context;
    let wrong = |cause: String| ClusterError::Context { context: context.clone(), cause };
    let kubeconfig = match &target.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let kubeconfig = kubeconfig.map_err(|error| wrong(error.to_string()))?;
    let options = KubeConfigOptions { context: Some(context.clone()), ..Default::default() };
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| wrong(error.to_string()))?;
    config.connect_timeout = Some(Duration::from_secs(10));
    let client = Client::try_from(config).map_err(|error| wrong(error.to_string()))?;
    match client.apiserver_version().await {
        Ok(_) => Ok(client),
        Err(kube::Error::Api(status)) => {
            Err(ClusterError::Refused { action: "tell its version".to_owned(), cause: status.message.clone() })
        }
        Err(error) => Err(ClusterError::Unreachable { context: context.clone(), cause: deepest(&error) }),
    }
}

/// The innermost cause, which says most.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
