//! The one place that writes to the API server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions},
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::{
    Id, ServiceOffer, build,
    build::MANAGER,
    mirror::{Mirror, innermost},
    object::id,
    plan::{Gone, Notice, StatusWrite, Write, status_patch},
};

/// First pause after a write that did not help, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Writes, and tells the mirrors what came of it.
pub(crate) struct Writer {
    pub client: Client,
    pub offers: Arc<Mirror<ServiceOffer>>,
    pub routes: Arc<Mirror<DynamicObject>>,
    pub grants: Arc<Mirror<DynamicObject>>,
    pub events: Recorder,
    attempts: Mutex<HashMap<String, Attempt>>,
}

/// The last write to one place: the same again at once would mean that somebody undoes it.
struct Attempt {
    digest: u64,
    count: u32,
    next: Instant,
}

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("{}", innermost(.0))]
    Api(#[from] kube::Error),
    #[error("an HTTPRoute called {0} is there already, and is not ours")]
    Foreign(String),
}

impl Writer {
    pub(crate) fn new(
        client: Client,
        offers: Arc<Mirror<ServiceOffer>>,
        routes: Arc<Mirror<DynamicObject>>,
        grants: Arc<Mirror<DynamicObject>>,
        identity: &str,
    ) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(identity.to_owned()) };
        let events = Recorder::new(client.clone(), reporter);
        Self { client, offers, routes, grants, events, attempts: Mutex::default() }
    }

    /// Whether a write may be tried now; else when.
    pub(crate) fn may(&self, write: &Write) -> Result<(), Instant> {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        match attempts.get(&write.target()) {
            Some(attempt) if attempt.digest == write.digest() && attempt.next > Instant::now() => Err(attempt.next),
            _ => Ok(()),
        }
    }

    /// Does one write.
    pub(crate) async fn write(&self, write: &Write) -> Result<(), WriteError> {
        self.note(write);
        match write {
            Write::Route(_, object) => self.apply_route(object).await,
            Write::Grant(object) => {
                let applied = self.apply(object, &build::grants()).await?;
                self.grants.put(applied);
                Ok(())
            }
            Write::DeleteRoute(id, gone) => {
                self.delete(id, gone, &build::routes()).await?;
                self.routes.forget(id);
                Ok(())
            }
            Write::DeleteGrant(id, gone) => {
                self.delete(id, gone, &build::grants()).await?;
                self.grants.forget(id);
                Ok(())
            }
            Write::Status(id, status) => self.status(id, status).await,
        }
    }

    fn note(&self, write: &Write) {
        let (now, digest) = (Instant::now(), write.digest());
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.retain(|_, attempt| attempt.next + LONGEST_PAUSE > now);
        let attempt = attempts.entry(write.target()).or_insert(Attempt { digest, count: 0, next: now });
        attempt.count = if attempt.digest == digest { attempt.count + 1 } else { 1 };
        attempt.digest = digest;
        attempt.next = now + FIRST_PAUSE.saturating_mul(1 << attempt.count.saturating_sub(1).min(10)).min(LONGEST_PAUSE);
    }

    async fn apply_route(&self, object: &DynamicObject) -> Result<(), WriteError> {
        let id = id(object);
        let is_known = self.routes.objects().is_some_and(|routes| routes.contains_key(&id));
        if !is_known {
            // The watch sees ours only, and what is not ours is not taken over.
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &id.0, &build::routes());
            if let Some(found) = api.get_metadata_opt(&id.1).await?
                && !build::is_ours(found.metadata.labels.as_ref())
            {
                return Err(WriteError::Foreign(id.1));
            }
        }
        let applied = self.apply(object, &build::routes()).await?;
        self.routes.put(applied);
        Ok(())
    }

    async fn apply(&self, object: &DynamicObject, kind: &kube::api::ApiResource) -> Result<DynamicObject, kube::Error> {
        let (namespace, name) = id(object);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, kind);
        api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await
    }

    async fn delete(&self, (namespace, name): &Id, gone: &Gone, kind: &kube::api::ApiResource) -> Result<(), kube::Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, kind);
        let preconditions = Preconditions { uid: gone.uid.clone(), resource_version: gone.resource_version.clone() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match api.delete(name, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn status(&self, id: &Id, write: &StatusWrite) -> Result<(), WriteError> {
        let api: Api<ServiceOffer> = Api::namespaced(self.client.clone(), &id.0);
        let patch = Patch::Apply(status_patch(id, write));
        let object = match api.patch_status(&id.1, &PatchParams::apply(MANAGER).force(), &patch).await {
            // It was deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            answer => answer?,
        };
        let about = ObjectReference {
            api_version: Some("obol.org/v1alpha1".to_owned()),
            kind: Some("ServiceOffer".to_owned()),
            namespace: Some(id.0.clone()),
            name: Some(id.1.clone()),
            uid: write.uid.clone(),
            ..ObjectReference::default()
        };
        self.offers.put(object);
        if let Some(notice) = &write.event {
            self.tell(notice, &about).await;
        }
        Ok(())
    }

    /// Events are for people who look; one that is lost is no failure.
    async fn tell(&self, notice: &Notice, about: &ObjectReference) {
        let event = Event {
            type_: if notice.is_good { EventType::Normal } else { EventType::Warning },
            reason: notice.reason.clone(),
            note: Some(notice.note.chars().take(1000).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.events.publish(&event, about).await {
            tracing::debug!(error = innermost(&error), "an event was not taken");
        }
    }
}
