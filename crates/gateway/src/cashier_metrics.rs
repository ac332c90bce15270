//! The cashier's own counters and its facilitators' health, read at each scrape.

use std::fmt;

use obol_settle::Cashier;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

pub(crate) struct CashierCollector(pub Cashier);

impl fmt::Debug for CashierCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CashierCollector")
    }
}

impl Collector for CashierCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.stats();
        for (name, help, value) in [
            ("cashier_admitted", "Payments admitted", stats.admitted),
            ("cashier_released", "Admitted payments given back uncharged", stats.released),
            ("cashier_settled", "Captures that moved money", stats.settled),
            ("cashier_settle_refused", "Captures that the facilitator refused", stats.settle_refused),
            ("cashier_settle_not_asked", "Captures that never reached the facilitator", stats.settle_not_asked),
            ("cashier_settle_unknown", "Captures of unknown outcome", stats.settle_unknown),
            ("cashier_recovered", "Unknown captures that turned out settled", stats.recovered),
            ("cashier_delivered", "Paid answers handed over in full", stats.delivered),
            ("cashier_owed", "Settled payments whose answer did not reach the buyer", stats.owed),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        for (name, help, value) in [
            ("cashier_unknown_now", "Payments of unknown outcome at this moment", stats.unknown_now),
            ("cashier_settling_now", "Captures under way at this moment", stats.settling_now),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let facilitators = self.0.facilitators();
        if facilitators.is_empty() {
            return Ok(());
        }
        let kind = ConstGauge::new(0_u64).metric_type();
        let mut family = encoder.encode_descriptor("facilitator_healthy", "1 while a facilitator is asked freely", None, kind)?;
        for facilitator in facilitators {
            let gauge = ConstGauge::new(u64::from(facilitator.healthy));
            gauge.encode(family.encode_family(&[("facilitator", facilitator.id)])?)?;
        }
        Ok(())
    }
}
