//! What goes wrong on the command line: a stable code, a sentence, the place, and what to type next.

use std::{io, path::PathBuf};

use obol_backend::{NodeError, cluster::ClusterError, control::ControlError};
use obol_offer::{OfferName, Violation};
use obol_stackdir::{Diagnostic, StackError};
use serde::Serialize;

use crate::exit::Exit;

/// One thing that is wrong, for people and for machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Stable identifier of the rule or cause.
    pub code: String,
    /// What is wrong, as a sentence without a full stop.
    pub message: String,
    /// `file:line:column`, a flag, or a field.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What to type or write next.
    pub fix: String,
}

/// Why a command did not do its work.
#[derive(Debug)]
pub enum Error {
    /// Values that break rules; nothing was written.
    Refused(Vec<Problem>),
    /// Slices on disk that are broken, where the command needs them whole.
    Broken(Vec<Diagnostic>),
    /// A use of the command line that clap cannot see is wrong.
    Usage {
        /// Stable identifier.
        code: &'static str,
        /// Sentence.
        message: String,
        /// What to type.
        fix: String,
    },
    /// No slice has this name.
    UnknownOffer {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<OfferName>,
    },
    /// There is no stack directory.
    NoStack(PathBuf),
    /// No node can be reached for this stack directory.
    NoNode {
        /// Why we think so.
        why: String,
    },
    /// A file could not be read or written.
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The stack directory could not be changed.
    Stack(StackError),
    /// The person at the terminal said no.
    Cancelled,
    /// Anything a part below reports with its own code.
    Failed(Problem),
    /// Several things failed, and the rest was done.
    Several(Vec<Problem>),
    /// The cluster cannot be reached, or refuses.
    Cluster(ClusterError),
}

impl Problem {
    /// A problem without a place.
    pub fn new(code: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), at: None, fix: fix.into() }
    }

    /// The same problem at a place.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.at = Some(place.into());
        self
    }
}

impl From<Violation> for Problem {
    fn from(v: Violation) -> Self {
        Self { code: v.code.to_owned(), message: v.message, at: Some(v.field), fix: v.fix }
    }
}

impl From<&Diagnostic> for Problem {
    fn from(d: &Diagnostic) -> Self {
        Self { code: d.code.clone(), message: d.message.clone(), at: Some(place(d)), fix: d.fix.clone() }
    }
}

/// `file:line:column`, as far as it is known.
pub fn place(d: &Diagnostic) -> String {
    let file = d.file.display();
    match (d.line, d.column) {
        (0, _) => file.to_string(),
        (line, 0) => format!("{file}:{line}"),
        (line, column) => format!("{file}:{line}:{column}"),
    }
}

impl Error {
    /// A failure with its own code.
    pub fn failed(code: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Failed(Problem::new(code, message, fix))
    }

    /// A file could not be read or written.
    pub fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// How the process ends.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Refused(_) | Self::Usage { .. } | Self::Stack(StackError::Invalid { .. } | StackError::NameTaken { .. }) => Exit::Usage,
            Self::NoNode { .. } => Exit::Unreachable,
            Self::Cluster(ClusterError::NoGateway) => Exit::Unreachable,
            Self::Cluster(error) if error.is_unreachable() => Exit::Unreachable,
            _ => Exit::Failed,
        }
    }

    /// Everything that is wrong; never empty.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Refused(problems) => problems.clone(),
            Self::Broken(diagnostics) => diagnostics.iter().map(Problem::from).collect(),
            Self::Usage { code, message, fix } => vec![Problem::new(*code, message, fix)],
            Self::UnknownOffer { name, known } => vec![unknown_offer(name, known)],
            Self::NoStack(root) => {
                vec![Problem::new("stack_missing", format!("there is no stack in {}", root.display()), "type `obol stack init`")]
            }
            Self::NoNode { why } => vec![Problem::new("node_unreachable", why.clone(), "type `obol stack up`")],
            Self::Io { path, source } => {
                let problem = Problem::new("io", source.to_string(), "check that the path exists and is yours to use");
                vec![problem.at(path.display().to_string())]
            }
            Self::Stack(error) if !error.diagnostics().is_empty() => error.diagnostics().iter().map(Problem::from).collect(),
            Self::Stack(error) => vec![Problem::new(error.code(), error.to_string(), error.fix())],
            Self::Cancelled => vec![Problem::new("cancelled", "nothing was changed", "add --yes to skip the question")],
            Self::Failed(problem) => vec![problem.clone()],
            Self::Several(problems) => problems.clone(),
            Self::Cluster(error) => vec![Problem::new(error.code(), error.to_string(), error.fix())],
        }
    }
}

impl From<StackError> for Error {
    fn from(error: StackError) -> Self {
        match error {
            StackError::NotInitialised { root } => Self::NoStack(root),
            other => Self::Stack(other),
        }
    }
}

impl From<ClusterError> for Error {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

impl From<ControlError> for Error {
    fn from(error: ControlError) -> Self {
        match &error {
            ControlError::Pod { .. } => {
                Self::failed(error.code(), error.to_string(), "check that your user may `create` `pods/portforward` in namespace x402")
            }
            ControlError::NotRunning(_) | ControlError::Connect { .. } | ControlError::Broken(_) => Self::NoNode { why: error.to_string() },
            _ => Self::failed(error.code(), error.to_string(), "type `obol stack status`; if versions differ, restart the node"),
        }
    }
}

impl From<NodeError> for Error {
    fn from(error: NodeError) -> Self {
        let text = error.to_string();
        // The node's own sentences end with what to do, where it knows that.
        let (message, told) = text.split_once("; ").unwrap_or((&text, ""));
        let fix = match (&error, told) {
            (NodeError::AlreadyRunning(_), _) => "type `obol stack status`, or `obol stack down` to end it",
            (NodeError::Stack(_), _) => "correct stack.yaml",
            (_, "") => "check OBOL_DATA_DIR and OBOL_STATE_DIR, and who owns them",
            (_, told) => told,
        };
        Self::failed(error.code(), message, fix)
    }
}

fn unknown_offer(name: &str, known: &[OfferName]) -> Problem {
    let name: String = name.chars().take(80).collect();
    let fix = match known {
        [] => "there are no offers yet: type `obol sell http NAME --upstream URL --price 0.001`".to_owned(),
        known if known.len() <= 8 => {
            format!("choose one of {}", known.iter().map(OfferName::as_str).collect::<Vec<_>>().join(", "))
        }
        _ => "type `obol sell list`".to_owned(),
    };
    Problem::new("offer_unknown", format!("there is no offer `{name}`"), fix)
}
