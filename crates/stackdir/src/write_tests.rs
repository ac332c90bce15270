//! Writes under fire: crashes at every point, several writers, readers in between.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use obol_offer::{OfferKind, RouteSpec};
use proptest::prelude::*;

use crate::{
    Change, StackDir, StackError, WriteLock, crash,
    edit::tests::any_spec,
    slice_tests::{name, spec, stack},
};

const ACTION: &str = "OBOL_TEST_ACTION";
const ROOT: &str = "OBOL_TEST_ROOT";

/// Runs `action` in a process of its own, which dies at point `crash_at`; whether it came to its end.
fn child(stack: &StackDir, action: &str, crash_at: Option<u64>) -> bool {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "write::tests::a_child_process", "--nocapture"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.env(ACTION, action).env(ROOT, stack.root());
    if let Some(at) = crash_at {
        command.env(crash::VARIABLE, at.to_string());
    }
    command.status().unwrap().success()
}

/// What [`child`] runs; nothing to do when the tests are run by a person.
#[test]
fn a_child_process() {
    let (Ok(action), Some(root)) = (env::var(ACTION), env::var_os(ROOT)) else { return };
    let stack = StackDir::at(PathBuf::from(root));
    match action.as_str() {
        "new" | "old" => {
            let lock = stack.lock().unwrap();
            stack.put(&lock, OfferKind::Http, &name("weather"), &spec(price_of(&action))).unwrap();
        }
        "remove" => {
            let lock = stack.lock().unwrap();
            stack.remove(&lock, OfferKind::Http, &name("weather")).unwrap();
        }
        many => write_many(&stack, many),
    }
}

fn price_of(action: &str) -> &'static str {
    if action == "new" { "0.2" } else { "0.1" }
}

fn write_many(stack: &StackDir, who: &str) {
    for round in 1..=20 {
        let lock = stack.lock().unwrap();
        stack.put(&lock, OfferKind::Http, &name(&format!("{who}-{round}")), &spec("1")).unwrap();
        // Everybody adds a route to the same slice: a lost update would lose a route.
        let mut shared = stack.find(&name("shared")).unwrap().offer.unwrap().0;
        shared.routes.push(RouteSpec { path: format!("/{who}/{round}"), ..Default::default() });
        stack.put(&lock, OfferKind::Http, &name("shared"), &shared).unwrap();
    }
}

/// The price on disk, or `None` when there is no slice. Anything else is a half-done write.
fn price(stack: &StackDir) -> Option<String> {
    let walk = stack.walk();
    assert!(walk.stray.is_empty(), "{:?}", walk.stray);
    let slice = walk.slices.into_iter().find(|slice| slice.name.as_str() == "weather")?;
    assert!(slice.warnings.is_empty(), "{:?}", slice.warnings);
    slice.offer.unwrap_or_else(|found| panic!("{found:?}\n{}", slice.text)).0.payment.unwrap().price.per_request
}

fn put(stack: &StackDir, text: &str) -> Result<Change, StackError> {
    stack.put(&stack.lock()?, OfferKind::Http, &name("weather"), &spec(text))
}

#[test]
fn a_crash_anywhere_leaves_the_old_slice_or_the_new_one() {
    let (_dir, stack) = stack();
    let none = || assert!(stack.remove(&stack.lock().unwrap(), OfferKind::Http, &name("weather")).is_ok());
    let old = || drop(put(&stack, "0.1").unwrap());
    type Case<'a> = (&'a str, &'a dyn Fn(), Option<&'a str>, Option<&'a str>);
    let cases: [Case<'_>; 4] = [
        ("new", &none, None, Some("0.2")),
        ("new", &old, Some("0.1"), Some("0.2")),
        ("remove", &old, Some("0.1"), None),
        // The folder exists, but its file is gone.
        (
            "new",
            &|| {
                old();
                fs::remove_file(values(&stack)).unwrap()
            },
            Some("missing"),
            Some("0.2"),
        ),
    ];
    for (action, prepare, before, after) in cases {
        let mut seen = [0, 0];
        for point in 0.. {
            prepare();
            let done = child(&stack, action, Some(point));
            let found = if values(&stack).parent().unwrap().exists() && !values(&stack).exists() {
                Some("missing".to_owned())
            } else {
                price(&stack)
            };
            assert!(found.as_deref() == before || found.as_deref() == after, "{action} at {point}: {found:?}");
            seen[usize::from(found.as_deref() == after)] += 1;
            if done {
                assert_eq!(found.as_deref(), after);
                break;
            }
        }
        assert!(seen[0] >= 1 && seen[1] >= 2, "{action}: crashes before and after the rename: {seen:?}");
    }
}

fn values(stack: &StackDir) -> PathBuf {
    stack.root().join("applications/sell-http/weather/values-offer.yaml")
}

#[test]
fn left_overs_are_swept_when_they_are_old() {
    let (_dir, stack) = stack();
    put(&stack, "0.1").unwrap();
    let folder = stack.root().join("applications/sell-http");
    let (stale, recent, foreign) = (folder.join(".a.tmp-1"), folder.join(".b.del-1"), folder.join(".git"));
    for path in [&stale, &recent, &foreign] {
        fs::create_dir(path).unwrap();
    }
    let past = SystemTime::now() - Duration::from_secs(7200);
    for path in [&stale, &foreign] {
        fs::File::open(path).unwrap().set_modified(past).unwrap();
    }
    drop(stack.lock().unwrap());
    assert!(!stale.exists() && recent.exists() && foreign.exists());
}

#[test]
fn writers_take_turns_and_lose_nothing() {
    let (_dir, stack) = stack();
    {
        let lock = stack.lock().unwrap();
        stack.put(&lock, OfferKind::Http, &name("shared"), &spec("1")).unwrap();
    }
    thread::scope(|scope| {
        for who in ["a", "b"] {
            scope.spawn(|| assert!(child(&stack, who, None)));
        }
        scope.spawn(|| write_many(&stack, "c"));
    });
    let walk = stack.walk();
    assert_eq!(walk.slices.len(), 61);
    assert!(walk.slices.iter().all(|slice| slice.offer.is_ok()));
    assert_eq!(stack.find(&name("shared")).unwrap().offer.unwrap().0.routes.len(), 60);
}

#[test]
fn a_reader_never_sees_half_a_slice() {
    let (_dir, stack) = stack();
    put(&stack, "1").unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                assert!(price(&stack).is_some());
                reads += 1;
            }
            reads
        });
        let lock = stack.lock().unwrap();
        for round in 1..=1000 {
            // Texts of very different length, so that a torn read could not look whole.
            let mut spec = spec(&round.to_string());
            spec.routes = (0..round % 50).map(|n| RouteSpec { path: format!("/{n}"), ..Default::default() }).collect();
            stack.put(&lock, OfferKind::Http, &name("weather"), &spec).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}

#[test]
fn the_lock_is_waited_for_and_then_reported() {
    let (_dir, stack) = stack();
    let held = stack.lock().unwrap();
    let error = WriteLock::take(stack.root(), Duration::from_millis(30)).unwrap_err();
    assert_eq!((error.code(), error.fix().contains("try again")), ("stack_locked", true));
    drop(held);
    WriteLock::take(stack.root(), Duration::ZERO).unwrap();
}

#[test]
fn what_is_refused_changes_nothing() {
    let (_dir, stack) = stack();
    put(&stack, "0.1").unwrap();
    let before = fs::read_to_string(values(&stack)).unwrap();
    let error = put(&stack, "free").unwrap_err();
    assert_eq!((error.code(), error.diagnostics()[0].code.as_str()), ("slice_invalid", "price"));
    let lock = stack.lock().unwrap();
    let error = stack.put(&lock, OfferKind::Inference, &name("weather"), &spec("1")).unwrap_err();
    assert_eq!(error.code(), "name_taken");
    assert_eq!(fs::read_to_string(values(&stack)).unwrap(), before);
    drop(lock);
    fs::write(values(&stack), "name: weather\nspec:\n  # mine\n  colour: red\n").unwrap();
    let error = put(&stack, "0.1").unwrap_err();
    assert_eq!((error.code(), error.diagnostics()[0].line), ("slice_broken", 4));
    assert!(fs::read_to_string(values(&stack)).unwrap().contains("# mine"));
}

#[test]
fn a_file_that_only_breaks_a_rule_can_be_mended() {
    let (_dir, stack) = stack();
    put(&stack, "0.1").unwrap();
    let text = fs::read_to_string(values(&stack)).unwrap().replace("\"0.1\"", "\"free\" # until spring");
    fs::write(values(&stack), text).unwrap();
    assert!(matches!(put(&stack, "0.1").unwrap(), Change::Updated { rewritten: false, .. }));
    assert!(fs::read_to_string(values(&stack)).unwrap().contains("perRequest: \"0.1\" # until spring\n"));
}

#[test]
fn a_preview_is_what_would_happen_and_nothing_happens() {
    let dir = tempfile::tempdir().unwrap();
    let stack = StackDir::at(dir.path().join("none"));
    let preview = stack.preview(OfferKind::Http, &name("weather"), &spec("1")).unwrap();
    assert!(!stack.root().exists());
    assert_eq!(put(&stack, "1").unwrap(), preview);
    let preview = stack.preview(OfferKind::Http, &name("weather"), &spec("2")).unwrap();
    assert_eq!(price(&stack).as_deref(), Some("1"));
    assert_eq!(put(&stack, "2").unwrap(), preview);
}

#[test]
fn a_folder_that_leads_elsewhere_is_not_written_through() {
    let (dir, stack) = stack();
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::create_dir_all(stack.root().join("applications/sell-http")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, stack.root().join("applications/sell-http/weather")).unwrap();
    assert_eq!(put(&stack, "1").unwrap_err().code(), "outside_stack");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert!(stack.remove(&stack.lock().unwrap(), OfferKind::Http, &name("weather")).unwrap());
    assert!(elsewhere.exists() && !Path::new(&stack.root().join("applications/sell-http/weather")).is_symlink());
}

#[test]
fn stack_yaml_is_edited_with_its_comments() {
    let (_dir, stack) = stack();
    let mut config = stack.stack().unwrap();
    config.defaults.network = Some("base-sepolia".into());
    config.listen = "0.0.0.0:80".parse().unwrap();
    let lock = stack.lock().unwrap();
    let Change::Updated { diff, rewritten: false, .. } = stack.put_stack(&lock, &config).unwrap() else { panic!("no edit") };
    assert!(diff.contains("+listen: \"0.0.0.0:80\"\n") && diff.contains("+defaults:\n+  network: base-sepolia\n"), "{diff}");
    assert_eq!(stack.stack().unwrap(), config);
    assert_eq!(stack.put_stack(&lock, &config).unwrap(), Change::Unchanged);
    drop(lock);
    let outcome = stack.init(&crate::StackConfig { id: "other".into(), ..Default::default() }).unwrap();
    assert_eq!((outcome.created, outcome.config), (false, config));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is accepted is read back the same, over whatever was there before; and again changes nothing.
    #[test]
    fn what_is_put_is_read(specs in prop::collection::vec((any_spec(), 1..10_000_u32), 1..4)) {
        let (_dir, stack) = stack();
        let lock = stack.lock().unwrap();
        for (wild, cents) in specs {
            let mut spec = spec(&format!("0.{cents:04}"));
            spec.registration = wild.registration;
            spec.routes = wild.routes;
            spec.limits = wild.limits;
            let put = stack.put(&lock, OfferKind::Http, &name("weather"), &spec);
            match put {
                Err(error) => prop_assert_eq!(error.code(), "slice_invalid"),
                Ok(_) => {
                    let slice = stack.read(OfferKind::Http, &name("weather")).unwrap().unwrap();
                    prop_assert_eq!(&slice.offer.unwrap().0, &spec);
                    prop_assert_eq!(stack.put(&lock, OfferKind::Http, &name("weather"), &spec).unwrap(), Change::Unchanged);
                }
            }
        }
    }
}
