//! The cashier's counters and the facilitators' health, as metrics. They are read when somebody
//! asks, so they cost a payment nothing.

use std::{fmt, sync::atomic::AtomicU64};

use obol_settle::Cashier;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode_registry},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Facilitator {
    facilitator: String,
}

struct Payments(Cashier);

impl fmt::Debug for Payments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Payments")
    }
}

/// The OpenMetrics text without its end mark, to go before that of the gateway.
pub(super) fn encode(cashier: &Cashier) -> String {
    let mut registry = Registry::with_prefix("obol_cashier");
    registry.register_collector(Box::new(Payments(cashier.clone())));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = encode_registry(&mut text, &registry);
    text
}

impl Collector for Payments {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.stats();
        for (name, help, value) in [
            ("admitted", "Payments admitted: verified, reserved and bound to a request", stats.admitted),
            ("released", "Payments given back without asking for money", stats.released),
            ("settled", "Captures that moved money", stats.settled),
            ("settle_refused", "Captures that the facilitator refused", stats.settle_refused),
            ("settle_not_asked", "Captures that never reached the facilitator", stats.settle_not_asked),
            ("settle_unknown", "Captures of unknown outcome", stats.settle_unknown),
            ("recovered", "Captures of unknown outcome that turned out settled", stats.recovered),
            ("delivered", "Paid answers handed over in full", stats.delivered),
            ("owed", "Settled payments whose answer did not reach the buyer", stats.owed),
        ] {
            put(&mut encoder, name, help, None, &ConstCounter::new(value))?;
        }
        for (name, help, value) in [
            ("admit", "Time spent in admission, successful or not", stats.admit_time),
            ("settle", "Time spent in settlement, however it ended", stats.settle_time),
        ] {
            put(&mut encoder, name, help, Some(&Unit::Seconds), &ConstCounter::new(value.as_secs_f64()))?;
        }
        for (name, help, value) in
            [("unknown", "Payments of unknown outcome now", stats.unknown_now), ("settling", "Captures under way now", stats.settling_now)]
        {
            put(&mut encoder, name, help, None, &ConstGauge::new(value))?;
        }
        let refused = Family::<Code, Counter>::default();
        for (code, value) in stats.refused {
            refused.get_or_create(&Code { code }).inc_by(value);
        }
        put(&mut encoder, "refused", "Payments not admitted, by code", None, &refused)?;
        self.facilitators(&mut encoder)
    }
}

impl Payments {
    fn facilitators(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let up = Family::<Facilitator, Gauge<u64, AtomicU64>>::default();
        let failures = Family::<Facilitator, Gauge<u64, AtomicU64>>::default();
        for health in self.0.facilitators() {
            let label = Facilitator { facilitator: health.id };
            up.get_or_create(&label).set(u64::from(health.healthy));
            failures.get_or_create(&label).set(u64::from(health.failures));
        }
        put(encoder, "facilitator_up", "1 while a facilitator is asked freely, 0 while its circuit breaker is open", None, &up)?;
        put(encoder, "facilitator_failures", "Failures of a facilitator in a row", None, &failures)
    }
}

fn put(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, unit: Option<&Unit>, metric: &impl EncodeMetric) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
}
