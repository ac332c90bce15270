//! Bounds on use and time, and the texts that buyers see.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Checker,
    shape::{DURATION, ONE_LINE, TIME},
};
use crate::{LimitsSpec, OfferSpec, RegistrationSpec};

const DEFAULT_DRAIN: Duration = Duration::from_secs(3600);

impl Checker {
    pub(super) fn drain(&mut self, spec: &OfferSpec) -> Option<OffsetDateTime> {
        let grace = spec.drain_grace_period.as_deref().map_or(Some(DEFAULT_DRAIN), parse_duration);
        let Some(grace) = grace else {
            let text: String = spec.drain_grace_period.iter().flat_map(|text| text.chars()).take(40).collect();
            let message = format!("`{text}` is no duration of at most 30 days");
            self.refuse("drain_grace_period", "spec.drainGracePeriod", message, "write e.g. 1h, 90s or 0s");
            return None;
        };
        let at = spec.drain_at.as_deref()?;
        match OffsetDateTime::parse(at, &Rfc3339) {
            Ok(time) if TIME.fits(at) => Some(time.saturating_add(time::Duration::try_from(grace).unwrap_or(time::Duration::ZERO))),
            _ => {
                self.refuse("drain_at", "spec.drainAt", format!("`{at}` is no time"), "write RFC 3339, e.g. 2026-11-23T12:00:00Z");
                None
            }
        }
    }

    pub(super) fn limits(&mut self, limits: Option<&LimitsSpec>) {
        let Some(limits) = limits else { return };
        for (field, zero) in [("maxInFlight", limits.max_in_flight == Some(0)), ("rps", limits.rps == Some(0))] {
            if zero {
                self.refuse("limit_zero", format!("spec.limits.{field}"), "0 lets nobody in", "write 1 or more, or use `obol sell stop`");
            }
        }
    }

    pub(super) fn registration(&mut self, registration: Option<&RegistrationSpec>) {
        let Some(registration) = registration else { return };
        let long = |text: &Option<String>, max: usize| text.as_ref().is_some_and(|t| t.chars().count() > max || !ONE_LINE.fits(t));
        for (field, bad, max) in [
            ("name", long(&registration.name, 128), 128),
            ("description", long(&registration.description, 1024), 1024),
            ("mimeType", long(&registration.mime_type, 128), 128),
        ] {
            if bad {
                let message = format!("longer than {max} characters, or has control characters");
                self.refuse("registration_text", format!("spec.registration.{field}"), message, "shorten it to one plain line");
            }
        }
    }
}

/// `1h`, `90s`, `1h30m`, `0s`; at most 30 days.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    if !DURATION.fits(text) {
        return None;
    }
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let unit = match rest.get(digits..digits + 1)? {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = rest.get(digits + 1..)?;
    }
    (total <= 30 * 86_400).then(|| Duration::from_secs(total))
}
