//! What the x402 gateway says it has loaded: the one honest source of `PaymentGateReady`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{Id, http, settings::Gate};

/// Path of the report on the gateway's admin listener.
pub const REPORT_PATH: &str = "/offers";
/// How often the gateway is asked while something it should have is missing.
const HURRY: Duration = Duration::from_millis(150);
/// Failures in a row before the gateway counts as away: a restart is none.
const PATIENCE: u32 = 3;

/// What a gateway has loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Every offer that it knows.
    pub offers: Vec<Loaded>,
}

/// One offer as a gateway knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Namespace of the object.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: a new object of the same name is another offer.
    pub uid: String,
    /// Generation of the spec.
    pub generation: i64,
    /// Whether it has a place in the route table.
    pub routed: bool,
}

/// What all gateways together have loaded: of each offer the least of all replicas.
pub(crate) type Gates = BTreeMap<Id, Loaded>;

/// What came of asking, if anybody did.
type Asked = Option<Result<Arc<Gates>, String>>;

/// Asks the gateway again and again.
#[derive(Clone)]
pub(crate) struct GateWatch {
    last: Arc<Mutex<Asked>>,
    /// Whether something is missing there.
    pub(crate) waiting: Arc<AtomicBool>,
    /// Told by the pass when something is.
    pub(crate) hurry: Arc<Notify>,
}

impl GateWatch {
    pub(crate) fn new() -> Self {
        Self { last: Arc::default(), waiting: Arc::default(), hurry: Arc::default() }
    }

    /// The last answer; `None` before the first.
    pub(crate) fn last(&self) -> Asked {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs until dropped.
    pub(crate) async fn run(self, gate: Gate, changed: Arc<Notify>) {
        let mut failures = 0;
        loop {
            let answer = ask(&gate).await;
            failures = if answer.is_ok() { 0 } else { failures + 1 };
            let fresh = answer.map(Arc::new);
            if fresh.is_ok() || failures >= PATIENCE || self.last().is_none() {
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.as_ref() != Some(&fresh) {
                    *last = Some(fresh);
                    changed.notify_one();
                }
            }
            let pause = if self.waiting.load(Ordering::Relaxed) { HURRY } else { gate.interval };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.hurry.notified() => tokio::time::sleep(HURRY / 3).await,
            }
        }
    }
}

async fn ask(gate: &Gate) -> Result<Gates, String> {
    let mut all: Option<Gates> = None;
    for answer in http::get_each(&gate.admin, REPORT_PATH).await? {
        let (status, body) = answer?;
        if !status.is_success() {
            return Err(format!("{}{REPORT_PATH} answered {status}", gate.admin.as_str().trim_end_matches('/')));
        }
        let report: Report = serde_json::from_slice(&body).map_err(|error| format!("its report cannot be read: {error}"))?;
        let one: Gates = report.offers.into_iter().map(|offer| ((offer.namespace.clone(), offer.name.clone()), offer)).collect();
        all = Some(match all {
            None => one,
            Some(all) => all.into_iter().filter_map(|(id, loaded)| Some((id.clone(), least(loaded, one.get(&id)?)?))).collect(),
        });
    }
    all.ok_or_else(|| "it has no address".to_owned())
}

fn least(a: Loaded, b: &Loaded) -> Option<Loaded> {
    (a.uid == b.uid).then(|| Loaded { generation: a.generation.min(b.generation), routed: a.routed && b.routed, ..a })
}
