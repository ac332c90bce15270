//! What a request has used: the report of a metered upstream, in the field `x-obol-usage`.

use std::{collections::HashMap, fmt};

/// Response header or trailer in which a metered upstream reports what a request has used. It never reaches a buyer.
pub const USAGE_FIELD: &str = "x-obol-usage";

/// Longest report that is read, in bytes.
const MAX_REPORT: usize = 256;

/// What one request has used.
///
/// On the wire an RFC 8941 dictionary of integers: `input=12, output=34`, or `units=7`. Members that are not known
/// (`cached=3`) inform people only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Tokens of a model.
    Tokens {
        /// Of the prompt.
        input: u64,
        /// Of the completion.
        output: u64,
    },
    /// Whatever the offer counts.
    Units(u64),
}

impl Usage {
    /// Reads a report; `None` when it is none, or counts tokens and units at once.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_REPORT {
            return None;
        }
        let mut counts = HashMap::new();
        for member in text.split(',') {
            let (name, count) = member.trim_matches([' ', '\t']).split_once('=')?;
            let is_key = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'*')
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b));
            // RFC 8941: at most 15 digits. A report is a count, so there is no sign; and a name said twice is no clear report.
            let is_count = !count.is_empty() && count.len() <= 15 && count.bytes().all(|b| b.is_ascii_digit());
            if !is_key || !is_count || counts.insert(name, count.parse::<u64>().ok()?).is_some() {
                return None;
            }
        }
        match (counts.get("input"), counts.get("output"), counts.get("units")) {
            (Some(&input), Some(&output), None) => Some(Self::Tokens { input, output }),
            (None, None, Some(&units)) => Some(Self::Units(units)),
            _ => None,
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens { input, output } => write!(f, "input={input}, output={output}"),
            Self::Units(units) => write!(f, "units={units}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_as_written() {
        for usage in [Usage::Tokens { input: 12, output: 34 }, Usage::Tokens { input: 0, output: 0 }, Usage::Units(7)] {
            assert_eq!(Usage::parse(&usage.to_string()), Some(usage));
        }
        assert_eq!(Usage::parse("input=1,\toutput=2 , cached=1"), Some(Usage::Tokens { input: 1, output: 2 }));
        assert_eq!(Usage::parse("units=999999999999999"), Some(Usage::Units(999_999_999_999_999)));
    }

    #[test]
    fn what_is_no_clear_report_is_none() {
        for bad in [
            "",
            "7",
            "input=1",
            "output=1",
            "units",
            "units=",
            "units=-1",
            "units=+1",
            "units=1.5",
            "units=0x1",
            "units=1e3",
            "units=1;a=b",
            "units=\"1\"",
            "units=1,units=1",
            "units=1,",
            "units=1,,cached=2",
            "Units=1",
            "units =1",
            "units= 1",
            "input=1, output=2, units=3",
            "input=1, units=3",
            "units=1000000000000000",
            "units=١",
            "units=1\r\ninput=2",
        ] {
            assert_eq!(Usage::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Usage::parse(&format!("units=1, x={}", " ".repeat(300))), None);
    }
}
