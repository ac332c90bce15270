//! A small JSON-RPC 2.0 client: several nodes in order, each answer bounded and checked.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use alloy_primitives::{Bytes, U64};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use url::Url;

use crate::error::{RpcError, tidy};

/// Largest answer read. The largest that is asked for is the receipt of one transaction.
const MAX_BODY: usize = 4 << 20;

/// Nodes of one chain.
pub struct Rpc {
    client: reqwest::Client,
    nodes: Vec<Node>,
    chain_id: u64,
    timeout: Duration,
    /// The node that answered last: asked first.
    preferred: AtomicUsize,
    next_id: AtomicU64,
}

struct Node {
    url: Url,
    /// Its chain id was seen, and is ours.
    checked: AtomicBool,
}

/// What became of a transaction that was handed to the nodes.
#[derive(Debug)]
pub(crate) enum Broadcast {
    /// A node has it.
    Accepted,
    /// A node may have it.
    Unclear(RpcError),
    /// No node has taken it.
    Rejected(RpcError),
}

impl std::fmt::Debug for Rpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rpc({} nodes of chain {})", self.nodes.len(), self.chain_id)
    }
}

impl Rpc {
    /// Nodes in order of preference, all of one chain, with a bound on each question.
    ///
    /// # Errors
    /// [`RpcError::NoNode`].
    pub fn new(urls: &[Url], chain_id: u64, timeout: Duration) -> Result<Self, RpcError> {
        if urls.is_empty() {
            return Err(RpcError::NoNode { cause: "none is configured".to_owned() });
        }
        Ok(Self {
            client: obol_settle::http_client().map_err(|cause| RpcError::NoNode { cause })?,
            nodes: urls.iter().map(|url| Node { url: url.clone(), checked: AtomicBool::new(false) }).collect(),
            chain_id,
            timeout,
            preferred: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
        })
    }

    /// Asks one node after the other until one answers. That the call was reverted is an answer.
    ///
    /// # Errors
    /// [`RpcError`] of the last node.
    pub async fn call<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T, RpcError> {
        let mut last = None;
        for (index, node) in self.in_order() {
            let answer = self.checked(node, method, &params).await.and_then(|value| {
                serde_json::from_value(value).map_err(|error| RpcError::Garbage { cause: tidy(&format!("{method}: {error}")) })
            });
            match answer {
                Err(error) if error.revert().is_none() => {
                    tracing::debug!(host = node.url.host_str(), method, %error, "a node gave no usable answer");
                    last = Some(error);
                }
                answer => {
                    self.preferred.store(index, Relaxed);
                    return answer;
                }
            }
        }
        Err(last.unwrap_or(RpcError::NoNode { cause: "none is configured".to_owned() }))
    }

    /// Hands a signed transaction to every node in turn until one has it. The same transaction
    /// twice is one transaction.
    pub(crate) async fn broadcast(&self, raw: &Bytes) -> Broadcast {
        let (mut unclear, mut rejected) = (None, None);
        for (index, node) in self.in_order() {
            match self.checked(node, "eth_sendRawTransaction", &json!([raw])).await {
                Ok(_) => {
                    self.preferred.store(index, Relaxed);
                    return Broadcast::Accepted;
                }
                Err(error) if error.says(&["already known", "already imported", "already exists"]) => return Broadcast::Accepted,
                Err(error @ RpcError::Node { .. }) => rejected = Some(error),
                Err(error) if error.never_sent() => rejected = rejected.or(Some(error)),
                Err(error) => unclear = Some(error),
            }
        }
        match (unclear, rejected) {
            (Some(error), _) => Broadcast::Unclear(error),
            (None, Some(error)) => Broadcast::Rejected(error),
            (None, None) => Broadcast::Rejected(RpcError::NoNode { cause: "none is configured".to_owned() }),
        }
    }

    fn in_order(&self) -> impl Iterator<Item = (usize, &Node)> {
        let first = self.preferred.load(Relaxed);
        let nodes = || self.nodes.iter().enumerate();
        nodes().filter(move |(index, _)| *index == first).chain(nodes().filter(move |(index, _)| *index != first))
    }

    /// Asks a node, which must serve our chain: another one's answers would be taken for the truth.
    async fn checked(&self, node: &Node, method: &str, params: &Value) -> Result<Value, RpcError> {
        if !node.checked.load(Relaxed) {
            let said = self.ask(node, "eth_chainId", &json!([])).await?;
            let found: U64 = serde_json::from_value(said).map_err(|error| RpcError::Garbage { cause: format!("eth_chainId: {error}") })?;
            let found = found.to::<u64>();
            if found != self.chain_id {
                return Err(RpcError::WrongChain { expected: self.chain_id, found });
            }
            node.checked.store(true, Relaxed);
        }
        self.ask(node, method, params).await
    }

    async fn ask(&self, node: &Node, method: &str, params: &Value) -> Result<Value, RpcError> {
        let id = self.next_id.fetch_add(1, Relaxed);
        let question = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let asked = tokio::time::timeout(self.timeout, self.exchange(node, &question)).await;
        let (status, body) = asked.map_err(|_| RpcError::NoAnswer { cause: "timed out".to_owned() })??;
        read_answer(status, &body, id)
    }

    async fn exchange(&self, node: &Node, question: &Value) -> Result<(u16, Vec<u8>), RpcError> {
        let sent = self.client.post(node.url.clone()).json(question).send().await;
        let mut response = sent.map_err(|error| {
            let cause = describe(&error);
            if error.is_connect() || error.is_builder() { RpcError::Unreachable { cause } } else { RpcError::NoAnswer { cause } }
        })?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| RpcError::NoAnswer { cause: describe(&error) })? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(RpcError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok((response.status().as_u16(), body))
    }
}

/// An error with its causes, without the URL.
fn describe(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "timed out".to_owned() } else { "broken".to_owned() };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    tidy(&text)
}

/// The result in a JSON-RPC answer to question `id`. Nodes put errors under any HTTP status.
pub(crate) fn read_answer(status: u16, body: &[u8], id: u64) -> Result<Value, RpcError> {
    let garbage = |cause: &str| RpcError::Garbage { cause: tidy(cause) };
    let mut answer: Map<String, Value> = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(_) if status != 200 => return Err(RpcError::Http(status)),
        Err(error) => return Err(garbage(&error.to_string())),
    };
    if let Some(Value::Object(error)) = answer.get("error") {
        let data = error.get("data").and_then(|data| data.as_str().or_else(|| data.get("data")?.as_str()));
        return Err(RpcError::Node {
            number: error.get("code").and_then(Value::as_i64).unwrap_or_default(),
            message: tidy(error.get("message").and_then(Value::as_str).unwrap_or_default()),
            data: data.and_then(|data| data.parse().ok()),
        });
    }
    if status != 200 {
        return Err(RpcError::Http(status));
    }
    if answer.get("id").and_then(Value::as_u64) != Some(id) {
        return Err(garbage("an answer to another question"));
    }
    answer.remove("result").ok_or_else(|| garbage("neither result nor error"))
}
