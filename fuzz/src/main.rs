//! One program for all targets; `OBOL_FUZZ` says which.
#![no_main]

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("OBOL_FUZZ").unwrap_or_default();
        let found = obol_fuzz::TARGETS.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("OBOL_FUZZ is one of {:?}", obol_fuzz::TARGETS.map(|(name, _)| name))).1
    });
    target(data);
});
