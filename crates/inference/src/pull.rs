//! Has an Ollama server fetch the model, and follows how far it is.

use std::{collections::BTreeMap, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use http::Method;
use http_body_util::BodyExt as _;
use obol_offer::ModelState;
use serde::Deserialize;
use serde_json::json;

use crate::model::Model;

/// Until the server must say something.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two lines of progress.
const SILENCE: Duration = Duration::from_secs(300);
/// Longest line of progress in bytes.
const MAX_LINE: usize = 64 * 1024;

/// One line of `POST /api/pull`.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    status: String,
    digest: Option<String>,
    total: Option<u64>,
    completed: Option<u64>,
    error: Option<String>,
}

/// How far it is: bytes by layer.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    buffer: BytesMut,
    layers: BTreeMap<String, (u64, u64)>,
    done: bool,
    error: Option<String>,
}

impl Progress {
    /// Takes what came.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(end);
            self.buffer.advance(1);
            self.line(&line);
        }
        if self.buffer.len() > MAX_LINE {
            self.buffer.clear();
        }
    }

    fn line(&mut self, line: &[u8]) {
        let Ok(line) = serde_json::from_slice::<Line>(line) else { return };
        self.done |= line.status == "success";
        self.error = line.error.map(|error| error.chars().take(300).collect()).or(self.error.take());
        if let (Some(digest), Some(total)) = (line.digest, line.total)
            && (self.layers.len() < 1000 || self.layers.contains_key(&digest))
        {
            self.layers.insert(digest, (line.completed.unwrap_or(0), total));
        }
    }

    /// What to think of the model.
    pub(crate) fn state(&self) -> ModelState {
        match &self.error {
            Some(error) => ModelState::Missing { message: format!("the model server cannot fetch the model: {error}") },
            None if self.done => ModelState::Pulled,
            None => {
                let sum = |pick: fn(&(u64, u64)) -> u64| self.layers.values().map(pick).fold(0, u64::saturating_add);
                ModelState::Pulling { done: sum(|layer| layer.0), total: sum(|layer| layer.1) }
            }
        }
    }
}

/// Has the model fetched. Its state says how far it is meanwhile.
pub(crate) async fn fetch(model: &Model) -> ModelState {
    let name = &model.config.upstream_name;
    tracing::info!(offer = model.config.offer, model = name, "the model server is told to fetch the model");
    let body = Bytes::from(json!({ "model": name, "stream": true }).to_string());
    let failed = |message: String| ModelState::Missing { message: format!("the model server cannot fetch the model: {message}") };
    let answer = match model.upstream.ask(Method::POST, "/api/pull", body, None, HEAD_TIMEOUT).await {
        Ok(answer) => answer,
        Err(error) => return failed(error.to_string()),
    };
    let status = answer.status();
    let mut progress = Progress::default();
    let mut body = answer.into_body();
    loop {
        match tokio::time::timeout(SILENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    progress.push(data);
                }
            }
            Ok(None) => break,
            Ok(Some(Err(error))) => return failed(error.to_string()),
            Err(_) => return failed("it fell silent".to_owned()),
        }
        model.set_state(progress.state());
    }
    progress.push(b"\n");
    match progress.state() {
        ModelState::Pulling { .. } => failed(format!("it ended early ({status})")),
        state => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_summed_over_the_layers() {
        let mut progress = Progress::default();
        progress.push(b"{\"status\":\"pulling manifest\"}\n{\"status\":\"pulling a\",\"digest\":\"a\",\"total\":100,\"comp");
        assert_eq!(progress.state(), ModelState::Pulling { done: 0, total: 0 });
        progress.push(b"leted\":40}\n{\"status\":\"pulling b\",\"digest\":\"b\",\"total\":10}\nnonsense\n");
        assert_eq!(progress.state(), ModelState::Pulling { done: 40, total: 110 });
        progress.push(b"{\"status\":\"success\"}\n");
        assert_eq!(progress.state(), ModelState::Pulled);
        progress.push(b"{\"error\":\"pull model manifest: file does not exist\"}\n");
        assert_eq!(progress.state().reason(), "Missing");
    }
}
