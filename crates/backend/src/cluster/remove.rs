//! Taking the stack out of a cluster: what obol has installed, and nothing else.

use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Secret};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams},
};
use obol_stackdir::OFFERS_NAMESPACE;
use serde::Serialize;

use super::{
    Cluster, ClusterError, Progress, SYSTEM_NAMESPACE,
    chart::our_name,
    desired::{CRDS, TRAEFIK, Tree},
    drift::resource,
    error::refused,
    ground::OURS,
    helm::releases,
    helmfile::{self, Step},
    provision,
    tools::Tools,
};

/// What was taken away, as `kind namespace/name`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Removed {
    /// Releases and objects.
    pub removed: Vec<String>,
    /// What was meant to stay, for people.
    pub kept: Vec<String>,
}

impl Cluster {
    /// Removes workloads, offers and routes. The CRD, the journal's volume, agents' volumes, secrets
    /// and namespaces stay; so does everything that obol did not install.
    ///
    /// # Errors
    /// When the cluster refuses, or helmfile fails.
    pub async fn down(&self, progress: &mut Progress<'_>) -> Result<Removed, ClusterError> {
        let _turn = self.turn().await?;
        let mut removed = Removed::default();
        let ours = self.ours(false).await?;
        self.remove(&ours, &mut removed, progress).await?;
        removed.kept.extend(["the ServiceOffer resource", "the journal's volume", "secrets and namespaces"].map(str::to_owned));
        provision::down(&self.dirs, &self.config, &mut |line| progress(line, true)).await?;
        Ok(removed)
    }

    /// What `down` would remove; with `all`, the CRD's release too.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn ours(&self, all: bool) -> Result<Vec<(String, String)>, ClusterError> {
        let mut ours = Vec::new();
        // Offers first: their routes go before the gateway does.
        for namespace in [OFFERS_NAMESPACE, SYSTEM_NAMESPACE, TRAEFIK] {
            for (name, release) in releases(&self.client, namespace, None).await? {
                if our_name(&release.chart).is_some() && (all || name != CRDS) {
                    ours.push((namespace.to_owned(), name));
                }
            }
        }
        Ok(ours)
    }

    /// Whether any ServiceOffer is left in the cluster, somebody else's too.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn has_offers(&self) -> Result<bool, ClusterError> {
        let Some((resource, _)) = resource("obol.org/v1alpha1", "ServiceOffer") else { return Ok(false) };
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(list) => Ok(!list.items.is_empty()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(refused("list ServiceOffers")(error)),
        }
    }

    /// After `down`, removes what it kept: the CRD when nobody uses it, and with `data` the journal,
    /// the secrets and the namespaces that obol made.
    ///
    /// # Errors
    /// When the cluster refuses, or helmfile fails.
    pub async fn purge(&self, data: bool, progress: &mut Progress<'_>) -> Result<Removed, ClusterError> {
        let _turn = self.turn().await?;
        let mut removed = Removed::default();
        let offers = self.ours(false).await?;
        self.remove(&offers, &mut removed, progress).await?;
        if self.has_offers().await? {
            removed.kept.push("the ServiceOffer resource: others use it".to_owned());
        } else {
            let rest = self.ours(true).await?;
            self.remove(&rest, &mut removed, progress).await?;
            self.remove_crd(&mut removed).await?;
        }
        if data {
            self.remove_data(&mut removed).await?;
            provision::delete(&self.dirs, &self.config, &mut |line| progress(line, true)).await?;
        } else {
            removed.kept.extend(["the journal's volume", "secrets and namespaces"].map(str::to_owned));
        }
        Ok(removed)
    }

    async fn remove(&self, releases: &[(String, String)], removed: &mut Removed, progress: &mut Progress<'_>) -> Result<(), ClusterError> {
        let walk = self.dir.walk();
        let tree = Tree::of(&self.dir, &self.config, &walk, &[], true)?;
        if releases.is_empty() && tree.own.is_empty() {
            return Ok(());
        }
        let tools = Tools::find(&self.dirs.data).await?;
        for file in &tree.own {
            helmfile::destroy_own(&tools, &self.target, file, &mut |line| progress(line, true)).await?;
            removed.removed.push(file.strip_prefix(self.dir.root()).unwrap_or(file).display().to_string());
        }
        // Two steps, since the controller takes the offers' routes away.
        for stage in [OFFERS_NAMESPACE, ""] {
            let part: Vec<_> = releases.iter().filter(|(namespace, _)| (namespace == OFFERS_NAMESPACE) != stage.is_empty()).collect();
            if part.is_empty() {
                continue;
            }
            progress(&format!("helmfile: {} to remove", part.len()), false);
            let steps: Vec<_> = part.iter().map(|(namespace, name)| Step::Remove(name, namespace)).collect();
            helmfile::apply(&self.dirs, &self.dir, &tools, &self.target, &steps, &mut |line| progress(line, true)).await?;
            removed.removed.extend(part.iter().map(|(namespace, name)| format!("release {namespace}/{name}")));
        }
        Ok(())
    }

    /// Helm keeps the CRD when its release goes, so that no slip takes every offer along.
    async fn remove_crd(&self, removed: &mut Removed) -> Result<(), ClusterError> {
        let Some((resource, _)) = resource("apiextensions.k8s.io/v1", "CustomResourceDefinition") else { return Ok(()) };
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let name = "serviceoffers.obol.org";
        match api.delete(name, &DeleteParams::default()).await {
            Ok(_) => removed.removed.push(format!("customresourcedefinition {name}")),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(refused(format!("delete {name}"))(error)),
        }
        Ok(())
    }

    async fn remove_data(&self, removed: &mut Removed) -> Result<(), ClusterError> {
        let selector = ListParams::default().labels("app.kubernetes.io/name=x402-gateway");
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        for claim in claims.list_metadata(&selector).await.map_err(refused("list volumes"))?.items {
            let name = claim.metadata.name.unwrap_or_default();
            claims.delete(&name, &DeleteParams::default()).await.map_err(refused(format!("delete the volume {name}")))?;
            removed.removed.push(format!("persistentvolumeclaim {SYSTEM_NAMESPACE}/{name}"));
        }
        let made = ListParams::default().labels(&format!("{}={}", OURS.0, OURS.1));
        for namespace in [SYSTEM_NAMESPACE, OFFERS_NAMESPACE] {
            let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
            for secret in secrets.list_metadata(&made).await.map_err(refused("list secrets"))?.items {
                let name = secret.metadata.name.unwrap_or_default();
                secrets.delete(&name, &DeleteParams::default()).await.map_err(refused(format!("delete the secret {name}")))?;
                removed.removed.push(format!("secret {namespace}/{name}"));
            }
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for namespace in namespaces.list_metadata(&made).await.map_err(refused("list namespaces"))?.items {
            let name = namespace.metadata.name.unwrap_or_default();
            // Whatever somebody else keeps there would go with it.
            if [SYSTEM_NAMESPACE, OFFERS_NAMESPACE, TRAEFIK].contains(&name.as_str()) && self.is_empty(&name).await? {
                namespaces.delete(&name, &DeleteParams::default()).await.map_err(refused(format!("delete the namespace {name}")))?;
                removed.removed.push(format!("namespace {name}"));
            }
        }
        Ok(())
    }

    async fn is_empty(&self, namespace: &str) -> Result<bool, ClusterError> {
        let kinds = [
            ("v1", "Service"),
            ("v1", "Secret"),
            ("v1", "ConfigMap"),
            ("apps/v1", "Deployment"),
            ("apps/v1", "StatefulSet"),
            ("obol.org/v1alpha1", "ServiceOffer"),
        ];
        let known = kinds.into_iter().filter_map(|(api_version, kind)| resource(api_version, kind));
        let volumes = ApiResource::erase::<PersistentVolumeClaim>(&());
        for resource in known.map(|(resource, _)| resource).chain([volumes]) {
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
            match api.list_metadata(&ListParams::default()).await {
                Ok(list) => {
                    let foreign = |meta: &kube::core::PartialObjectMeta<DynamicObject>| {
                        let by = meta.metadata.labels.as_ref().and_then(|labels| labels.get(OURS.0));
                        // Every namespace gets this one.
                        let given = meta.metadata.name.as_deref() == Some("kube-root-ca.crt");
                        by.is_none_or(|by| by != OURS.1) && meta.metadata.deletion_timestamp.is_none() && !given
                    };
                    if list.items.iter().any(foreign) {
                        return Ok(false);
                    }
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(refused(format!("list {}", resource.plural))(error)),
            }
        }
        Ok(true)
    }
}
