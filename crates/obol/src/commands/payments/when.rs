//! Moments as people write them.

use time::{Date, Duration, OffsetDateTime, format_description::well_known::Iso8601, format_description::well_known::Rfc3339};

use crate::error::Error;

/// A date (midnight UTC), an RFC 3339 moment, or an age such as `24h`.
pub fn parse(text: Option<&str>, flag: &str) -> Result<Option<OffsetDateTime>, Error> {
    let Some(text) = text else { return Ok(None) };
    let fix = "write a date (2026-11-01), a moment (2026-11-01T12:00:00Z), or an age (90m, 24h, 7d)";
    read(text, OffsetDateTime::now_utc()).map(Some).ok_or_else(|| super::refused("when", "moment", text, fix.to_owned(), flag))
}

fn read(text: &str, now: OffsetDateTime) -> Option<OffsetDateTime> {
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(moment);
    }
    if let Ok(date) = Date::parse(text, &Iso8601::DATE) {
        return Some(date.midnight().assume_utc());
    }
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: i64 = count.parse::<u32>().ok()?.into();
    let age = match unit {
        "m" => Duration::minutes(count),
        "h" => Duration::hours(count),
        "d" => Duration::days(count),
        _ => return None,
    };
    now.checked_sub(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_dates_moments_and_ages() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let unix = |text: &str| read(text, now).map(OffsetDateTime::unix_timestamp);
        assert_eq!(unix("1970-01-02"), Some(86_400));
        assert_eq!(unix("1970-01-01T00:00:01Z"), Some(1));
        assert_eq!(unix("90m"), Some(1_800_000_000 - 5_400));
        assert_eq!(unix("7d"), Some(1_800_000_000 - 7 * 86_400));
        for bad in ["", "d", "-1d", "yesterday", "2026-13-01", "4294967296d", "1é", "4294967295d"] {
            assert_eq!(unix(bad), None, "{bad}");
        }
    }
}
