//! Whether the models of inference offers are served: asked of each offer's own Pod.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt as _;
use obol_offer::{ConditionStatus, ModelState};
use obol_reconcile::Finding;
use tokio::sync::{Notify, watch};
use url::Url;

use crate::{Id, http};

/// Admin port of an inference Pod.
pub const INFERENCE_ADMIN_PORT: u16 = 9403;
const PATH: &str = "/model";
const INTERVAL: Duration = Duration::from_secs(5);
const CONCURRENCY: usize = 16;

type Targets = Arc<BTreeMap<Id, Url>>;

/// What a Pod said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub model: Finding,
    pub upstream: Finding,
}

/// Asks the Pods again and again.
#[derive(Clone)]
pub(crate) struct ModelWatch {
    targets: watch::Sender<Targets>,
    found: Arc<Mutex<BTreeMap<Id, Served>>>,
}

impl ModelWatch {
    pub(crate) fn new() -> Self {
        Self { targets: watch::Sender::default(), found: Arc::default() }
    }

    /// Replaces the set of offers that are asked about.
    pub(crate) fn set(&self, offers: impl IntoIterator<Item = Id>) {
        let url = |(namespace, name): &Id| format!("http://{name}-inference.{namespace}.svc:{INFERENCE_ADMIN_PORT}/").parse().ok();
        let wanted: BTreeMap<Id, Url> = offers.into_iter().filter_map(|id| Some((id.clone(), url(&id)?))).collect();
        self.targets.send_if_modified(|targets| {
            let changed = **targets != wanted;
            if changed {
                *targets = Arc::new(wanted);
            }
            changed
        });
    }

    /// What was found of an offer's model.
    pub(crate) fn last(&self, id: &Id) -> Option<Served> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Runs until dropped.
    pub(crate) async fn run(self, changed: Arc<Notify>) {
        let mut targets = self.targets.subscribe();
        loop {
            let wanted = targets.borrow_and_update().clone();
            let all: Vec<(Id, Url)> = wanted.iter().map(|(id, url)| (id.clone(), url.clone())).collect();
            let asked = futures_util::stream::iter(all).map(|(id, url)| async move { (id, ask(&url).await) });
            let found: BTreeMap<Id, Served> = asked.buffer_unordered(CONCURRENCY).collect().await;
            let differs = {
                let mut known = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                let differs = *known != found;
                *known = found;
                differs
            };
            if differs {
                changed.notify_one();
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                changed = targets.changed() => if changed.is_err() { return },
            }
        }
    }
}

async fn ask(url: &Url) -> Served {
    let away = |why: String| Served {
        model: Finding(ConditionStatus::Unknown, "WaitingForInference", why.clone()),
        upstream: Finding(ConditionStatus::Unknown, "WaitingForInference", why),
    };
    let answers = match http::get_each(url, PATH).await {
        Ok(answers) if !answers.is_empty() => answers,
        Ok(_) => return away("the inference gateway has no address yet".to_owned()),
        Err(why) => return away(why),
    };
    let states = answers.into_iter().map(|answer| {
        let (status, body) = answer?;
        let state: Option<ModelState> = Some(body).filter(|_| status.is_success()).and_then(|body| serde_json::from_slice(&body).ok());
        state.ok_or_else(|| format!("the inference gateway answered {status} without a state of the model"))
    });
    // One Pod that serves is enough; the Service sends nobody to others.
    let mut best: Option<Result<ModelState, String>> = None;
    for state in states {
        if best.is_none() || state.as_ref().is_ok_and(ModelState::is_ready) {
            best = Some(state);
        }
    }
    match best {
        Some(Ok(state)) => Served { model: (&state).into(), upstream: upstream(&state) },
        Some(Err(why)) => away(why),
        None => away("the inference gateway does not answer".to_owned()),
    }
}

/// What the state of a model says of its server.
fn upstream(state: &ModelState) -> Finding {
    match state {
        ModelState::Unknown => Finding(ConditionStatus::Unknown, "NotProbed", "nobody has looked yet".to_owned()),
        ModelState::Unreachable { message } => Finding(ConditionStatus::False, "Unhealthy", message.clone()),
        _ => Finding(ConditionStatus::True, "Healthy", "the model server answers".to_owned()),
    }
}
