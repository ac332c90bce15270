//! Model servers on this machine.

use std::time::Duration;

use obol_inference::{probe, upstream::Upstream};
use obol_offer::Runtime;
use url::Url;

/// Bound on the answer of a server that is perhaps not there.
const PATIENCE: Duration = Duration::from_millis(800);
/// And of one that was named.
const NAMED_PATIENCE: Duration = Duration::from_secs(5);

/// Where servers listen unless told otherwise.
const USUAL: [(&str, u16, Option<Runtime>); 5] = [
    ("Ollama", 11434, Some(Runtime::Ollama)),
    ("vLLM", 8000, None),
    ("llama.cpp", 8080, None),
    ("LM Studio", 1234, None),
    ("LiteLLM", 4000, None),
];

/// A server that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Whose it most likely is.
    pub label: String,
    /// Base URL.
    pub url: String,
    /// What it is, where that is sure.
    pub runtime: Option<Runtime>,
    /// The models that it has.
    pub models: Vec<String>,
}

/// Asks the server at `named`, else at every usual place at once, which models it has.
pub async fn scan(named: Option<&str>) -> Vec<Server> {
    let places: Vec<(String, String, Option<Runtime>, Duration)> = match named {
        Some(url) => vec![(url.to_owned(), url.to_owned(), None, NAMED_PATIENCE)],
        None => USUAL
            .iter()
            .map(|(label, port, runtime)| ((*label).to_owned(), format!("http://localhost:{port}"), *runtime, PATIENCE))
            .collect(),
    };
    let asked: Vec<_> =
        places.into_iter().map(|(label, url, runtime, patience)| tokio::spawn(ask(label, url, runtime, patience))).collect();
    let mut found = Vec::new();
    for answer in asked {
        found.extend(answer.await.ok().flatten());
    }
    found
}

async fn ask(label: String, url: String, runtime: Option<Runtime>, patience: Duration) -> Option<Server> {
    let base: Url = url.parse().ok()?;
    let upstream = Upstream::new(&base, None).ok()?;
    let models = probe::list(&upstream, patience).await.ok().filter(|models| !models.is_empty())?;
    Some(Server { label, url, runtime, models })
}
