//! The loop that keeps what is served equal to what is on disk. It runs on a thread of its own:
//! reading files and working out the table must not hold up requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use obol_gateway::{
    TableHandle,
    health::{Prober, Target},
};
use obol_offer::{Offer, OfferName};
use obol_reconcile::{Key, OfferState, PlanItem, PlannedChange, Site, State, plan, reconcile};
use obol_stackdir::{Diagnostic, StackDir};
use obol_x402::UptoDirectory;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use crate::{
    control::{OfferView, Skipped},
    inference::Models,
    tree::{Tree, plan_items},
    view::{local_site, view},
    watch::Change,
};

/// From the first sign of an edit to the pass: an editor's handful of writes is one edit.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// A new folder is looked at again after this: files may come before the watch on it.
const SECOND_LOOK: Duration = Duration::from_millis(500);
/// Between readings of the whole tree while it cannot be watched, and while it can.
const BLIND_INTERVAL: Duration = Duration::from_secs(2);
const WATCHED_INTERVAL: Duration = Duration::from_secs(60);

/// What the keeper is told.
pub(crate) enum Event {
    /// A file changed.
    Change(Change),
    /// Facilitators said who settles `upto` payments.
    Upto(UptoDirectory),
    /// Somebody asks.
    Command(Command),
    /// The node ends.
    Stop,
}

/// What the keeper is asked.
pub(crate) enum Command {
    Report(oneshot::Sender<Report>),
    Sync(Option<OfferName>, oneshot::Sender<Vec<OfferView>>),
    Offer(OfferName, oneshot::Sender<Vec<OfferView>>),
    Plan(oneshot::Sender<Vec<PlannedChange>>),
    Observed(oneshot::Sender<Vec<PlanItem>>),
}

/// The keeper's part of the node's status.
pub(crate) struct Report {
    pub(crate) offers: Vec<OfferView>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) warnings: Vec<String>,
}

type Announce = Box<dyn Fn(&Offer) + Send>;

pub(crate) struct Keeper {
    dir: StackDir,
    tree: Tree,
    site: Site,
    listen: SocketAddr,
    state: State,
    table: TableHandle,
    prober: Prober,
    targets: BTreeMap<Key, (Arc<OfferState>, Option<Target>)>,
    models: Option<Models>,
    /// Told of an offer when it comes or changes: its facilitators are to be known.
    announce: Announce,
    dirty: BTreeSet<Change>,
    /// When `dirty` is looked at.
    debounce: Option<Instant>,
    second_look: Option<(Instant, BTreeSet<Change>)>,
    /// Why the tree is read at intervals only; absent while it is watched.
    blind: Option<String>,
    /// Whether `sync` alone changes what is served.
    asleep: bool,
    next_rescan: Instant,
    rescan_took: Duration,
    /// `stack.yaml` as the node was started with it, and whether it is another now.
    stack_text: Option<String>,
    stack_edited: bool,
    stack_problems: Vec<Diagnostic>,
}

impl Keeper {
    pub(crate) fn new(dir: StackDir, site: Site, listen: SocketAddr, table: TableHandle, prober: Prober) -> Self {
        Self {
            tree: Tree::new(dir.clone()),
            stack_text: stack_text(&dir),
            stack_problems: Vec::new(),
            dir,
            site,
            listen,
            state: State::default(),
            table,
            prober,
            targets: BTreeMap::new(),
            models: None,
            announce: Box::new(|_| ()),
            dirty: BTreeSet::new(),
            debounce: None,
            second_look: None,
            blind: None,
            asleep: false,
            next_rescan: Instant::now(),
            rescan_took: Duration::ZERO,
            stack_edited: false,
        }
    }

    /// Has published offers told to `announce`.
    pub(crate) fn announcing(self, announce: impl Fn(&Offer) + Send + 'static) -> Self {
        Self { announce: Box::new(announce), ..self }
    }

    /// Has the models of published offers served.
    pub(crate) fn serving(self, models: Models) -> Self {
        Self { models: Some(models), ..self }
    }

    /// Only `sync` changes what is served from now on.
    pub(crate) fn sleep(&mut self) {
        self.asleep = true;
    }

    /// Edits cannot be noticed as they happen; `why` is told to the node's owner.
    pub(crate) fn go_blind(&mut self, why: String) {
        if self.blind.is_none() {
            tracing::warn!("{why}");
        }
        self.blind = Some(why);
        self.next_rescan = self.next_rescan.min(Instant::now() + BLIND_INTERVAL);
    }

    /// Serves what is on disk until told to stop.
    pub(crate) fn run(mut self, events: &Receiver<Event>) {
        self.rescan();
        self.pass();
        loop {
            match events.recv_timeout(self.deadline().saturating_duration_since(Instant::now())) {
                Ok(Event::Change(change)) => self.note(change),
                Ok(Event::Upto(directory)) => self.learn(directory),
                Ok(Event::Command(command)) => self.answer(command),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            self.catch_up();
        }
    }

    fn deadline(&self) -> Instant {
        let second = self.second_look.as_ref().map(|(at, _)| *at);
        let rescan = (!self.asleep).then_some(self.next_rescan);
        let far = Instant::now() + Duration::from_secs(3600);
        [self.debounce, second, rescan, self.wake()].into_iter().flatten().min().unwrap_or(far)
    }

    /// When the state changes by itself, by this machine's own clock.
    fn wake(&self) -> Option<Instant> {
        let left = self.state.wake? - OffsetDateTime::now_utc();
        // Never sooner than a millisecond: a clock that steps must not make us spin.
        let left = Duration::try_from(left).unwrap_or_default().clamp(Duration::from_millis(1), Duration::from_secs(3600));
        Some(Instant::now() + left)
    }

    fn note(&mut self, change: Change) {
        match change {
            Change::Unwatched(why) => self.go_blind(why),
            Change::Stack => self.look_at_stack(),
            _ if self.asleep => {}
            change => {
                self.dirty.insert(change);
                self.debounce.get_or_insert_with(|| Instant::now() + DEBOUNCE);
            }
        }
    }

    /// Prepares quotes again when other facilitators settle than before.
    fn learn(&mut self, directory: UptoDirectory) {
        if self.site.upto != directory {
            self.site.upto = directory;
            self.pass();
        }
    }

    fn look_at_stack(&mut self) {
        self.stack_edited = stack_text(&self.dir) != self.stack_text;
        self.stack_problems = if self.stack_edited { self.dir.stack().err().unwrap_or_default() } else { Vec::new() };
        self.tree.gone = !self.dir.exists();
    }

    /// Does whatever is due.
    fn catch_up(&mut self) {
        let now = Instant::now();
        let mut changed = false;
        if self.debounce.is_some_and(|at| at <= now) {
            changed |= self.look();
        }
        if self.second_look.as_ref().is_some_and(|(at, _)| *at <= now)
            && let Some((_, again)) = self.second_look.take()
        {
            changed |= self.read(&again);
        }
        if !self.asleep && self.next_rescan <= now {
            changed |= self.rescan();
        }
        if changed || self.state.wake.is_some_and(|at| at <= OffsetDateTime::now_utc()) {
            self.pass();
        }
    }

    /// Reads again what was reported; says whether something changed.
    fn look(&mut self) -> bool {
        self.debounce = None;
        let dirty = std::mem::take(&mut self.dirty);
        let fresh = |change: &Change| match change {
            Change::Slice(name, kind) => !self.tree.slices.contains_key(&(name.clone(), *kind)),
            _ => true,
        };
        let again: BTreeSet<Change> = dirty.iter().filter(|change| fresh(change)).cloned().collect();
        if !again.is_empty() {
            let (_, changes) = self.second_look.get_or_insert_with(|| (Instant::now() + SECOND_LOOK, BTreeSet::new()));
            changes.extend(again);
        }
        self.read(&dirty)
    }

    fn read(&mut self, changes: &BTreeSet<Change>) -> bool {
        if changes.contains(&Change::Tree) {
            return self.rescan();
        }
        let mut changed = false;
        for change in changes {
            if let Change::Slice(name, kind) = change {
                changed |= self.tree.refresh(&(name.clone(), *kind));
            }
        }
        changed
    }

    /// Reads the whole tree. A large tree is read less often, so that this costs little of one core.
    fn rescan(&mut self) -> bool {
        let started = Instant::now();
        let changed = self.tree.rescan();
        self.rescan_took = started.elapsed();
        let interval = if self.blind.is_some() { BLIND_INTERVAL } else { WATCHED_INTERVAL };
        self.next_rescan = Instant::now() + interval.max(self.rescan_took * 20);
        changed
    }

    /// The pass: works out what is served and publishes it.
    fn pass(&mut self) {
        let started = Instant::now();
        let state = reconcile(self.tree.slices(), &self.state, &self.site, OffsetDateTime::now_utc());
        self.table.store(Some(state.table.clone()));
        log_changes(&self.state, &state, started.elapsed());
        self.state = state;
        self.aim();
    }

    /// Tells the prober what to probe, if that changed: the upstream of what is served, while it is.
    fn aim(&mut self) {
        if let Some(models) = &mut self.models {
            let served = self.state.offers.values().filter(|offer| offer.is_routed()).filter_map(|offer| offer.served.as_ref());
            models.set(served.map(|version| version.offer.as_ref()));
        }
        let before = self.targets.len();
        self.targets.retain(|key, _| self.state.offers.contains_key(key));
        let mut changed = self.targets.len() != before;
        for (key, offer) in &self.state.offers {
            if self.targets.get(key).is_some_and(|(state, _)| Arc::ptr_eq(state, offer)) {
                continue;
            }
            let served = offer.served.as_ref().filter(|_| offer.is_routed());
            if let Some(version) = served {
                (self.announce)(&version.offer);
            }
            let target = served.map(|version| Target::of(&version.offer, &version.spec));
            let old = self.targets.insert(key.clone(), (offer.clone(), target.clone()));
            changed |= old.is_none_or(|(_, old)| old != target);
        }
        if changed {
            self.prober.set(self.targets.values().filter_map(|(_, target)| target.clone()).collect());
        }
    }

    fn answer(&mut self, command: Command) {
        // Whoever asked may be gone; then nobody wants the answer.
        match command {
            Command::Report(reply) => drop(reply.send(self.report())),
            Command::Offer(name, reply) => drop(reply.send(self.views(Some(&name)))),
            Command::Observed(reply) => drop(reply.send(self.state.observed())),
            Command::Plan(reply) => drop(reply.send(plan(&plan_items(&self.dir.walk().slices), &self.state.observed()))),
            Command::Sync(name, reply) => {
                match &name {
                    None => self.rescan(),
                    Some(name) => self.read(&offer_kinds().map(|kind| Change::Slice(name.clone(), kind)).into()),
                };
                self.pass();
                drop(reply.send(self.views(name.as_ref())));
            }
        }
    }

    fn report(&self) -> Report {
        let mut warnings: Vec<String> = self.blind.iter().cloned().collect();
        if self.tree.gone {
            warnings.push(format!("{} is gone; what was read from it last is served", self.dir.root().join("stack.yaml").display()));
        }
        if self.stack_edited && !self.tree.gone {
            warnings.push("stack.yaml was edited; restart the node to use it".to_owned());
        }
        let skipped = self.tree.skipped.iter().map(|path| Skipped { path: path.clone(), reason: "NeedsCluster".to_owned() });
        let diagnostics = self.stack_problems.iter().chain(&self.tree.stray).cloned().collect();
        Report { offers: self.views(None), diagnostics, skipped: skipped.collect(), warnings }
    }

    fn views(&self, name: Option<&OfferName>) -> Vec<OfferView> {
        let site = local_site(&self.site, self.listen);
        let wanted = |key: &Key| name.is_none_or(|name| *name == key.0);
        let one = |(key, state): (&Key, &Arc<OfferState>)| {
            let target = self.targets.get(key).and_then(|(_, target)| target.as_ref());
            let probe = target.and_then(|target| self.prober.last(target));
            let model = self.models.as_ref().and_then(|models| models.state(key.0.as_str()));
            view(state, self.tree.slices.get(key), probe.as_ref(), model.as_ref(), &site)
        };
        self.state.offers.iter().filter(|(key, _)| wanted(key)).map(one).collect()
    }
}

fn stack_text(dir: &StackDir) -> Option<String> {
    fs_err::read_to_string(dir.root().join("stack.yaml")).ok()
}

/// Every kind of slice that is an offer.
fn offer_kinds() -> [obol_offer::OfferKind; 2] {
    [obol_offer::OfferKind::Http, obol_offer::OfferKind::Inference]
}

fn log_changes(before: &State, after: &State, took: Duration) {
    let changed: Vec<_> =
        after.offers.iter().filter(|(key, offer)| before.offers.get(*key).is_none_or(|old| !Arc::ptr_eq(old, offer))).collect();
    let removed = before.offers.keys().filter(|key| !after.offers.contains_key(*key));
    tracing::info!(
        offers = after.offers.len(),
        changed = changed.len(),
        removed = removed.count(),
        routes = after.table.len(),
        micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "published"
    );
    for (key, offer) in changed.iter().take(20) {
        match &offer.refusal {
            Some(refusal) => tracing::warn!(offer = %key.0, reason = refusal.reason, last_good = offer.is_routed(), "{}", refusal.message),
            None => {
                tracing::info!(offer = %key.0, endpoint = offer.shown().map(|v| v.offer.endpoint()), routed = offer.is_routed(), "offer")
            }
        }
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
