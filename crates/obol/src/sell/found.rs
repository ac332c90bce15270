//! Model servers on this machine, or wherever `OBOL_MODEL_SERVERS` says.

use std::{fmt, time::Duration};

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

/// Base URLs to look at instead of the usual ones, separated by commas.
const PLACES: &str = "OBOL_MODEL_SERVERS";

/// Where a server may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Base URL.
    pub url: String,
    /// Whose server listens there as a rule.
    label: Option<&'static str>,
    /// What it is, where that is sure.
    pub runtime: Option<Runtime>,
    patience: Duration,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.label {
            Some(label) => write!(f, "{label}, {}", self.url),
            None => f.write_str(&self.url),
        }
    }
}

/// A server that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub place: Place,
    /// The models that it has.
    pub models: Vec<String>,
}

/// People know their server's address with the `/v1` of its calls; a port is the same on every backend without.
pub fn base(url: &str) -> &str {
    let url = url.trim();
    url.trim_end_matches('/').strip_suffix("/v1").unwrap_or(url)
}

/// Where to look: at the server that is named, at those of `OBOL_MODEL_SERVERS`, or at the usual ones.
pub fn places(named: Option<&str>) -> Vec<Place> {
    let told = std::env::var(PLACES).unwrap_or_default();
    let urls: Vec<&str> = named.map_or_else(|| told.split(',').filter(|url| !url.trim().is_empty()).collect(), |url| vec![url]);
    let named = |url: &&str| Place { url: base(url).to_owned(), label: None, runtime: None, patience: NAMED_PATIENCE };
    let usual = |(label, port, runtime): &(&'static str, u16, Option<Runtime>)| Place {
        url: format!("http://localhost:{port}"),
        label: Some(label),
        runtime: *runtime,
        patience: PATIENCE,
    };
    if urls.is_empty() { USUAL.iter().map(usual).collect() } else { urls.iter().map(named).collect() }
}

/// Asks all at once which models they have.
pub async fn scan(places: &[Place]) -> Vec<Server> {
    let asked: Vec<_> = places.iter().cloned().map(|place| tokio::spawn(ask(place))).collect();
    let mut found = Vec::new();
    for answer in asked {
        found.extend(answer.await.ok().flatten());
    }
    found
}

async fn ask(place: Place) -> Option<Server> {
    let base: Url = place.url.parse().ok()?;
    let upstream = Upstream::new(&base, None).ok()?;
    let models = probe::list(&upstream, place.patience).await.ok().filter(|models| !models.is_empty())?;
    Some(Server { place, models })
}
