//! Counters, in the OpenMetrics text format.

use std::{fmt::Write as _, sync::atomic::Ordering};

use crate::model::Model;

/// The metrics of all `models`.
pub fn encode(models: &[&Model]) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, values: &dyn Fn(&Model) -> Vec<(&'static str, u64)>| {
        let suffix = if kind == "counter" { "_total" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
        for model in models {
            for (label, value) in values(model) {
                let _ = writeln!(text, "{name}{suffix}{{offer=\"{}\"{label}}} {value}", model.config.offer);
            }
        }
    };
    family("obol_inference_requests", "counter", "Requests by outcome", &|model| {
        let c = &model.counters;
        [
            (",outcome=\"counted\"", &c.answered),
            (",outcome=\"cut\"", &c.cut),
            (",outcome=\"uncounted\"", &c.uncounted),
            (",outcome=\"refused\"", &c.refused),
            (",outcome=\"busy\"", &c.busy),
            (",outcome=\"failed\"", &c.failed),
        ]
        .map(|(label, counter)| (label, counter.load(Ordering::Relaxed)))
        .to_vec()
    });
    family("obol_inference_tokens", "counter", "Tokens reported", &|model| {
        let (input, output) = (model.counters.input.load(Ordering::Relaxed), model.counters.output.load(Ordering::Relaxed));
        vec![(",direction=\"input\"", input), (",direction=\"output\"", output)]
    });
    let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    family("obol_inference_running", "gauge", "Requests at the model server", &|model| vec![("", count(model.slots.running()))]);
    family("obol_inference_waiting", "gauge", "Requests that wait for their turn", &|model| vec![("", count(model.slots.waiting()))]);
    family("obol_inference_ready", "gauge", "Whether the model server has the model", &|model| {
        vec![("", u64::from(model.state().is_ready()))]
    });
    text.push_str("# EOF\n");
    text
}
