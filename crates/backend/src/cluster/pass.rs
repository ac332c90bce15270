//! The pass: what should be installed against what is, and helmfile over the difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use obol_offer::{OfferKind, OfferName};
use obol_stackdir::{Diagnostic, OFFERS_NAMESPACE, Severity, Walk};
use serde::Serialize;
use serde_json::Value;

use super::{
    Cluster, ClusterError, MANAGER, Progress, SYSTEM_NAMESPACE,
    chart::{Chart, our_name},
    desired::{CRDS, Desired, SYSTEM, TRAEFIK, Tree},
    drift::{Live, resource},
    error::refused,
    ground,
    helm::{HelmRelease, releases},
    helmfile::{self, Step},
    provision,
    secrets::{self, SecretPlan},
    tools::Tools,
};

/// What the pass would do to one release, or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseChange {
    /// It is not there.
    Install,
    /// It is there with another chart or other values, or its last change failed.
    Upgrade,
    /// Somebody has changed or deleted what it put there.
    Repair,
    /// Its slice is gone.
    Remove,
}

/// One release that is not as it should be.
#[derive(Clone, Debug, Serialize)]
pub struct ReleasePlan {
    /// Name of the release: the offer's, for offers.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// What is to be done.
    pub change: ReleaseChange,
    /// Why: `values`, `chart`, `failed: …`, or the first object and field that differ.
    pub why: String,
}

/// How one release went.
#[derive(Clone, Debug, Serialize)]
pub struct ReleaseOutcome {
    /// What was to be done.
    #[serde(flatten)]
    pub plan: ReleasePlan,
    /// Why it was not done; the others were all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where the time of a pass went, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Timing {
    /// Reading files and cluster, and comparing.
    pub compare: u64,
    /// Helmfile.
    pub helmfile: u64,
}

/// What a pass did.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PassReport {
    /// Releases that were not as they should be.
    pub changed: Vec<ReleaseOutcome>,
    /// How many were.
    pub unchanged: usize,
    /// Broken slices; their last applied version is still there.
    pub left_out: Vec<(OfferName, OfferKind, Vec<Diagnostic>)>,
    /// What has no effect, or is not obol's to change.
    pub warnings: Vec<Diagnostic>,
    /// Helmfiles that are not obol's, and how they went.
    pub own: Vec<(String, Option<String>)>,
    /// Where the time went.
    pub timing: Timing,
}

impl PassReport {
    /// Whether everything that was to be done was done.
    pub fn is_complete(&self) -> bool {
        self.changed.iter().all(|outcome| outcome.error.is_none()) && self.own.iter().all(|(_, error)| error.is_none())
    }
}

/// What helm has in the cluster.
#[derive(Default)]
struct Installed {
    releases: BTreeMap<(String, String), HelmRelease>,
    live: Live,
}

impl Cluster {
    /// Makes the cluster agree with the whole stack directory.
    ///
    /// # Errors
    /// What keeps the pass from being made at all; a single release that fails is in the report.
    pub async fn up(&self, progress: &mut Progress<'_>) -> Result<PassReport, ClusterError> {
        let _turn = self.turn().await?;
        let (mut tree, mut report, walk) = self.tree().await?;
        progress("preparing the cluster", false);
        self.prepare(&tree, progress).await?;
        secrets::system(&self.client, &self.config, &mut report.warnings).await?;
        self.keep_credentials(&mut tree, &walk, &mut report).await?;
        self.make(&tree, &mut report, true, progress).await?;
        Ok(report)
    }

    /// Makes the cluster agree with one slice, or with its absence.
    ///
    /// # Errors
    /// As [`Cluster::up`]; [`ClusterError::NotUp`] before the first `up`.
    pub async fn sync(&self, name: &OfferName, progress: &mut Progress<'_>) -> Result<PassReport, ClusterError> {
        let _turn = self.turn().await?;
        let system = releases(&self.client, SYSTEM_NAMESPACE, Some(SYSTEM)).await?;
        if !system.contains_key(SYSTEM) {
            return Err(ClusterError::NotUp);
        }
        let mut report = PassReport::default();
        let mut tree = match self.dir.find(name) {
            Some(slice) => {
                let tree = Tree::of_slice(&self.dir, &slice, self.config.backend != obol_stackdir::BackendKind::Kubernetes)?;
                report.warnings.extend(slice.warnings);
                tree
            }
            None => Tree::default(),
        };
        self.keep_credentials(&mut tree, &self.dir.walk(), &mut report).await?;
        self.make_one(&tree, name, &mut report, progress).await?;
        Ok(report)
    }

    /// What a pass would change, and nothing else.
    ///
    /// # Errors
    /// When files or cluster cannot be read.
    pub async fn plan(&self) -> Result<(Vec<ReleasePlan>, Vec<SecretPlan>, PassReport), ClusterError> {
        let (tree, report, walk) = self.tree().await?;
        let installed = self.installed(&tree, None).await?;
        let (plans, _) = self.compare(&tree, &installed, self.orphans(&installed)?)?;
        Ok((plans, secrets::plan(&self.client, &self.config, &walk).await?, report))
    }

    /// The tree with its generated files brought up to date.
    async fn tree(&self) -> Result<(Tree, PassReport, Walk), ClusterError> {
        let begun = Instant::now();
        let edited = {
            let file =
                |error: obol_stackdir::StackError| ClusterError::Values { path: self.dir.root().to_owned(), cause: error.to_string() };
            let lock = self.dir.lock().map_err(file)?;
            self.dir.generate(&lock).map_err(file)?.1
        };
        let walk = self.dir.walk();
        let host = self.config.backend != obol_stackdir::BackendKind::Kubernetes;
        let tree = Tree::of(&self.dir, &self.config, &walk, &edited, host)?;
        let of_slices = walk.slices.iter().flat_map(|slice| &slice.warnings);
        let warnings = walk.stray.iter().chain(&edited).chain(of_slices).cloned().collect();
        let mut report = PassReport { left_out: tree.left_out.clone(), warnings, ..Default::default() };
        report.timing.compare = millis(begun);
        Ok((tree, report, walk))
    }

    /// Puts the keys of model servers where offers find them; an offer whose key nobody knows is left out.
    async fn keep_credentials(&self, tree: &mut Tree, walk: &Walk, report: &mut PassReport) -> Result<(), ClusterError> {
        for (name, problem) in secrets::credentials(&self.client, &self.config, walk, &mut report.warnings).await? {
            if tree.releases.iter().any(|release| release.namespace == OFFERS_NAMESPACE && release.name == name.as_str()) {
                tree.leave_out(&name, problem);
            }
        }
        report.left_out.clone_from(&tree.left_out);
        Ok(())
    }

    /// What the charts need before they can be installed.
    async fn prepare(&self, tree: &Tree, progress: &mut Progress<'_>) -> Result<(), ClusterError> {
        if !ground::has_gateway_api(&self.client).await? {
            progress("installing the Gateway API", false);
            ground::install_gateway_api(&self.dirs.data, &self.target, &mut |line| progress(line, true)).await?;
            ground::wait_for_gateway_api(&self.client).await?;
        }
        for name in [SYSTEM_NAMESPACE, OFFERS_NAMESPACE] {
            ground::namespace(&self.client, name, &mut |line| progress(line, false)).await?;
        }
        if tree.releases.iter().any(|release| release.name == TRAEFIK) {
            ground::namespace(&self.client, TRAEFIK, &mut |line| progress(line, false)).await?;
        }
        ground::gate(&self.client).await?;
        if let Some(address) = provision::host(&self.dirs, &self.config).await? {
            ground::host(&self.client, address).await?;
        }
        Ok(())
    }

    /// What helm has of these releases, and the objects that came of them. `only` is the one name
    /// that is looked at.
    async fn installed(&self, tree: &Tree, only: Option<&str>) -> Result<Installed, ClusterError> {
        let mut namespaces: BTreeSet<&str> = tree.releases.iter().map(|release| release.namespace.as_str()).collect();
        // Both may hold what nothing on disk wants any more.
        namespaces.extend([OFFERS_NAMESPACE, TRAEFIK]);
        let mut found = BTreeMap::new();
        let reads = namespaces.into_iter().map(|namespace| async move { Ok((namespace, releases(&self.client, namespace, only).await?)) });
        for (namespace, releases) in futures_util::future::try_join_all(reads).await? {
            found.extend(releases.into_iter().map(|(name, release)| ((namespace.to_owned(), name), release)));
        }
        let ours = found.values().filter(|release| our_name(&release.chart).is_some());
        let objects: Vec<(Value, String)> =
            ours.flat_map(|release| release.objects().into_iter().map(|object| (object, release.namespace.clone()))).collect();
        let live = Live::read(&self.client, &objects).await?;
        Ok(Installed { releases: found, live })
    }

    /// Offers that are installed and have no slice any more. A folder that cannot be read is no order
    /// to stop selling.
    fn orphans(&self, installed: &Installed) -> Result<Vec<String>, ClusterError> {
        let walk = self.dir.walk();
        if !self.dir.exists() || walk.stray.iter().any(|problem| problem.severity == Severity::Error) {
            return Ok(Vec::new());
        }
        Ok(orphans(&walk, installed))
    }

    /// Every release that is not as it should be, and how many are.
    fn compare(&self, tree: &Tree, installed: &Installed, orphans: Vec<String>) -> Result<(Vec<ReleasePlan>, usize), ClusterError> {
        let mut charts: BTreeMap<&str, Chart> = BTreeMap::new();
        let mut plans = Vec::new();
        let mut unchanged = 0;
        for desired in &tree.releases {
            if !charts.contains_key(desired.chart) {
                charts.insert(desired.chart, desired.read_chart(&self.dir)?);
            }
            let found = installed.releases.get(&(desired.namespace.clone(), desired.name.clone()));
            self.guard(desired, found)?;
            let change = charts.get(desired.chart).and_then(|chart| change(desired, chart, found, &installed.live));
            match change {
                Some((change, why)) => {
                    plans.push(ReleasePlan { name: desired.name.clone(), namespace: desired.namespace.clone(), change, why });
                }
                None => unchanged += 1,
            }
        }
        plans.extend(orphans.into_iter().map(|name| ReleasePlan {
            name,
            namespace: OFFERS_NAMESPACE.to_owned(),
            change: ReleaseChange::Remove,
            why: "its slice is gone".to_owned(),
        }));
        plans.extend(needless_traefik(tree, installed));
        Ok((plans, unchanged))
    }

    /// Refuses to touch what somebody else has installed.
    fn guard(&self, desired: &Desired, found: Option<&HelmRelease>) -> Result<(), ClusterError> {
        let Some(found) = found else { return Ok(()) };
        if our_name(&found.chart).is_none() {
            return Err(ClusterError::Foreign { name: found.name.clone(), namespace: found.namespace.clone(), chart: found.chart_title() });
        }
        let theirs = found.config.as_ref().and_then(|values| values.pointer("/stack/id")?.as_str());
        match theirs.filter(|_| desired.name == SYSTEM) {
            Some(theirs) if theirs != self.config.id => {
                Err(ClusterError::OtherStack { theirs: theirs.to_owned(), ours: self.config.id.clone() })
            }
            _ => Ok(()),
        }
    }

    async fn make(&self, tree: &Tree, report: &mut PassReport, own: bool, progress: &mut Progress<'_>) -> Result<(), ClusterError> {
        let begun = Instant::now();
        progress("comparing files and cluster", false);
        let installed = self.installed(tree, None).await?;
        let (plans, unchanged) = self.compare(tree, &installed, self.orphans(&installed)?)?;
        report.unchanged = unchanged;
        report.timing.compare += millis(begun);
        self.carry_out(tree, plans, &installed, None, report, progress).await?;
        if own {
            self.run_own(tree, report, progress).await?;
        }
        Ok(())
    }

    async fn make_one(
        &self,
        tree: &Tree,
        name: &OfferName,
        report: &mut PassReport,
        progress: &mut Progress<'_>,
    ) -> Result<(), ClusterError> {
        let begun = Instant::now();
        let installed = self.installed(tree, Some(name.as_str())).await?;
        let orphans = self.orphans(&installed)?.into_iter().filter(|orphan| orphan == name.as_str()).collect();
        let (plans, unchanged) = self.compare(tree, &installed, orphans)?;
        report.unchanged = unchanged;
        report.timing.compare += millis(begun);
        self.carry_out(tree, plans, &installed, Some(name.as_str()), report, progress).await?;
        self.run_own(tree, report, progress).await
    }

    /// Runs helmfile over the plans, and looks again at what came of them.
    async fn carry_out(
        &self,
        tree: &Tree,
        plans: Vec<ReleasePlan>,
        installed: &Installed,
        only: Option<&str>,
        report: &mut PassReport,
        progress: &mut Progress<'_>,
    ) -> Result<(), ClusterError> {
        if plans.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let tools = Tools::find(&self.dirs.data).await?;
        self.take_away_additions(tree, &plans, installed).await?;
        let steps: Vec<Step<'_>> = plans
            .iter()
            .filter_map(|plan| match plan.change {
                ReleaseChange::Remove => Some(Step::Remove(&plan.name, &plan.namespace)),
                _ => tree.releases.iter().find(|d| d.name == plan.name && d.namespace == plan.namespace).map(Step::Install),
            })
            .collect();
        progress(&format!("helmfile: {} to change", plural(steps.len(), "release")), false);
        let mut done = 0;
        let total = steps.len();
        let mut line = |text: &str| {
            progress(text, true);
            if text.starts_with("Upgrading release=") || text.starts_with("Deleting ") {
                done += 1;
                progress(&format!("helmfile: {done} of {total}"), false);
            }
        };
        // The kinds first: helm knows no offer before.
        let (kinds, rest): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|step| matches!(step, Step::Install(desired) if desired.name == CRDS));
        let mut ran = Ok(());
        for stage in [kinds, rest].iter().filter(|stage| !stage.is_empty()) {
            ran = helmfile::apply(&self.dirs, &self.dir, &tools, &self.target, stage, &mut line).await;
            if ran.is_err() {
                break;
            }
        }
        let after = self.installed(tree, only).await?;
        let (rest, _) = self.compare(tree, &after, self.orphans(&after)?)?;
        let complaint = ran.as_ref().err().map(ToString::to_string);
        report.changed = plans
            .into_iter()
            .map(|plan| {
                let still = rest.iter().find(|rest| rest.name == plan.name && rest.namespace == plan.namespace);
                let told =
                    after.releases.get(&(plan.namespace.clone(), plan.name.clone())).filter(|release| release.info.status == "failed");
                let error = still.map(|still| match (told, &complaint) {
                    (Some(release), _) => release.info.description.clone(),
                    (None, Some(complaint)) => complaint.clone(),
                    (None, None) => format!("helmfile was content, and still: {}", still.why),
                });
                ReleaseOutcome { plan, error }
            })
            .collect();
        report.timing.helmfile = millis(begun);
        // Helmfile may fail before it comes to any release.
        let touched = report.changed.iter().any(|outcome| outcome.error.is_none());
        let failed = after.releases.values().any(|release| release.info.status == "failed");
        if touched || failed { Ok(()) } else { ran }
    }

    /// Fields that somebody has added to a live offer go: Helm only gives back what it has written.
    async fn take_away_additions(&self, tree: &Tree, plans: &[ReleasePlan], installed: &Installed) -> Result<(), ClusterError> {
        let Some((resource, _)) = resource("obol.org/v1alpha1", "ServiceOffer") else { return Ok(()) };
        for plan in plans.iter().filter(|plan| plan.change == ReleaseChange::Repair) {
            let found = installed.releases.get(&(plan.namespace.clone(), plan.name.clone()));
            let desired = tree.releases.iter().any(|desired| desired.name == plan.name && desired.namespace == plan.namespace);
            let objects = found.filter(|_| desired).map(HelmRelease::objects).unwrap_or_default();
            for offer in objects.iter().filter(|object| object["kind"] == "ServiceOffer") {
                let Some(live) = installed.live.get(offer, &plan.namespace) else { continue };
                let Some(spec) = without(&live["spec"], &offer["spec"]) else { continue };
                let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &plan.namespace, &resource);
                let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
                let patch = Patch::Merge(serde_json::json!({ "spec": spec }));
                api.patch(&plan.name, &params, &patch).await.map_err(refused(format!("mend the offer {}", plan.name)))?;
            }
        }
        Ok(())
    }

    async fn run_own(&self, tree: &Tree, report: &mut PassReport, progress: &mut Progress<'_>) -> Result<(), ClusterError> {
        if tree.own.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let tools = Tools::find(&self.dirs.data).await?;
        for file in &tree.own {
            let shown = file.strip_prefix(self.dir.root()).unwrap_or(file).display().to_string();
            progress(&format!("helmfile: {shown}"), false);
            let ran = helmfile::sync_own(&tools, &self.target, file, &mut |line| progress(line, true)).await;
            report.own.push((shown, ran.err().map(|error| error.to_string())));
        }
        report.timing.helmfile += millis(begun);
        Ok(())
    }

    /// One pass at a time on this machine; Helm itself keeps two machines apart.
    pub(super) async fn turn(&self) -> Result<std::fs::File, ClusterError> {
        let path = self.dirs.state.join("pass.lock");
        crate::files::make_private(&self.dirs.state)
            .map_err(|error| ClusterError::File { path: self.dirs.state.clone(), source: std::io::Error::other(error.to_string()) })?;
        let taken = tokio::task::spawn_blocking(move || {
            let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            file.and_then(|file| file.lock().map(|()| file)).map_err(|source| ClusterError::File { path, source })
        });
        taken.await.unwrap_or_else(|error| Err(ClusterError::File { path: self.dirs.state.clone(), source: std::io::Error::other(error) }))
    }
}

fn orphans(walk: &Walk, installed: &Installed) -> Vec<String> {
    let known: BTreeSet<&str> = walk.slices.iter().map(|slice| slice.name.as_str()).collect();
    let offers = installed.releases.iter().filter(|((namespace, _), release)| {
        let chart = our_name(&release.chart);
        namespace == OFFERS_NAMESPACE && [OfferKind::Http, OfferKind::Inference].iter().any(|kind| chart == Some(kind.folder()))
    });
    offers.map(|((_, name), _)| name.clone()).filter(|name| !known.contains(name.as_str())).collect()
}

/// Our own Traefik, once `stack.yaml` names somebody else's Gateway.
fn needless_traefik(tree: &Tree, installed: &Installed) -> Option<ReleasePlan> {
    let wants = |name: &str| tree.releases.iter().any(|desired| desired.name == name && desired.namespace != OFFERS_NAMESPACE);
    let found = installed.releases.get(&(TRAEFIK.to_owned(), TRAEFIK.to_owned()))?;
    // A tree without our system is one offer, or an infrastructure that somebody keeps by hand.
    (wants(SYSTEM) && !wants(TRAEFIK) && our_name(&found.chart) == Some(TRAEFIK)).then(|| ReleasePlan {
        name: TRAEFIK.to_owned(),
        namespace: TRAEFIK.to_owned(),
        change: ReleaseChange::Remove,
        why: "`ingress` names another Gateway".to_owned(),
    })
}

/// What is to be done to one release, and why; `None` when it is right.
fn change(desired: &Desired, chart: &Chart, found: Option<&HelmRelease>, live: &Live) -> Option<(ReleaseChange, String)> {
    let Some(found) = found else { return Some((ReleaseChange::Install, "it is not there".to_owned())) };
    if found.info.status != "deployed" {
        return Some((ReleaseChange::Upgrade, format!("{}: {}", found.info.status, found.info.description)));
    }
    if Chart::of_release(&found.chart) != *chart {
        return Some((ReleaseChange::Upgrade, "chart".to_owned()));
    }
    let given = found.config.clone().filter(|values| !values.is_null()).unwrap_or_else(|| serde_json::json!({}));
    if given != desired.values {
        return Some((ReleaseChange::Upgrade, "values".to_owned()));
    }
    let drift = found.objects().iter().find_map(|object| live.differs(object, &desired.namespace));
    drift.map(|why| (ReleaseChange::Repair, why))
}

/// A merge patch (RFC 7386) that takes away what `live` has and `wanted` has not; `None` when there
/// is nothing.
fn without(live: &Value, wanted: &Value) -> Option<Value> {
    let (live, wanted) = (live.as_object()?, wanted.as_object()?);
    let fields: serde_json::Map<String, Value> = live
        .iter()
        .filter_map(|(key, value)| match wanted.get(key) {
            None => Some((key.clone(), Value::Null)),
            Some(wanted) => Some((key.clone(), without(value, wanted)?)),
        })
        .collect();
    (!fields.is_empty()).then_some(Value::Object(fields))
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_somebody_added_is_taken_away_and_nothing_else() {
        let wanted = json!({ "a": 1, "b": { "c": 1 }, "d": [1] });
        assert_eq!(without(&wanted, &wanted), None);
        let live = json!({ "a": 2, "b": { "c": 1, "more": true }, "d": [1, 2], "new": "x" });
        assert_eq!(without(&live, &wanted), Some(json!({ "b": { "more": null }, "new": null })));
    }
}
