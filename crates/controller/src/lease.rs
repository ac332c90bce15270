//! Who writes: the holder of a Lease, and nobody else.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use kube::{Api, api::PostParams};
use tokio::sync::Notify;

use crate::{mirror::innermost, settings::LeaseTimes};

/// Whether this process may write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leadership(Arc<Mutex<Option<Instant>>>);

impl Leadership {
    /// Whether a write that begins now ends well before anybody else may begin one.
    pub(crate) fn is_held(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    fn until(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// Takes the lease when it is free, and renews it.
pub(crate) struct Elector {
    pub api: Api<Lease>,
    pub name: String,
    pub identity: String,
    pub times: LeaseTimes,
    pub leadership: Leadership,
    /// Told when the lease was taken.
    pub changed: Arc<Notify>,
}

/// A lease of somebody else, and when we first saw it like that: clocks of two machines are not compared.
type Seen = (Option<String>, Option<MicroTime>, Instant);

impl Elector {
    /// Runs until dropped.
    pub(crate) async fn run(&self) {
        let mut seen: Option<Seen> = None;
        loop {
            let begun = Instant::now();
            let turn = tokio::time::timeout(self.times.interval.max(Duration::from_secs(1)), self.turn(&mut seen)).await;
            match turn {
                Ok(Ok(true)) => {
                    // A fifth is left for a write that is under way when the lease runs out.
                    let was_held = self.leadership.is_held();
                    self.leadership.set(Some(begun + self.times.duration * 4 / 5));
                    if !was_held {
                        tracing::info!(identity = self.identity, "this controller writes from now on");
                        self.changed.notify_one();
                    }
                }
                Ok(Ok(false)) => self.leadership.set(None),
                Ok(Err(error)) => tracing::warn!(error = innermost(&error), "the lease cannot be looked at"),
                Err(_) => tracing::warn!("the lease cannot be looked at in time"),
            }
            tokio::time::sleep(self.times.interval).await;
        }
    }

    /// One look; says whether the lease is ours now.
    async fn turn(&self, seen: &mut Option<Seen>) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            return won(self.api.create(&PostParams::default(), &self.ours(Lease::default())).await);
        };
        let spec = lease.spec.get_or_insert_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let is_ours = holder.as_ref() == Some(&self.identity);
        if !is_ours && holder.is_some() {
            let duration = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
            let (now, renewed) = (Instant::now(), spec.renew_time.clone());
            let since = match seen {
                Some((known, time, since)) if *known == holder && *time == renewed => *since,
                _ => now,
            };
            *seen = Some((holder, renewed, since));
            if now.duration_since(since) < Duration::from_secs(duration) {
                return Ok(false);
            }
            tracing::info!("the lease of another controller has run out");
        }
        // The resource version in it makes this fail if anybody else was faster.
        won(self.api.replace(&self.name, &PostParams::default(), &self.ours(lease)).await)
    }

    fn ours(&self, mut lease: Lease) -> Lease {
        lease.metadata.name = Some(self.name.clone());
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + i32::from(spec.holder_identity.is_some()));
            spec.acquire_time = Some(now.clone());
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = i32::try_from(self.times.duration.as_secs().max(1)).ok();
        spec.renew_time = Some(now);
        lease
    }

    /// Gives the lease back, so that the next controller need not wait.
    pub(crate) async fn release(&self) {
        if !self.leadership.is_held() {
            return;
        }
        self.leadership.set(None);
        let release = async {
            let mut lease = self.api.get(&self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() == Some(&self.identity) {
                spec.holder_identity = None;
                spec.renew_time = None;
                self.api.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(2), release).await {
            tracing::warn!(error = innermost(&error), "the lease was not given back");
        }
    }
}

/// Another one being faster is no failure.
fn won(answer: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
