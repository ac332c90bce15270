//! Crashes on order, for tests: the process dies at the n-th point of a write.

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
};

/// How many points to pass before the end; set in the child process only.
pub(crate) const VARIABLE: &str = "OBOL_TEST_CRASH_AT";
static PASSED: AtomicU64 = AtomicU64::new(0);

/// A place at which a crash is worth a test.
pub(crate) fn point() {
    let Some(at) = env::var(VARIABLE).ok().and_then(|text| text.parse::<u64>().ok()) else { return };
    if PASSED.fetch_add(1, Ordering::SeqCst) == at {
        std::process::abort();
    }
}
