//! What is known of a sold model at its model server.

use serde::{Deserialize, Serialize};

use crate::status::ConditionStatus;

/// What is known of a sold model at its model server; the condition `ModelReady` in other words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum ModelState {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// The server has the model, and answers with it.
    Pulled,
    /// The server is bringing the model into memory.
    Loading,
    /// The server is fetching the model.
    Pulling {
        /// Bytes that are there.
        done: u64,
        /// Bytes in all, as far as they are known.
        total: u64,
    },
    /// The server does not have the model.
    Missing {
        /// What it has instead, or why it could not be fetched.
        message: String,
    },
    /// The server does not answer, or answers with an error.
    Unreachable {
        /// Why.
        message: String,
    },
}

impl ModelState {
    /// Whether requests can be answered.
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Pulled)
    }

    /// Status of the condition.
    pub const fn status(&self) -> ConditionStatus {
        match self {
            Self::Unknown => ConditionStatus::Unknown,
            Self::Pulled => ConditionStatus::True,
            _ => ConditionStatus::False,
        }
    }

    /// One CamelCase word, stable.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unknown => "NotProbed",
            Self::Pulled => "Pulled",
            Self::Loading => "Loading",
            Self::Pulling { .. } => "Pulling",
            Self::Missing { .. } => "Missing",
            Self::Unreachable { .. } => "Unreachable",
        }
    }

    /// A sentence for people.
    pub fn message(&self) -> String {
        match self {
            Self::Unknown => "nobody has looked yet".to_owned(),
            Self::Pulled => "the model server has the model".to_owned(),
            Self::Loading => "the model server is loading the model".to_owned(),
            Self::Pulling { done, total: 0 } => format!("the model server is fetching the model, {} MiB so far", done >> 20),
            Self::Pulling { done, total } => format!("the model server is fetching the model, {} of {} MiB", done >> 20, total >> 20),
            Self::Missing { message } | Self::Unreachable { message } => message.clone(),
        }
    }
}
