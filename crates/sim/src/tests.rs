use crate::{Counts, Planted, run};

/// A few seeds with every build; `cargo xtask sim` runs many.
#[test]
fn every_promise_is_kept() {
    let mut all = Counts::default();
    for seed in 0..60 {
        let outcome = run(seed, None, false);
        assert_eq!(outcome.violation, None, "cargo xtask sim --seed {seed}");
        all += outcome.counts;
    }
    // Things did happen.
    assert!(
        all.transfers > 20 && all.delivered > 20 && all.crashes > 20 && all.streams > 20 && all.reruns > 2 && all.refunds > 1,
        "{all:?}"
    );
}

#[test]
fn the_same_seed_is_the_same_story() {
    for seed in 0..25 {
        let (first, again) = (run(seed, None, true), run(seed, None, false));
        assert_eq!(first.hash, again.hash, "seed {seed}");
    }
}

/// A simulation that finds nothing proves nothing: each bug put in on purpose is found.
#[test]
fn planted_bugs_are_found() {
    for (planted, words) in Planted::ALL {
        let found = (0..300).find(|seed| run(*seed, Some(planted), false).violation.is_some_and(|what| what.contains(words)));
        assert!(found.is_some(), "{planted:?} was not found in 300 seeds");
    }
}
