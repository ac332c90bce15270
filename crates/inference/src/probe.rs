//! Whether the model is there: asked of its server again and again.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use obol_offer::{ModelState, Runtime};
use serde::Deserialize;
use serde_json::json;

use crate::{
    model::Model,
    pull,
    upstream::{Upstream, UpstreamError},
};

/// Between two looks at a model that is there, and at one that is not.
const INTERVAL: Duration = Duration::from_secs(10);
const IMPATIENT: Duration = Duration::from_secs(2);
/// Bound on one look.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bound on an answer of one token, where the server has to be asked for it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Looks between two such questions: they cost the model's time.
const ANSWERS_EVERY: u32 = 30;

/// Models by their names, as `GET /v1/models` lists them.
#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    data: Vec<Id>,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

/// The names that a server lists.
///
/// # Errors
/// What to think of the model where the server lists nothing.
pub async fn list(upstream: &Upstream, patience: Duration) -> Result<Vec<String>, ModelState> {
    let answer = upstream.question(Method::GET, "/v1/models", Bytes::new(), patience).await;
    let (status, body) = answer.map_err(|error| unreachable(upstream, &error))?;
    match status {
        200 => {
            let listed: Listed = serde_json::from_slice(&body).map_err(|_| ModelState::Unreachable {
                message: format!("{} answers GET /v1/models with something else than a list of models", upstream.base()),
            })?;
            Ok(listed.data.into_iter().map(|model| model.id).collect())
        }
        503 => Err(ModelState::Loading),
        404 | 405 => Ok(Vec::new()),
        401 | 403 => Err(ModelState::Unreachable { message: format!("{} refuses the key that it is given ({status})", upstream.base()) }),
        status => Err(ModelState::Unreachable { message: format!("{} answers GET /v1/models with {status}", upstream.base()) }),
    }
}

fn unreachable(upstream: &Upstream, error: &UpstreamError) -> ModelState {
    ModelState::Unreachable { message: format!("the model server at {}: {error}", upstream.base()) }
}

/// Looks again and again, until dropped. Fetches a missing model where the offer says so.
pub async fn watch(model: Arc<Model>) {
    let mut looks = 0;
    loop {
        let mut state = look(&model, looks % ANSWERS_EVERY == 0).await;
        if matches!(state, ModelState::Missing { .. }) && model.config.pull && is_ollama(&model).await {
            state = pull::fetch(&model).await;
        }
        let ready = state.is_ready();
        model.set_state(state);
        looks = if ready { looks.wrapping_add(1) } else { 0 };
        tokio::time::sleep(if ready { INTERVAL } else { IMPATIENT }).await;
    }
}

async fn look(model: &Model, ask: bool) -> ModelState {
    let name = &model.config.upstream_name;
    let listed = match list(&model.upstream, TIMEOUT).await {
        Ok(listed) => listed,
        Err(state) => return state,
    };
    if listed.iter().any(|id| is_same(id, name)) {
        return ModelState::Pulled;
    }
    // Ollama lists all that it has. Others answer to more names than they list, or list nothing.
    if model.config.runtime == Some(Runtime::Ollama) || is_ollama(model).await {
        return missing(name, &listed);
    }
    if !ask && model.state().is_ready() {
        return ModelState::Pulled;
    }
    answer(model, &listed).await
}

/// Ollama lists `llama3` as `llama3:latest`.
fn is_same(id: &str, name: &str) -> bool {
    id == name || id.strip_suffix(":latest") == Some(name)
}

fn missing(name: &str, listed: &[String]) -> ModelState {
    let mut has: Vec<&str> = listed.iter().map(String::as_str).take(10).collect();
    has.sort_unstable();
    let has = if has.is_empty() { "no model".to_owned() } else { has.join(", ") };
    ModelState::Missing { message: format!("the model server does not have `{name}`; it has {has}") }
}

/// Asks for one token; a server that does not list the model may have it all the same.
async fn answer(model: &Model, listed: &[String]) -> ModelState {
    let name = &model.config.upstream_name;
    let questions = [
        ("/v1/chat/completions", json!({ "model": name, "max_tokens": 1, "messages": [{ "role": "user", "content": "hi" }] })),
        ("/v1/embeddings", json!({ "model": name, "input": "hi" })),
    ];
    let mut state = missing(name, listed);
    for (path, body) in questions {
        let answer = model.upstream.question(Method::POST, path, Bytes::from(body.to_string()), ANSWER_TIMEOUT).await;
        match answer {
            Ok((200, _)) => return ModelState::Pulled,
            Ok((503, _)) => return ModelState::Loading,
            Ok(_) => {}
            Err(error) => state = unreachable(&model.upstream, &error),
        }
    }
    state
}

/// Whether the server is an Ollama.
async fn is_ollama(model: &Model) -> bool {
    let answer = model.upstream.question(Method::GET, "/api/version", Bytes::new(), TIMEOUT).await;
    model.config.runtime.is_none_or(|runtime| runtime == Runtime::Ollama)
        && answer.is_ok_and(|(status, body)| status == 200 && serde_json::from_slice::<Version>(&body).is_ok())
}

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "version")]
    _version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_ollama_does() {
        assert!(is_same("llama3:latest", "llama3") && is_same("llama3", "llama3") && is_same("llama3:8b", "llama3:8b"));
        assert!(!is_same("llama3:8b", "llama3") && !is_same("llama3", "llama3:latest"));
    }

    #[test]
    fn what_is_there_instead_is_told() {
        let ModelState::Missing { message } = missing("a", &["c".into(), "b".into()]) else { panic!() };
        assert_eq!(message, "the model server does not have `a`; it has b, c");
    }
}
