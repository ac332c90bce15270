//! One broken thing in the tree never hides its neighbours.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::Path,
};

use obol_offer::OfferKind;

use crate::{
    Severity, StackDir,
    slice_tests::{name, spec, stack},
};

fn good(stack: &StackDir, offer: &str) {
    let lock = stack.lock().unwrap();
    stack.put(&lock, OfferKind::Http, &name(offer), &spec("0.001")).unwrap();
}

#[test]
fn everything_odd_is_reported_and_nothing_good_is_lost() {
    let (dir, stack) = stack();
    for offer in ["alpha", "omega"] {
        good(&stack, offer);
    }
    let folder = stack.root().join("applications/sell-http");
    let values = |offer: &str| folder.join(offer).join("values-offer.yaml");
    for offer in ["no-values", "folder", "latin1", "huge", "dangling", "outside", "broken", "locked"] {
        fs::create_dir(folder.join(offer)).unwrap();
    }
    fs::create_dir(values("folder")).unwrap();
    fs::write(values("latin1"), b"name: latin1\nspec: caf\xe9\n").unwrap();
    fs::write(values("huge"), vec![b'#'; 300 * 1024]).unwrap();
    symlink("nowhere", values("dangling")).unwrap();
    fs::write(dir.path().join("secret.yaml"), "name: outside\n").unwrap();
    symlink(dir.path().join("secret.yaml"), values("outside")).unwrap();
    fs::write(values("broken"), "name: broken\nspec: [\n").unwrap();
    fs::write(values("locked"), "name: locked\n").unwrap();
    fs::set_permissions(values("locked"), fs::Permissions::from_mode(0o000)).unwrap();
    let readable = fs::read(values("locked")).is_ok();

    fs::write(folder.join("README.md"), "mine").unwrap();
    fs::create_dir(folder.join("Big_Name")).unwrap();
    fs::create_dir(folder.join(std::ffi::OsStr::from_bytes(b"caf\xe9"))).unwrap();
    fs::create_dir(folder.join(".alpha.tmp-0123456789abcdef")).unwrap();
    symlink(dir.path(), folder.join("link-outside")).unwrap();
    symlink("gone", folder.join("link-dangling")).unwrap();
    fs::create_dir_all(stack.root().join("applications/hermes/one")).unwrap();
    fs::create_dir_all(stack.root().join("applications/other")).unwrap();
    fs::create_dir_all(stack.root().join("infrastructure")).unwrap();

    let walk = stack.walk();
    let codes: Vec<_> = walk
        .slices
        .iter()
        .map(|slice| (slice.name.as_str(), slice.offer.as_ref().map_or_else(|found| found[0].code.as_str(), |_| "ok")))
        .collect();
    assert_eq!(
        codes,
        [
            ("alpha", "ok"),
            ("broken", "yaml_syntax"),
            ("dangling", "link_dangling"),
            ("folder", "not_a_file"),
            ("huge", "file_too_big"),
            ("latin1", "not_utf8"),
            ("locked", if readable { "field_missing" } else { "unreadable" }),
            ("no-values", "values_missing"),
            ("omega", "ok"),
            ("outside", "link_outside"),
        ]
    );
    let latin1 = &walk.slices[5].offer.as_ref().unwrap_err()[0];
    assert_eq!(latin1.line, 2);
    let stray: Vec<_> = walk.stray.iter().map(|found| (found.file.file_name().unwrap().to_string_lossy(), found.code.as_str())).collect();
    let expected = [
        ("Big_Name".into(), "folder_name"),
        ("README.md".into(), "stray_file"),
        ("caf\u{fffd}".into(), "folder_name"),
        ("link-dangling".into(), "link_dangling"),
        ("link-outside".into(), "link_outside"),
    ];
    assert_eq!(stray, expected);
    assert_eq!(walk.skipped, ["applications/hermes/one", "applications/other", "infrastructure"]);
    // The node walks as another user than the one who broke it; give the test its folder back.
    fs::set_permissions(values("locked"), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn links_inside_the_tree_are_followed_and_stay_links() {
    let (_dir, stack) = stack();
    good(&stack, "alpha");
    let shared = stack.root().join("shared.yaml");
    let values = stack.root().join("applications/sell-http/alpha/values-offer.yaml");
    fs::rename(&values, &shared).unwrap();
    symlink("../../../shared.yaml", &values).unwrap();
    assert!(stack.walk().slices[0].offer.is_ok());
    let lock = stack.lock().unwrap();
    stack.put(&lock, OfferKind::Http, &name("alpha"), &spec("0.5")).unwrap();
    assert!(values.is_symlink());
    assert!(fs::read_to_string(&shared).unwrap().contains("\"0.5\""));
}

#[test]
fn an_edited_generated_file_is_kept_and_reported() {
    let (_dir, stack) = stack();
    good(&stack, "alpha");
    let helmfile = stack.root().join("applications/sell-http/alpha/helmfile.yaml");
    let edited = fs::read_to_string(&helmfile).unwrap().replace("obol-offers", "mine");
    fs::write(&helmfile, &edited).unwrap();
    let chart = stack.root().join("charts/sell-http/templates/serviceoffer.yaml");
    fs::write(&chart, "mine").unwrap();
    {
        let lock = stack.lock().unwrap();
        stack.put(&lock, OfferKind::Http, &name("alpha"), &spec("0.5")).unwrap();
    }
    assert_eq!(fs::read_to_string(&helmfile).unwrap(), edited);
    assert_eq!(fs::read_to_string(&chart).unwrap(), "mine");
    let slice = stack.find(&name("alpha")).unwrap();
    assert!(slice.offer.is_ok());
    assert_eq!((slice.warnings[0].severity, slice.warnings[0].code.as_str()), (Severity::Warning, "generated_edited"));
    let outcome = stack.init(&crate::StackConfig::default()).unwrap();
    assert!(!outcome.created && outcome.written.is_empty());
    assert_eq!(outcome.warnings[0].file, Path::new("charts/sell-http/templates/serviceoffer.yaml"));
    fs::remove_file(&helmfile).unwrap();
    let lock = stack.lock().unwrap();
    stack.put(&lock, OfferKind::Http, &name("alpha"), &spec("0.5")).unwrap();
    assert!(stack.find(&name("alpha")).unwrap().warnings.is_empty());
    assert!(helmfile.exists());
}

#[test]
fn thousands_of_slices_are_read_in_order() {
    let (_dir, stack) = stack();
    good(&stack, "offer-0000");
    let folder = stack.root().join("applications/sell-http");
    let text = fs::read_to_string(folder.join("offer-0000/values-offer.yaml")).unwrap();
    for index in 1..1000 {
        let offer = format!("offer-{index:04}");
        fs::create_dir(folder.join(&offer)).unwrap();
        let text = if index % 100 == 0 { "name: [".to_owned() } else { text.replace("offer-0000", &offer) };
        fs::write(folder.join(&offer).join("values-offer.yaml"), text).unwrap();
    }
    let walk = stack.walk();
    assert_eq!(walk.slices.len(), 1000);
    assert!(walk.slices.iter().enumerate().all(|(index, slice)| slice.name.as_str() == format!("offer-{index:04}")));
    assert_eq!(walk.slices.iter().filter(|slice| slice.offer.is_err()).count(), 9);
}
