use std::path::PathBuf;

use obol_offer::OfferName;

/// Why a cluster cannot be used, or what went wrong there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The kubeconfig or its context cannot be used.
    #[error("context `{context}` of the kubeconfig cannot be used: {cause}")]
    Context {
        /// The context asked for.
        context: String,
        /// Why not.
        cause: String,
    },
    /// The API server does not answer.
    #[error("the cluster of context `{context}` does not answer: {cause}")]
    Unreachable {
        /// The context.
        context: String,
        /// What the connection said.
        cause: String,
    },
    /// The API server answered, and refused.
    #[error("the cluster refuses to {action}: {cause}")]
    Refused {
        /// What was asked.
        action: String,
        /// What it said.
        cause: String,
    },
    /// A program is not installed, or too old.
    #[error("{program} {cause}")]
    Program {
        /// Which.
        program: &'static str,
        /// What is wrong with it.
        cause: String,
        /// How to get it.
        fix: String,
    },
    /// A program ran and failed.
    #[error("`{command}` failed: {cause}")]
    Failed {
        /// What was run.
        command: String,
        /// The last of what it said.
        cause: String,
    },
    /// A file of ours.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A chart or a values file cannot be read.
    #[error("{path}: {cause}")]
    Values {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A helm release has the name of one of ours and another chart.
    #[error("release `{name}` in namespace `{namespace}` was not installed by obol (chart {chart})")]
    Foreign {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
        /// Its chart.
        chart: String,
    },
    /// Another stack lives in the cluster.
    #[error("the cluster belongs to the stack `{theirs}`, and this one is `{ours}`")]
    OtherStack {
        /// Its id.
        theirs: String,
        /// This one's.
        ours: String,
    },
    /// The cluster has no Gateway API.
    #[error("the cluster has no Gateway API")]
    NoGatewayApi,
    /// Nothing of the stack runs in the cluster.
    #[error("the stack is not up in this cluster")]
    NotUp,
    /// Something did not become ready in time.
    #[error("{what} is not ready after {seconds} s: {why}")]
    NotReady {
        /// A workload.
        what: String,
        /// How long it was waited for.
        seconds: u64,
        /// What it is waiting for.
        why: String,
    },
    /// A secret is neither here nor in the cluster.
    #[error("the secret {key} is neither in the cluster nor readable here: {cause}")]
    Secret {
        /// Its key in the cluster.
        key: String,
        /// Why it cannot be read; holds nothing of it.
        cause: String,
    },
    /// No gateway of the stack can be asked.
    #[error("no x402 gateway runs in this cluster")]
    NoGateway,
    /// No offer of this name is in the cluster.
    #[error("offer `{0}` is not in the cluster")]
    UnknownOffer(OfferName),
}

/// Where the Gateway API's resources come from.
pub(super) const GATEWAY_API: &str = "https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.6.1/standard-install.yaml";

impl ClusterError {
    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Context { .. } => "cluster_context",
            Self::Unreachable { .. } => "cluster_unreachable",
            Self::Refused { .. } => "cluster_refused",
            Self::Program { .. } => "program_missing",
            Self::Failed { .. } => "program_failed",
            Self::File { .. } => "cluster_file",
            Self::Values { .. } => "cluster_values",
            Self::Foreign { .. } => "release_foreign",
            Self::OtherStack { .. } => "other_stack",
            Self::NoGatewayApi => "gateway_api_missing",
            Self::NotUp => "stack_not_up",
            Self::NotReady { .. } => "cluster_not_ready",
            Self::Secret { .. } => "secret_missing",
            Self::NoGateway => "no_gateway",
            Self::UnknownOffer(_) => "offer_not_in_cluster",
        }
    }

    /// What to type next.
    pub fn fix(&self) -> String {
        match self {
            Self::Context { .. } => "type `kubectl config get-contexts`, and correct `context` in stack.yaml".to_owned(),
            Self::Unreachable { context, .. } => format!("start the cluster, or check it with `kubectl --context {context} get nodes`"),
            Self::Refused { .. } => "check the rights of the kubeconfig's user".to_owned(),
            Self::Program { fix, .. } => fix.clone(),
            Self::Failed { .. } => "correct what it complains of, and type `obol stack up` again".to_owned(),
            Self::File { .. } => "check who owns it, and the space on the disk".to_owned(),
            Self::Values { .. } => "correct the file, or delete it to have it written anew".to_owned(),
            Self::Foreign { name, .. } if name == "traefik" => {
                "write `ingress: {install: false, gateway: NAMESPACE/NAME}` in stack.yaml to use it, or uninstall it".to_owned()
            }
            Self::Foreign { .. } => "uninstall it, or choose another name".to_owned(),
            Self::OtherStack { .. } => "choose another cluster, or use that stack's folder".to_owned(),
            Self::NoGatewayApi => format!("type `kubectl apply --server-side -f {GATEWAY_API}`"),
            Self::NotUp | Self::UnknownOffer(_) => "type `obol stack up`".to_owned(),
            Self::Secret { .. } => "correct the reference in stack.yaml, or put the secret where it says".to_owned(),
            Self::NoGateway => "type `obol stack status` for what it waits for, or `obol stack up`".to_owned(),
            Self::NotReady { .. } => "see `obol stack status`, and `kubectl describe` it".to_owned(),
        }
    }

    /// Whether the cluster itself cannot be reached.
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Context { .. })
    }
}

/// What the API server said to one request.
pub(super) fn refused(action: impl Into<String>) -> impl FnOnce(kube::Error) -> ClusterError {
    let action = action.into();
    move |error| match error {
        kube::Error::Api(status) => ClusterError::Refused { action, cause: status.message.trim().to_owned() },
        other => ClusterError::Refused { action, cause: other.to_string() },
    }
}
