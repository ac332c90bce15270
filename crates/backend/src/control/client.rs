use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use obol_offer::{Address, Amount, OfferName};
use obol_reconcile::{PlanItem, PlannedChange};
use obol_stackdir::{DEFAULT_ADMIN_PORT, Dirs};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};

use super::{
    MintRequest, NodeStatus, OfferView, PaymentPage, PaymentQuery, PaymentRecord, Problem, Refund, RefundRequest, SOCKET, SandboxBalance,
    SyncRequest, SyncResult, payments,
};

/// Largest answer we read: ten thousand offers fit many times over.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// A way to the node of one set of directories, or to a gateway in a cluster, which is asked about payments alone.
/// Every call makes a connection of its own, so a client stays good over a restart of the node.
#[derive(Clone, Debug)]
pub struct Client {
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Socket(PathBuf),
    /// Through the API server, to the port of this Pod.
    Pod(Api<Pod>, String),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Why the node could not be asked, or what it refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No node runs on these directories.
    #[error("no node is running (nothing listens on {0})")]
    NotRunning(PathBuf),
    /// The API server leads to no such Pod, or the kubeconfig's user may not go there.
    #[error("no port of the Pod {pod} can be forwarded: {cause}")]
    Pod {
        /// `namespace/name`.
        pod: String,
        /// What the API server said.
        cause: String,
    },
    /// The socket is there, and we may not open it.
    #[error("{path} cannot be opened: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The node went away in the middle of an answer.
    #[error("the node did not finish its answer: {0}")]
    Broken(String),
    /// The answer is not what this version of obol understands.
    #[error("the node's answer is not understood: {0}")]
    Answer(String),
    /// The node refused.
    #[error("{}", .0.message)]
    Refused(Problem),
}

impl ControlError {
    /// Stable identifier; the node's own for a refusal.
    pub fn code(&self) -> &str {
        match self {
            Self::NotRunning(_) => "not_running",
            Self::Pod { .. } => "control_pod",
            Self::Connect { .. } => "control_connect",
            Self::Broken(_) => "control_broken",
            Self::Answer(_) => "control_answer",
            Self::Refused(problem) => &problem.code,
        }
    }

    /// Whether the reason is that no node runs.
    pub const fn is_not_running(&self) -> bool {
        matches!(self, Self::NotRunning(_))
    }
}

impl Client {
    /// Finds the node of these directories.
    ///
    /// # Errors
    /// [`ControlError::NotRunning`] when there is none, [`ControlError::Connect`] when its socket
    /// cannot be opened.
    pub async fn connect(dirs: &Dirs) -> Result<Self, ControlError> {
        let client = Self { way: Way::Socket(dirs.state.join(SOCKET)) };
        client.open().await.map(|_| client)
    }

    /// A way to the x402 gateway in a Pod. Nobody is asked yet.
    pub(crate) const fn of_pod(pods: Api<Pod>, name: String) -> Self {
        Self { way: Way::Pod(pods, name) }
    }

    /// The whole node.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn status(&self) -> Result<NodeStatus, ControlError> {
        self.get("/v1/status").await
    }

    /// Runs the pass now for one slice or for all, and answers after publication.
    ///
    /// # Errors
    /// [`ControlError`]. A broken slice is no error: its view says so.
    pub async fn sync(&self, name: Option<&OfferName>) -> Result<Vec<OfferView>, ControlError> {
        let answer: SyncResult = self.post("/v1/sync", &SyncRequest { name: name.cloned() }).await?;
        Ok(answer.offers)
    }

    /// One offer.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with code `offer_unknown` when there is no such slice.
    pub async fn offer(&self, name: &OfferName) -> Result<OfferView, ControlError> {
        self.get(&format!("/v1/offers/{name}")).await
    }

    /// What a pass would change now: the files against what is served.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn plan(&self) -> Result<Vec<PlannedChange>, ControlError> {
        self.get("/v1/plan").await
    }

    /// The specs that are served, for a plan of the caller's own.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn observed(&self) -> Result<Vec<PlanItem>, ControlError> {
        self.get("/v1/observed").await
    }

    /// Payments of the journal, the newest first, a page at a time.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn payments(&self, query: &PaymentQuery) -> Result<PaymentPage, ControlError> {
        self.get(&format!("/v1/payments?{}", payments::render(query))).await
    }

    /// Payments of the journal and the archives in no particular order, a page at a time. One that
    /// is archived meanwhile may come twice.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn export(&self, query: &PaymentQuery) -> Result<PaymentPage, ControlError> {
        self.get(&format!("/v1/payments/export?{}", payments::render(query))).await
    }

    /// Notes that the money of an owed payment was sent back; the payment as it is then.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with code `payment_not_owed` when nothing is owed for it.
    pub async fn note_refund(&self, key: &str, refund: Refund) -> Result<PaymentRecord, ControlError> {
        self.post("/v1/payments/refund", &RefundRequest { key: key.to_owned(), refund }).await
    }

    /// Asks the node to finish what it has begun and to end.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn shutdown(&self) -> Result<(), ControlError> {
        self.post::<_, serde::de::IgnoredAny>("/v1/shutdown", &serde_json::json!({})).await.map(|_| ())
    }

    /// Play money of an address in the node's sandbox.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn sandbox_balance(&self, address: Address) -> Result<Amount, ControlError> {
        let answer: SandboxBalance = self.get(&format!("/v1/sandbox/balance/{address}")).await?;
        Ok(answer.balance)
    }

    /// Makes play money out of nothing and returns the new balance.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn sandbox_mint(&self, address: Address, amount: Amount) -> Result<Amount, ControlError> {
        let answer: SandboxBalance = self.post("/v1/sandbox/mint", &MintRequest { address, amount }).await?;
        Ok(answer.balance)
    }

    /// The socket; `None` for a gateway in a cluster.
    pub fn socket(&self) -> Option<&Path> {
        match &self.way {
            Way::Socket(socket) => Some(socket),
            Way::Pod(..) => None,
        }
    }

    async fn open(&self) -> Result<Box<dyn Stream>, ControlError> {
        match &self.way {
            Way::Socket(socket) => match UnixStream::connect(socket).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(source) => Err(match source.kind() {
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => ControlError::NotRunning(socket.clone()),
                    _ => ControlError::Connect { path: socket.clone(), source },
                }),
            },
            Way::Pod(pods, name) => {
                let failed = |cause: String| ControlError::Pod { pod: format!("{}/{name}", pods.namespace().unwrap_or_default()), cause };
                let mut forward = pods.portforward(name, &[DEFAULT_ADMIN_PORT]).await.map_err(|error| failed(error.to_string()))?;
                let stream = forward.take_stream(DEFAULT_ADMIN_PORT).ok_or_else(|| failed("there is no such port".to_owned()))?;
                Ok(Box::new(stream))
            }
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ControlError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    async fn post<B: Serialize + Sync, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ControlError> {
        let body = serde_json::to_vec(body).map_err(|e| ControlError::Answer(e.to_string()))?;
        self.call(Method::POST, path, body.into()).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ControlError> {
        let broken = |e: &dyn std::fmt::Display| ControlError::Broken(e.to_string());
        let stream = TokioIo::new(self.open().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(|e| broken(&e))?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "obol")
            .header("content-type", "application/json")
            .header("connection", "close")
            .body(Full::new(body))
            .map_err(|e| broken(&e))?;
        let answer = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| broken(&e))?.to_bytes();
        connection.abort();
        decode(status, &body)
    }
}

fn decode<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, ControlError> {
    let not_understood = |e: serde_json::Error| ControlError::Answer(e.to_string());
    if status.is_success() {
        return serde_json::from_slice(body).map_err(not_understood);
    }
    Err(ControlError::Refused(serde_json::from_slice(body).map_err(not_understood)?))
}
