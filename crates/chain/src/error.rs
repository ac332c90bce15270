//! Why a node gave no usable answer.

use alloy_primitives::Bytes;

/// Why a node gave no usable answer. Texts are bounded and never hold a node's URL, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// No node is configured, or the HTTP client could not be made.
    #[error("no node can be asked: {cause}")]
    NoNode {
        /// Why.
        cause: String,
    },
    /// The request certainly reached nobody.
    #[error("the node cannot be reached: {cause}")]
    Unreachable {
        /// What the connection said.
        cause: String,
    },
    /// The connection broke or timed out; the request may have been read.
    #[error("the node did not answer: {cause}")]
    NoAnswer {
        /// What the connection said.
        cause: String,
    },
    /// An HTTP status without a JSON-RPC answer.
    #[error("the node answered HTTP {0}")]
    Http(u16),
    /// More than is ever read.
    #[error("the node's answer is too long")]
    TooLong,
    /// No JSON-RPC answer to what was asked.
    #[error("the node's answer makes no sense: {cause}")]
    Garbage {
        /// What is wrong.
        cause: String,
    },
    /// A node of another chain.
    #[error("the node serves chain {found}, not {expected}")]
    WrongChain {
        /// Chain id that was asked for.
        expected: u64,
        /// Chain id that the node has.
        found: u64,
    },
    /// The node's own error.
    #[error("the node says: {message} ({number})")]
    Node {
        /// JSON-RPC error code.
        number: i64,
        /// At most 200 printable characters.
        message: String,
        /// What a reverted call returned.
        data: Option<Bytes>,
    },
}

impl RpcError {
    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoNode { .. } => "rpc_no_node",
            Self::Unreachable { .. } => "rpc_unreachable",
            Self::NoAnswer { .. } => "rpc_no_answer",
            Self::Http(_) => "rpc_http",
            Self::TooLong => "rpc_too_long",
            Self::Garbage { .. } => "rpc_garbage",
            Self::WrongChain { .. } => "rpc_wrong_chain",
            Self::Node { .. } => "rpc_node",
        }
    }

    /// The contract's words, when the call was executed and refused: the chain's answer, not a node's trouble.
    pub fn revert(&self) -> Option<String> {
        let Self::Node { number, message, data } = self else { return None };
        if *number != 3 && !message.contains("revert") {
            return None;
        }
        let said = data.as_ref().and_then(|data| alloy_sol_types::decode_revert_reason(data));
        let said = said.as_deref().unwrap_or(message);
        let said = said.trim_start_matches("execution reverted").trim_start_matches(':').trim();
        Some(tidy(said.trim_start_matches("revert:").trim()))
    }

    /// What a reverted call returned.
    pub(crate) fn revert_data(&self) -> Option<&[u8]> {
        let Self::Node { data, .. } = self else { return None };
        data.as_ref().map(AsRef::as_ref)
    }

    /// Whether nothing that was sent with it can have an effect.
    pub(crate) const fn never_sent(&self) -> bool {
        matches!(self, Self::NoNode { .. } | Self::Unreachable { .. } | Self::WrongChain { .. })
    }

    pub(crate) fn says(&self, words: &[&str]) -> bool {
        let Self::Node { message, .. } = self else { return false };
        let message = message.to_ascii_lowercase();
        words.iter().any(|word| message.contains(word))
    }
}

/// At most 200 printable characters.
pub(crate) fn tidy(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
