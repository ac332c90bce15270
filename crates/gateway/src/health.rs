//! Health probes: whether the upstreams of the offers are well, asked again and again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, StatusCode, Uri, header};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use obol_offer::{Offer, OfferSpec, Upstream};
use obol_reconcile::{Health, Probe};
use time::OffsetDateTime;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};

/// Between two probes of one upstream, when there are few.
const INTERVAL: Duration = Duration::from_secs(10);
/// Until a probe is given up.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Probes under way at once.
const CONCURRENCY: usize = 32;
/// Probes per second at most: ten thousand upstreams are each asked every 50 s.
const PER_SECOND: u32 = 200;

/// What is probed. Offers with the same upstream share one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    url: String,
    /// The seller named no health path, so any answer but a failure shows that the upstream lives.
    lenient: bool,
}

impl Target {
    /// The probe of an offer.
    pub fn of(offer: &Offer, spec: &OfferSpec) -> Self {
        let base = match &offer.upstream {
            Upstream::Url(url) => url.as_str().trim_end_matches('/').to_owned(),
            Upstream::Host { port } => format!("http://127.0.0.1:{port}"),
            Upstream::Service { name, namespace, port } => format!("http://{name}.{namespace}.svc:{port}"),
        };
        Self { url: format!("{base}{}", offer.health_path), lenient: spec.upstream.health_path.is_none() }
    }

    fn judge(&self, status: StatusCode) -> Health {
        match status {
            status if status.is_success() => Health::Healthy,
            StatusCode::NOT_FOUND if self.lenient => Health::Reachable,
            status => Health::Unhealthy(format!("GET {} answered {}", self.url, status.as_u16())),
        }
    }
}

/// Client of a [`Prober`].
pub type HttpClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Probes what it is told to, and knows what came of it. Cheap to clone.
#[derive(Clone)]
pub struct Prober {
    targets: watch::Sender<Arc<BTreeSet<Target>>>,
    results: Arc<Mutex<HashMap<Target, Probe>>>,
    changed: Arc<Notify>,
}

impl Default for Prober {
    fn default() -> Self {
        Self::new()
    }
}

impl Prober {
    /// A prober that has nothing to do yet.
    pub fn new() -> Self {
        Self::telling(Arc::default())
    }

    /// A prober that tells of every upstream that became well or unwell.
    pub fn telling(changed: Arc<Notify>) -> Self {
        Self { targets: watch::Sender::default(), results: Arc::default(), changed }
    }

    /// Replaces the whole set of targets. New ones are probed at once.
    pub fn set(&self, targets: BTreeSet<Target>) {
        self.targets.send_if_modified(|current| {
            let changed = **current != targets;
            if changed {
                *current = Arc::new(targets);
            }
            changed
        });
    }

    /// The last result, if there is one.
    pub fn last(&self, target: &Target) -> Option<Probe> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).get(target).cloned()
    }

    fn keep(&self, target: Target, health: Health) {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let before = results.insert(target.clone(), Probe { health: health.clone(), at: OffsetDateTime::now_utc() });
        if before.is_none_or(|before| before.health != health) {
            self.changed.notify_one();
            match health {
                Health::Unhealthy(cause) => tracing::warn!(url = target.url, cause, "upstream is not well"),
                _ => tracing::info!(url = target.url, "upstream is well"),
            }
        }
    }

    /// Probes until dropped.
    pub async fn run(self, client: HttpClient) {
        let mut targets = self.targets.subscribe();
        targets.mark_changed();
        let mut due: BTreeMap<Target, Instant> = BTreeMap::new();
        let mut queue: BTreeSet<(Instant, Target)> = BTreeSet::new();
        let mut running: JoinSet<(Target, Health)> = JoinSet::new();
        loop {
            let next = queue.first().map(|(at, _)| *at).filter(|_| running.len() < CONCURRENCY);
            tokio::select! {
                changed = targets.changed() => {
                    if changed.is_err() { return }
                    let wanted = targets.borrow_and_update().clone();
                    self.forget(&wanted);
                    due.retain(|target, at| wanted.contains(target) || { queue.remove(&(*at, target.clone())); false });
                    let now = Instant::now();
                    for target in wanted.iter() {
                        due.entry(target.clone()).or_insert_with(|| { queue.insert((now, target.clone())); now });
                    }
                }
                () = async { match next { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => {
                    let Some((_, target)) = queue.pop_first() else { continue };
                    let client = client.clone();
                    running.spawn(async move { let health = probe(&client, &target).await; (target, health) });
                }
                Some(done) = running.join_next(), if !running.is_empty() => {
                    let Ok((target, health)) = done else { continue };
                    // The target may be gone by now; then nobody wants to know.
                    let Some(at) = due.get_mut(&target) else { continue };
                    // Removed and added again meanwhile, it has been queued anew: once is enough.
                    queue.remove(&(*at, target.clone()));
                    *at = Instant::now() + pause(queue.len() + running.len());
                    queue.insert((*at, target.clone()));
                    self.keep(target, health);
                }
            }
        }
    }

    fn forget(&self, wanted: &BTreeSet<Target>) {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).retain(|target, _| wanted.contains(target));
    }
}

/// Until the next probe of an upstream, give or take a tenth so that many do not fall together.
fn pause(targets: usize) -> Duration {
    let many = Duration::from_secs(1) * u32::try_from(targets).unwrap_or(u32::MAX) / PER_SECOND;
    INTERVAL.max(many).mul_f64(rand::random_range(0.9..1.1))
}

/// A client for probes: no redirects, no kept connections, no proxies.
///
/// # Errors
/// When no TLS is available.
pub fn client() -> Result<HttpClient, std::io::Error> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
        .map_err(std::io::Error::other)?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
}

async fn probe(client: &HttpClient, target: &Target) -> Health {
    let request = Uri::try_from(&target.url).map_err(|e| e.to_string()).and_then(|uri| {
        let request = Request::get(uri).header(header::USER_AGENT, "obol-health").header(header::ACCEPT, "*/*");
        request.body(Empty::new()).map_err(|e| e.to_string())
    });
    let request = match request {
        Ok(request) => request,
        Err(cause) => return Health::Unhealthy(format!("{} cannot be asked: {cause}", target.url)),
    };
    match tokio::time::timeout(TIMEOUT, client.request(request)).await {
        Ok(Ok(answer)) => target.judge(answer.status()),
        Ok(Err(error)) => Health::Unhealthy(format!("GET {} failed: {}", target.url, root_cause(&error))),
        Err(_) => Health::Unhealthy(format!("GET {} did not answer within {} s", target.url, TIMEOUT.as_secs())),
    }
}

/// The innermost error: "client error (Connect)" helps nobody.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string().chars().take(200).collect()
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
