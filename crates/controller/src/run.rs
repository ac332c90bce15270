//! The loop: look at everything, work out what is due, write it, sleep until something changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::DynamicObject, runtime::watcher};
use obol_gateway::health::{Prober, Target};
use obol_offer::OfferKind;
use obol_reconcile::{Finding, State, reconcile};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    Id, ServiceOffer, Settings,
    apply::Writer,
    build,
    gate::GateWatch,
    lease::{Elector, Leadership},
    metrics::Metrics,
    mirror::Mirror,
    models::ModelWatch,
    object::{Read, Reader},
    plan::{Seen, World, Write, plan},
    status,
};

/// From the first sign of a change to the pass: a handful of changes is one.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Without any sign of a change everything is looked at again after this.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);
/// Writes under way at once.
const CONCURRENCY: usize = 8;

/// A controller, not yet running.
pub struct Controller {
    client: Client,
    settings: Settings,
    metrics: Arc<Metrics>,
}

impl Controller {
    /// A controller that talks through `client`.
    pub fn new(client: Client, settings: Settings) -> Self {
        Self { client, settings, metrics: Arc::default() }
    }

    /// What is counted, for the listener of operators.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Runs until `shutdown`, then gives the lease back.
    ///
    /// # Errors
    /// When the client for health probes cannot be made.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), std::io::Error> {
        let Self { client, settings, metrics } = self;
        let changed = Arc::new(Notify::new());
        let ours = watcher::Config::default().labels(&format!("{}={}", build::MANAGED_BY, build::MANAGER));
        let watch = |kind| Mirror::start_dynamic(Api::<DynamicObject>::all_with(client.clone(), &kind), ours.clone(), changed.clone());
        let offers = Arc::new(Mirror::start(Api::all(client.clone()), watcher::Config::default(), changed.clone()));
        let writer =
            Writer::new(client.clone(), offers, Arc::new(watch(build::routes())), Arc::new(watch(build::grants())), &settings.identity);
        let leadership = Leadership::default();
        let elector = Arc::new(Elector {
            api: Api::<Lease>::namespaced(client, &settings.home.system),
            name: build::MANAGER.to_owned(),
            identity: settings.identity.clone(),
            times: settings.lease,
            leadership: leadership.clone(),
            changed: changed.clone(),
        });
        let (prober, gates, models) = (Prober::telling(changed.clone()), GateWatch::new(), ModelWatch::new());
        let electing = elector.clone();
        let tasks = [
            AbortOnDropHandle::new(tokio::spawn(async move { electing.run().await })),
            AbortOnDropHandle::new(tokio::spawn(prober.clone().run(obol_gateway::health::client()?))),
            AbortOnDropHandle::new(tokio::spawn(gates.clone().run(settings.gate.clone(), changed.clone()))),
            AbortOnDropHandle::new(tokio::spawn(models.clone().run(changed.clone()))),
        ];
        let reader = Reader::new(settings.home.clone());
        let mut pass = Pass {
            settings,
            writer,
            leadership,
            reader,
            prober,
            gates,
            models,
            metrics,
            state: State::default(),
            targets: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        let mut due = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = changed.notified() => tokio::time::sleep(DEBOUNCE).await,
                () = tokio::time::sleep_until(due.into()) => {}
            }
            let (next, wrote) = pass.run().await;
            due = next;
            if wrote {
                changed.notify_one();
            }
        }
        drop(tasks);
        elector.release().await;
        Ok(())
    }
}

struct Pass {
    settings: Settings,
    writer: Writer,
    leadership: Leadership,
    reader: Reader,
    prober: Prober,
    gates: GateWatch,
    models: ModelWatch,
    metrics: Arc<Metrics>,
    state: State,
    targets: BTreeMap<Id, Target>,
    failures: BTreeMap<Id, String>,
}

impl Pass {
    /// One pass. Says when the next one is due at the latest, and whether something was written.
    async fn run(&mut self) -> (Instant, bool) {
        let begun = Instant::now();
        let mut due = begun + AT_LEAST_EVERY;
        let Some(offers) = self.writer.offers.objects() else { return (due, false) };
        let read = self.reader.read(&offers);
        let now = OffsetDateTime::now_utc();
        self.state = reconcile(read.values().filter_map(|read| read.slice.as_ref()), &self.state, &self.settings.site, now);
        self.aim(&read);
        let seen = self.seen(&read);
        self.look_closer(&offers, &read, &seen);
        let (routes, grants) = (self.writer.routes.objects(), self.writer.grants.objects());
        let trouble = self.writer.routes.trouble();
        self.failures.retain(|id, _| read.contains_key(id));
        let world = World {
            settings: &self.settings,
            offers: &offers,
            read: &read,
            state: &self.state,
            routes: routes.as_deref(),
            routes_trouble: trouble.as_deref(),
            grants: grants.as_deref(),
            failures: &self.failures,
            seen,
        };
        let writes = plan(&world, now);
        self.metrics.passed(read.len(), writes.len(), begun.elapsed(), self.leadership.is_held());
        if let Some(wake) = self.state.wake {
            // Never at once: a clock that steps must not make us spin.
            let left = Duration::try_from(wake - now).unwrap_or_default().max(Duration::from_millis(5));
            due = due.min(Instant::now() + left);
        }
        let wrote = self.write_all(writes, &mut due).await;
        (due, wrote)
    }

    /// Does what may be done now, while the lease is held.
    async fn write_all(&mut self, writes: Vec<Write>, due: &mut Instant) -> bool {
        let mut ready = Vec::new();
        for write in writes {
            match self.writer.may(&write) {
                Ok(()) => ready.push(write),
                Err(later) => *due = (*due).min(later),
            }
        }
        let (writer, leadership, metrics) = (&self.writer, &self.leadership, &self.metrics);
        let done = futures_util::stream::iter(ready).map(|write| async move {
            if !leadership.is_held() {
                return None;
            }
            let result = writer.write(&write).await;
            metrics.wrote(&write, result.is_ok());
            Some((write, result))
        });
        let done: Vec<_> = done.buffer_unordered(CONCURRENCY).filter_map(std::future::ready).collect().await;
        let mut wrote = false;
        for (write, result) in done {
            match (&write, result) {
                (Write::Route(id, _), Ok(())) => drop(self.failures.remove(id)),
                (Write::Route(id, _), Err(error)) => {
                    tracing::warn!(write = write.target(), %error, "not written");
                    self.failures.insert(id.clone(), error.to_string());
                }
                (_, Ok(())) => {}
                (_, Err(error)) => tracing::warn!(write = write.target(), %error, "not written"),
            }
            tracing::debug!(write = write.target(), "wrote");
            wrote = true;
        }
        wrote
    }

    /// Tells the probers what is served.
    fn aim(&mut self, read: &BTreeMap<Id, Arc<Read>>) {
        let mut targets = BTreeMap::new();
        let mut models = Vec::new();
        for (id, read) in read {
            let state = read.key().and_then(|key| self.state.offers.get(&key));
            let Some(version) = state.filter(|state| state.is_routed()).and_then(|state| state.served.as_ref()) else { continue };
            match read.kind {
                OfferKind::Inference => models.push(id.clone()),
                OfferKind::Http => drop(targets.insert(id.clone(), Target::of(&version.offer, &version.spec))),
            }
        }
        if targets != self.targets {
            self.prober.set(targets.values().cloned().collect::<BTreeSet<_>>());
            self.targets = targets;
        }
        self.models.set(models);
    }

    fn seen(&self, read: &BTreeMap<Id, Arc<Read>>) -> Seen {
        let health = |target: &Target| self.prober.last(target).map(|probe| probe.health);
        let mut upstreams: BTreeMap<Id, Finding> =
            self.targets.iter().map(|(id, target)| (id.clone(), status::upstream(health(target).as_ref()))).collect();
        let mut models = BTreeMap::new();
        for (id, _) in read.iter().filter(|(_, read)| read.kind == OfferKind::Inference) {
            // The Pod asks its model server for the model: one answer tells of both.
            if let Some(served) = self.models.last(id) {
                upstreams.insert(id.clone(), served.upstream);
                models.insert(id.clone(), served.model);
            }
        }
        Seen { upstreams, models, gates: self.gates.last() }
    }

    /// Has the gateway asked more often while it lacks something that it should have.
    fn look_closer(&self, offers: &BTreeMap<Id, Arc<ServiceOffer>>, read: &BTreeMap<Id, Arc<Read>>, seen: &Seen) {
        let Some(Ok(gates)) = &seen.gates else { return };
        let lacks = read.keys().filter_map(|id| Some((id, offers.get(id)?))).any(|(id, object)| {
            let routed = read.get(id).and_then(|read| self.state.offers.get(&read.key()?)).is_some_and(|state| state.is_routed());
            routed && status::is_loaded(id, object, gates) != Some(true)
        });
        self.gates.waiting.store(lacks, Ordering::Relaxed);
        if lacks {
            self.gates.hurry.notify_one();
        }
    }
}
