//! What is wrong with a request, in the shape that OpenAI's clients read.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

/// An answer that says no. The code is stable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable identifier.
    pub code: &'static str,
    /// What is wrong and what to do, as a sentence.
    pub message: String,
    /// The field it is about.
    pub param: Option<String>,
    /// When to come back.
    pub retry_after: Option<Duration>,
    /// For 405.
    pub allow: Option<&'static str>,
}

impl Problem {
    /// A problem without a field.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), param: None, retry_after: None, allow: None }
    }

    /// A request that is refused for one of its fields.
    pub fn field(code: &'static str, param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.chars().take(80).collect()), ..Self::new(StatusCode::BAD_REQUEST, code, message) }
    }

    pub(crate) fn retry(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    pub(crate) fn not_served() -> Self {
        let message = "only /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses and /v1/models are served here";
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(crate) fn method(allow: &'static str) -> Self {
        let message = format!("use {allow} here");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message) }
    }

    /// The body: OpenAI's error object.
    pub fn body(&self) -> String {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } }).to_string()
    }
}
