//! What a plain scalar means to the YAML readers that see our files, and how text is written so
//! that all of them read text.
//!
//! The same file is read here (YAML 1.2) and by helm (Go, with much of YAML 1.1), so a word that
//! either of them would not take for text must be quoted.

/// The meaning of an unquoted scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plain {
    Null,
    Bool(bool),
    /// A decimal integer that every reader reads alike.
    Int(i128),
    /// A number or truth value to some readers: `0.1`, `1_000`, `0755`, `0x1F`, `yes`.
    Ambiguous,
    Text,
}

pub(crate) fn resolve(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" => return Plain::Bool(true),
        "false" | "False" | "FALSE" => return Plain::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Plain::Ambiguous,
        _ => {}
    }
    if ["y", "n", "yes", "no", "on", "off"].iter().any(|word| word.eq_ignore_ascii_case(text)) {
        return Plain::Ambiguous;
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit());
    if digits && !text.starts_with('+') && (unsigned == "0" || !unsigned.starts_with('0')) {
        // Beyond 64 bits other readers turn to floats.
        return match text.parse::<i128>() {
            Ok(number) if number >= i128::from(i64::MIN) && number <= i128::from(u64::MAX) => Plain::Int(number),
            _ => Plain::Ambiguous,
        };
    }
    if is_number(unsigned) { Plain::Ambiguous } else { Plain::Text }
}

fn is_number(unsigned: &str) -> bool {
    let plain = unsigned.replace('_', "");
    let radix = |prefix: &[&str], radix| {
        // Longer ones, such as addresses, fit no integer and so stay text everywhere.
        prefix.iter().find_map(|p| plain.strip_prefix(p)).is_some_and(|rest| u64::from_str_radix(rest, radix).is_ok())
    };
    let decimal = plain.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && plain.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
        && plain.parse::<f64>().is_ok();
    decimal
        || radix(&["0x", "0X"], 16)
        || radix(&["0o", "0O"], 8)
        || radix(&["0b", "0B"], 2)
        || matches!(plain.as_str(), ".inf" | ".Inf" | ".INF")
}

/// Text as it is written into a file: plain when nobody can mistake it, else double-quoted.
pub(crate) fn write_text(text: &str) -> String {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-' | ':');
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') && text.chars().all(inner) && !text.ends_with(':');
    if plain && resolve(text) == Plain::Text { text.to_owned() } else { quote(text) }
}

/// Double-quoted, with every character escaped that is not plainly visible.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                out.push_str(&format!("\\u{:04X}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Single-quoted, or `None` when the text has characters that this style cannot carry.
pub(crate) fn quote_single(text: &str) -> Option<String> {
    let fits = text.chars().all(|c| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'));
    fits.then(|| format!("'{}'", text.replace('\'', "''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_some_reader_takes_for_something_else() {
        for text in ["0.001", ".5", "1e3", "1_000", "0755", "0x1F", "0o7", "+1", "-0.1", "yes", "No", "off", "y", ".inf", "-.inf", ".nan"] {
            assert_eq!(resolve(text), Plain::Ambiguous, "{text}");
        }
        for text in
            ["0x209693Bc6afc0C5328bA36FaF03C514EF312287C", "2026-11-23T12:00:00Z", "1h", "base-sepolia", "1.2.3", "-", "e5", "/", "nope"]
        {
            assert_eq!(resolve(text), Plain::Text, "{text}");
        }
        assert_eq!(resolve("-12"), Plain::Int(-12));
        assert_eq!(resolve("18446744073709551615"), Plain::Int(18_446_744_073_709_551_615));
        assert_eq!(resolve("18446744073709551616"), Plain::Ambiguous);
    }

    #[test]
    fn text_is_quoted_when_in_doubt() {
        assert_eq!(write_text("http://127.0.0.1:9000"), "http://127.0.0.1:9000");
        assert_eq!(write_text("0.001"), "\"0.001\"");
        assert_eq!(write_text("yes"), "\"yes\"");
        assert_eq!(write_text("a: b # c"), "\"a: b # c\"");
        assert_eq!(write_text("say \"hi\"\u{7}"), "\"say \\\"hi\\\"\\u0007\"");
    }
}
