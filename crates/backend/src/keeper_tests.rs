use std::{
    path::Path,
    sync::mpsc::{Sender, channel},
};

use obol_offer::{CanonicalPath, ConditionKind, OfferKind};

use super::*;
use crate::watch::Watch;

const HEAD: &str = "upstream: {host: {port: 9}}\n  payment:\n    network: base-sepolia\n    payTo: \"0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC\"\n    price:";

fn values(name: &str, price: &str, path: &str) -> String {
    format!("name: {name}\nspec:\n  {HEAD} {{perRequest: \"{price}\"}}\n  path: {path}\n")
}

/// A keeper on a thread, over a folder of its own.
struct Rig {
    root: tempfile::TempDir,
    table: TableHandle,
    events: Sender<Event>,
    thread: Option<std::thread::JoinHandle<()>>,
    _watch: Option<Watch>,
}

impl Rig {
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        Self::with(prepare, true, |_| {})
    }

    fn with(prepare: impl FnOnce(&Path), watched: bool, change: impl FnOnce(&mut Keeper)) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("stack.yaml"), "id: test\n").unwrap();
        prepare(root.path());
        let (events, inbox) = channel();
        let table = TableHandle::default();
        let site = Site { loopback: true, ..Site::default() };
        let listen = "127.0.0.1:8402".parse().unwrap();
        let mut keeper = Keeper::new(StackDir::at(root.path()), site, listen, table.clone(), Prober::new());
        change(&mut keeper);
        let report = events.clone();
        let _watch = watched.then(|| Watch::start(root.path(), move |change| drop(report.send(Event::Change(change)))).unwrap());
        let thread = Some(std::thread::spawn(move || keeper.run(&inbox)));
        let rig = Self { root, table, events, thread, _watch };
        rig.until("the first table", |rig| rig.table.load().is_some());
        rig
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        file(self.root.path(), name)
    }

    fn write(&self, name: &str, text: &str) {
        write(self.root.path(), name, text);
    }

    /// The price that is asked at a path, by the table.
    fn price(&self, path: &str) -> Option<String> {
        let path = CanonicalPath::parse(path).unwrap();
        let table = self.table.load_full()?;
        table.find(None, &path)?.quote.as_ref().map(|quote| quote.terms()[0].amount.to_string())
    }

    fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Duration {
        let started = Instant::now();
        while !holds(self) {
            assert!(started.elapsed() < Duration::from_secs(5), "not within 5 s: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
        started.elapsed()
    }

    fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> T {
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::Command(command(reply))).unwrap();
        answer.blocking_recv().unwrap()
    }

    fn offer(&self, name: &str) -> OfferView {
        self.ask(|reply| Command::Offer(name.parse().unwrap(), reply)).remove(0)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Stop);
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking());
        }
    }
}

fn file(root: &Path, name: &str) -> std::path::PathBuf {
    root.join("applications/sell-http").join(name).join("values-offer.yaml")
}

fn write(root: &Path, name: &str, text: &str) {
    let file = file(root, name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

fn reason(view: &OfferView, kind: ConditionKind) -> String {
    view.status.condition(kind).unwrap().reason.clone()
}

#[test]
fn an_edit_by_hand_is_live_at_once() {
    let rig = Rig::new(|root| write(root, "a", &values("a", "0.001", "/a")));
    assert_eq!(rig.price("/a/x").as_deref(), Some("1000"));
    for price in 2..7 {
        // In place, as `echo >` does; and by renaming, as editors do.
        let text = values("a", &format!("0.00{price}"), "/a");
        if price % 2 == 0 {
            rig.write("a", &text);
        } else {
            let temporary = rig.file("a").with_extension("tmp");
            std::fs::write(&temporary, text).unwrap();
            std::fs::rename(&temporary, rig.file("a")).unwrap();
        }
        let took = rig.until("the new price", |rig| rig.price("/a") == Some(format!("{price}000")));
        println!("an edit by hand was live after {took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    let view = rig.offer("a");
    assert_eq!((view.price.as_str(), view.network.as_str(), view.url.as_str()), ("0.006 USDC", "base-sepolia", "http://127.0.0.1:8402/a"));
}

#[test]
fn new_slices_and_deleted_ones_are_noticed() {
    let rig = Rig::new(|_| {});
    rig.write("a", &values("a", "0.001", "/a"));
    rig.until("a new slice", |rig| rig.price("/a").is_some());
    rig.write("b", &values("b", "0.002", "/b"));
    rig.until("another", |rig| rig.price("/b").is_some());
    // A folder moved in as a whole.
    let aside = rig.root.path().join("aside");
    std::fs::create_dir(&aside).unwrap();
    std::fs::write(aside.join("values-offer.yaml"), values("c", "0.003", "/c")).unwrap();
    std::fs::rename(&aside, rig.root.path().join("applications/sell-http/c")).unwrap();
    rig.until("a folder moved in", |rig| rig.price("/c").is_some());
    rig.write("c", &values("c", "0.004", "/c"));
    rig.until("an edit in it", |rig| rig.price("/c").as_deref() == Some("4000"));
    std::fs::remove_dir_all(rig.root.path().join("applications/sell-http/a")).unwrap();
    rig.until("the route to go", |rig| rig.price("/a").is_none());
    assert!(rig.price("/b").is_some() && rig.price("/c").is_some());
    assert!(rig.ask(|reply| Command::Offer("a".parse().unwrap(), reply)).is_empty());
}

#[test]
fn a_broken_slice_keeps_serving_what_was_good() {
    let rig = Rig::new(|root| {
        write(root, "a", &values("a", "0.001", "/a"));
        write(root, "b", &values("b", "0.002", "/b"));
    });
    let neighbour = |rig: &Rig| Arc::as_ptr(rig.table.load_full().unwrap().find(None, &CanonicalPath::parse("/b").unwrap()).unwrap());
    let before = neighbour(&rig);
    rig.write("a", &values("a", "0.009", "/api/forbidden"));
    rig.until("the broken slice to be reported", |rig| !rig.offer("a").current);
    let view = rig.offer("a");
    assert_eq!((rig.price("/a").as_deref(), view.price.as_str()), (Some("1000"), "0.001 USDC"));
    assert_eq!(view.diagnostics[0].code, "path_reserved");
    assert_eq!((view.diagnostics[0].file.to_str().unwrap(), view.diagnostics[0].line), ("applications/sell-http/a/values-offer.yaml", 8));
    assert_eq!(reason(&view, ConditionKind::RoutePublished), "LastGood");
    assert_eq!(neighbour(&rig), before, "the neighbour's entry was made anew");
    rig.write("a", &values("a", "0.009", "/a"));
    rig.until("the mended slice", |rig| rig.price("/a").as_deref() == Some("9000") && rig.offer("a").current);
    assert!(rig.offer("a").diagnostics.is_empty());
}

#[test]
fn two_offers_cannot_have_one_place() {
    let rig = Rig::new(|root| write(root, "b", &values("b", "0.002", "/x")));
    rig.write("a", &values("a", "0.001", "/x"));
    rig.until("the loser", |rig| rig.ask(|reply| Command::Offer("a".parse().unwrap(), reply)).iter().any(|v| !v.current));
    let view = rig.offer("a");
    assert_eq!((reason(&view, ConditionKind::Ready).as_str(), view.diagnostics[0].code.as_str()), ("PathConflict", "path_taken"));
    assert_eq!(rig.price("/x").as_deref(), Some("2000"));
    std::fs::remove_dir_all(rig.root.path().join("applications/sell-http/b")).unwrap();
    rig.until("the place to fall to the other", |rig| rig.price("/x").as_deref() == Some("1000"));
}

#[test]
fn a_drain_ends_by_itself() {
    let rig = Rig::new(|root| write(root, "a", &values("a", "0.001", "/a")));
    let now = OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap();
    rig.write("a", &format!("{}  drainAt: \"{now}\"\n  drainGracePeriod: 2s\n", values("a", "0.001", "/a")));
    rig.until("the drain", |rig| reason(&rig.offer("a"), ConditionKind::Draining) == "Draining");
    assert!(rig.price("/a").is_some());
    rig.until("its end", |rig| rig.price("/a").is_none());
    assert_eq!(reason(&rig.offer("a"), ConditionKind::Ready), "Drained");
}

#[test]
fn a_sync_answers_after_publication() {
    let rig = Rig::with(|_| {}, false, Keeper::sleep);
    for price in 1..9 {
        rig.write("a", &values("a", &format!("0.00{price}"), "/a"));
        let views = rig.ask(|reply| Command::Sync(Some("a".parse().unwrap()), reply));
        assert_eq!((rig.price("/a"), views[0].price.clone()), (Some(format!("{price}000")), format!("0.00{price} USDC")));
    }
    rig.write("b", &values("b", "0.001", "/b"));
    let plan = rig.ask(Command::Plan);
    assert_eq!(
        plan.iter().map(|c| (c.name.as_str(), c.action)).collect::<Vec<_>>(),
        [("a", obol_reconcile::Action::None), ("b", obol_reconcile::Action::Create)]
    );
    assert_eq!(rig.ask(|reply| Command::Sync(None, reply)).len(), 2);
    std::fs::remove_dir_all(rig.root.path().join("applications/sell-http/a")).unwrap();
    assert!(rig.ask(|reply| Command::Sync(Some("a".parse().unwrap()), reply)).is_empty());
    assert_eq!((rig.price("/a"), rig.price("/b").is_some()), (None, true));
}

#[test]
fn a_blind_node_reads_the_tree_at_intervals_and_says_so() {
    let rig = Rig::with(|_| {}, false, |keeper| keeper.go_blind("no watches left".into()));
    rig.write("a", &values("a", "0.001", "/a"));
    rig.until("the tree to be read again", |rig| rig.price("/a").is_some());
    assert_eq!(rig.ask(Command::Report).warnings, ["no watches left"]);
}

#[test]
fn a_stack_directory_that_is_gone_stops_nobody() {
    let rig = Rig::new(|root| write(root, "a", &values("a", "0.001", "/a")));
    std::fs::remove_file(rig.root.path().join("stack.yaml")).unwrap();
    std::fs::rename(rig.root.path().join("applications"), rig.root.path().join("elsewhere")).unwrap();
    rig.until("the warning", |rig| rig.ask(Command::Report).warnings.iter().any(|w| w.contains("is gone")));
    assert!(rig.price("/a").is_some());
}

#[test]
fn an_edited_stack_file_asks_for_a_restart_until_it_is_undone() {
    let rig = Rig::new(|_| {});
    let stack = rig.root.path().join("stack.yaml");
    let warned = |rig: &Rig| rig.ask(Command::Report).warnings.iter().any(|w| w.contains("restart"));
    assert!(!warned(&rig));
    std::fs::write(&stack, "id: test\nlisten: nowhere\n").unwrap();
    rig.until("the warning", warned);
    rig.until("the reason", |rig| rig.ask(Command::Report).diagnostics.iter().any(|d| d.code == "address" && d.line == 2));
    std::fs::write(&stack, "id: test\n").unwrap();
    rig.until("the warning to go", |rig| !warned(rig));
    assert!(rig.ask(Command::Report).diagnostics.is_empty());
}

#[test]
fn what_needs_a_cluster_is_shown() {
    let rig = Rig::new(|root| std::fs::create_dir_all(root.join("applications/hermes/one")).unwrap());
    let report = rig.ask(Command::Report);
    assert_eq!(report.skipped, [Skipped { path: "applications/hermes/one".into(), reason: "NeedsCluster".into() }]);
}

#[test]
fn a_thousand_offers_and_one_edit() {
    let rig = Rig::new(|root| {
        for index in 0..1000 {
            write(root, &format!("o{index}"), &values(&format!("o{index}"), "0.001", &format!("/o{index}")));
        }
    });
    assert!((0..1000).all(|index| rig.price(&format!("/o{index}/x")).is_some()));
    rig.write("o500", &values("o500", "0.005", "/o500"));
    let took = rig.until("the edit", |rig| rig.price("/o500").as_deref() == Some("5000"));
    println!("an edit among a thousand offers was live after {took:?}");
    assert_eq!(rig.ask(Command::Report).offers.len(), 1000);
    assert_eq!(rig.ask(Command::Observed).len(), 1000);
    let key = ("o1".parse().unwrap(), OfferKind::Http);
    assert!(rig.ask(Command::Observed).iter().any(|item| (item.name.clone(), item.kind) == key));
}
