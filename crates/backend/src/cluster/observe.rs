//! What runs in the cluster: the parts of the stack, and the offers with their conditions.

use std::time::{Duration, Instant};

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{Pod, Service},
};
use kube::{
    Api,
    api::{DynamicObject, ListParams},
};
use obol_offer::{ConditionKind, Offer, OfferName, OfferSpec, OfferStatus};
use obol_reconcile::{PlanItem, Site, public_url};
use obol_stackdir::{OFFERS_NAMESPACE, Walk};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Cluster, ClusterError, SYSTEM_NAMESPACE, desired::TRAEFIK, drift::resource, entrance, error::refused};
use crate::{
    control::{self, OfferView},
    view,
};

/// A part of the stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// `namespace/name`.
    pub name: String,
    /// Pods that are ready, of how many.
    pub ready: i32,
    /// How many there should be.
    pub wanted: i32,
    /// What a Pod that is not ready waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
}

impl Workload {
    fn is_ready(&self) -> bool {
        self.wanted > 0 && self.ready >= self.wanted
    }
}

/// The stack as it is in the cluster.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The kubeconfig context.
    pub context: String,
    /// Gateway, controller, and Traefik where it is ours; empty before the first `up`.
    pub workloads: Vec<Workload>,
    /// Where buyers find the cluster, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What buyers need besides, or before there is a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Offers of this stack in the cluster, by name.
    pub offers: Vec<OfferView>,
}

impl ClusterStatus {
    /// Whether every part of the stack is ready.
    pub fn is_ready(&self) -> bool {
        !self.workloads.is_empty() && self.workloads.iter().all(Workload::is_ready)
    }
}

/// A live offer.
struct LiveOffer {
    name: OfferName,
    spec: OfferSpec,
    status: OfferStatus,
    /// Whether the status is that of this spec.
    observed: bool,
}

impl Cluster {
    /// Everything.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn status(&self, walk: &Walk) -> Result<ClusterStatus, ClusterError> {
        let (workloads, offers, (site, hint)) = tokio::try_join!(self.workloads(), self.live_offers(None), self.site())?;
        let offers = offers.iter().filter_map(|offer| self.view(offer, walk, &site)).collect();
        let url = site.public_url.map(String::from);
        let hint = hint.filter(|_| !workloads.is_empty());
        Ok(ClusterStatus { context: self.target.context.clone(), workloads, url, hint, offers })
    }

    /// One offer; `None` when it is not in the cluster.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn offer(&self, name: &OfferName, walk: &Walk) -> Result<Option<OfferView>, ClusterError> {
        let (offers, (site, _)) = tokio::try_join!(self.live_offers(Some(name)), self.site())?;
        Ok(offers.first().and_then(|offer| self.view(offer, walk, &site)))
    }

    /// The specs that are in the cluster, for a plan.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn observed(&self) -> Result<Vec<PlanItem>, ClusterError> {
        let offers = self.live_offers(None).await?;
        Ok(offers.iter().map(|offer| PlanItem::new(&offer.name, offer.spec.kind, Some(&offer.spec))).collect())
    }

    /// Waits until gateway, controller and our Traefik are ready.
    ///
    /// # Errors
    /// [`ClusterError::NotReady`] with what the first one waits for.
    pub async fn wait_for_workloads(&self, patience: Duration, progress: &mut super::Progress<'_>) -> Result<(), ClusterError> {
        let begun = Instant::now();
        let mut told = String::new();
        loop {
            let workloads = self.workloads().await?;
            let Some(slow) = workloads.iter().find(|workload| !workload.is_ready()) else { return Ok(()) };
            let why = slow.waiting.clone().unwrap_or_else(|| "its Pods start".to_owned());
            if begun.elapsed() > patience {
                return Err(ClusterError::NotReady { what: slow.name.clone(), seconds: patience.as_secs(), why });
            }
            let news = format!("{}: {} of {} ready ({why})", slow.name, slow.ready, slow.wanted);
            if begun.elapsed() > Duration::from_secs(1) && news != told {
                progress(&news, false);
                told = news;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Waits until the controller has looked at an offer, and it is ready or `patience` is over.
    ///
    /// # Errors
    /// When the cluster refuses; [`ClusterError::UnknownOffer`] when it is not there.
    pub async fn wait_for_offer(&self, name: &OfferName, walk: &Walk, patience: Duration) -> Result<OfferView, ClusterError> {
        let begun = Instant::now();
        loop {
            let offers = self.live_offers(Some(name)).await?;
            let offer = offers.first().ok_or_else(|| ClusterError::UnknownOffer(name.clone()))?;
            let settled = offer.observed && (offer.status.is_ready() || offer.spec.drain_at.is_some());
            if settled || begun.elapsed() > patience {
                let (site, _) = self.site().await?;
                return self.view(offer, walk, &site).ok_or_else(|| ClusterError::UnknownOffer(name.clone()));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// A way to the payments: to a gateway that is ready. With a shared journal each knows them all.
    ///
    /// # Errors
    /// [`ClusterError::NoGateway`] when there is none, and when the cluster refuses.
    pub async fn books(&self) -> Result<control::Client, ClusterError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let gateways = ListParams::default().labels("app.kubernetes.io/name=x402-gateway");
        let found = pods.list(&gateways).await.map_err(refused("list Pods"))?.items;
        let name = found.into_iter().find(is_ready).and_then(|pod| pod.metadata.name).ok_or(ClusterError::NoGateway)?;
        Ok(control::Client::of_pod(pods, name))
    }

    fn view(&self, live: &LiveOffer, walk: &Walk, site: &Site) -> Option<OfferView> {
        let offer = Offer::validate(&live.name, &live.spec).ok();
        let slice = walk.slices.iter().find(|slice| slice.name == live.name && slice.kind == live.spec.kind);
        let written = slice.and_then(|slice| slice.offer.as_ref().ok()).map(|(spec, _)| spec);
        Some(OfferView {
            name: live.name.clone(),
            kind: live.spec.kind,
            price: offer.as_ref().map(Offer::price).unwrap_or_default(),
            network: offer.as_ref().map(view::networks).unwrap_or_default(),
            url: offer.as_ref().and_then(|offer| public_url(offer, site)).unwrap_or_default(),
            status: live.status.clone(),
            current: written == Some(&live.spec) && live.observed,
            diagnostics: slice.and_then(|slice| slice.offer.as_ref().err()).cloned().unwrap_or_default(),
        })
    }

    async fn live_offers(&self, only: Option<&OfferName>) -> Result<Vec<LiveOffer>, ClusterError> {
        let Some((resource, _)) = resource("obol.org/v1alpha1", "ServiceOffer") else { return Ok(Vec::new()) };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), OFFERS_NAMESPACE, &resource);
        let mut params = ListParams::default();
        if let Some(name) = only {
            params = params.fields(&format!("metadata.name={name}"));
        }
        let found = match api.list(&params).await {
            Ok(list) => list.items,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
            Err(error) => return Err(refused("list ServiceOffers")(error)),
        };
        let mut offers: Vec<_> = found.iter().filter_map(live_offer).collect();
        offers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(offers)
    }

    /// Where buyers come in, and what they need besides.
    async fn site(&self) -> Result<(Site, Option<String>), ClusterError> {
        let mut site = Site { cluster: true, public_url: self.config.public_url.clone(), ..Site::default() };
        if site.public_url.is_some() {
            return Ok((site, None));
        }
        let (namespace, name) = &self.config.ingress.gateway;
        let entrance = if self.config.ingress.install {
            let api: Api<Service> = Api::namespaced(self.client.clone(), TRAEFIK);
            let service = api.get_opt(TRAEFIK).await.map_err(refused("read the Service of Traefik"))?;
            service.as_ref().map_or((None, None), entrance::of_service)
        } else {
            let Some((resource, _)) = resource("gateway.networking.k8s.io/v1", "Gateway") else { return Ok((site, None)) };
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
            let gateway = match api.get_opt(name).await {
                Ok(gateway) => gateway,
                Err(kube::Error::Api(status)) if status.code == 404 => None,
                Err(error) => return Err(refused("read the Gateway")(error)),
            };
            entrance::of_gateway(gateway.as_ref(), namespace, name)
        };
        site.public_url = entrance.0.and_then(|url| url.parse().ok());
        Ok((site, entrance.1))
    }

    async fn workloads(&self) -> Result<Vec<Workload>, ClusterError> {
        let refused = |what: &'static str| refused(format!("list {what}"));
        let deployments = |namespace: &str, labels: &str| {
            let api: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
            let params = ListParams::default().labels(labels);
            async move { api.list(&params).await }
        };
        let part = "app.kubernetes.io/part-of=obol";
        let gateways: Api<StatefulSet> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let mut found = Vec::new();
        for set in gateways.list(&ListParams::default().labels(part)).await.map_err(refused("StatefulSets"))?.items {
            let status = set.status.unwrap_or_default();
            // A Pod of an earlier revision is ready, and not what was asked for.
            let current = status.update_revision.is_none() || status.update_revision == status.current_revision;
            let ready = if current {
                status.ready_replicas.unwrap_or_default()
            } else {
                status.updated_replicas.unwrap_or_default().min(status.ready_replicas.unwrap_or_default())
            };
            let seen = status.observed_generation >= set.metadata.generation;
            found.push(workload(
                SYSTEM_NAMESPACE,
                set.metadata.name,
                set.spec.and_then(|spec| spec.replicas),
                if seen { ready } else { 0 },
            ));
        }
        for namespace in [SYSTEM_NAMESPACE, TRAEFIK] {
            for deployment in deployments(namespace, part).await.map_err(refused("Deployments"))?.items {
                let status = deployment.status.unwrap_or_default();
                let seen = status.observed_generation >= deployment.metadata.generation;
                let ready = status.updated_replicas.unwrap_or_default().min(status.available_replicas.unwrap_or_default());
                let wanted = deployment.spec.and_then(|spec| spec.replicas);
                found.push(workload(namespace, deployment.metadata.name, wanted, if seen { ready } else { 0 }));
            }
        }
        for workload in found.iter_mut().filter(|workload| !workload.is_ready()) {
            workload.waiting = self.waiting(&workload.name).await?;
        }
        Ok(found)
    }

    /// Why a workload's Pods are not ready.
    async fn waiting(&self, workload: &str) -> Result<Option<String>, ClusterError> {
        let (namespace, name) = workload.split_once('/').unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pods =
            api.list(&ListParams::default().labels(&format!("app.kubernetes.io/name={name}"))).await.map_err(refused("list Pods"))?;
        Ok(pods.items.iter().find_map(why_waiting))
    }
}

fn workload(namespace: &str, name: Option<String>, wanted: Option<i32>, ready: i32) -> Workload {
    Workload { name: format!("{namespace}/{}", name.unwrap_or_default()), ready, wanted: wanted.unwrap_or(1), waiting: None }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

fn why_waiting(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let container = status.container_statuses.iter().flatten().find(|container| !container.ready);
    let state = container.and_then(|container| container.state.as_ref());
    let waiting = state.and_then(|state| state.waiting.as_ref()).map(|waiting| (waiting.reason.clone(), waiting.message.clone()));
    let unscheduled = || {
        let condition =
            status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled" && condition.status != "True")?;
        Some((condition.reason.clone(), condition.message.clone()))
    };
    let (reason, message) = waiting.or_else(unscheduled)?;
    let message = message.map(|message| format!(": {message}")).unwrap_or_default();
    Some(format!("{}{message}", reason.unwrap_or_default()))
}

fn live_offer(object: &DynamicObject) -> Option<LiveOffer> {
    let name = object.metadata.name.as_ref()?.parse().ok()?;
    let spec: OfferSpec = serde_json::from_value(object.data.get("spec")?.clone()).ok()?;
    let status = |field: &str| object.data.get("status").and_then(|status| status.get(field));
    let generation = object.metadata.generation;
    // The controller says of each condition which version it saw.
    let conditions = status("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let observed = conditions.iter().any(is_ready_condition)
        && conditions
            .iter()
            .all(|condition| condition.get("observedGeneration").and_then(Value::as_i64).is_none_or(|seen| Some(seen) >= generation));
    let conditions = conditions.into_iter().filter_map(|condition| serde_json::from_value(condition).ok()).collect();
    let endpoint = status("endpoint").and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(LiveOffer { name, spec, status: OfferStatus { conditions, endpoint }, observed })
}

fn is_ready_condition(condition: &Value) -> bool {
    let kind = condition.get("type").and_then(|kind| ConditionKind::deserialize(kind).ok());
    kind == Some(ConditionKind::Ready)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn offer(generation: i64, observed: i64) -> LiveOffer {
        let object = json!({
            "apiVersion": "obol.org/v1alpha1", "kind": "ServiceOffer",
            "metadata": { "name": "weather", "generation": generation },
            "spec": { "type": "http", "upstream": { "url": "http://x" } },
            "status": { "conditions": [
                { "type": "Ready", "status": "True", "reason": "Ready", "message": "", "observedGeneration": observed,
                  "lastTransitionTime": "2026-01-01T00:00:00Z" },
                { "type": "SomethingNew", "status": "True", "reason": "New", "message": "" },
            ] },
        });
        live_offer(&serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn a_condition_counts_for_the_version_that_it_saw() {
        assert!(offer(2, 2).observed);
        assert!(!offer(3, 2).observed);
        assert!(offer(1, 1).status.is_ready(), "an unknown condition does not hide the others");
    }
}
