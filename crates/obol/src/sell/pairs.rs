//! `key=value,key=value`, as `--route` and `--accept` take it.

use crate::error::Problem;

/// The values of `keys` in `text`, in the order of `keys`.
///
/// # Errors
/// When a pair has no `=`, a key is not known, or is given twice.
pub fn parse<const N: usize>(flag: &str, text: &str, keys: [&str; N]) -> Result<[Option<String>; N], Problem> {
    let fix = || format!("write pairs of {}, e.g. {flag} '{}=…'", keys.join(", "), keys.first().unwrap_or(&"key"));
    let mut values = [const { None }; N];
    for pair in text.split(',') {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Problem::new("pair_malformed", format!("`{}` is no key=value", cut(pair)), fix()).at(flag));
        };
        let key = key.trim();
        let slot = keys.iter().position(|k| *k == key).and_then(|i| values.get_mut(i));
        match slot {
            None => return Err(Problem::new("pair_unknown", format!("`{}` is no key of {flag}", cut(key)), fix()).at(flag)),
            Some(Some(_)) => return Err(Problem::new("pair_twice", format!("`{key}` is given twice"), "keep one of them").at(flag)),
            Some(slot) => *slot = Some(value.trim().to_owned()),
        }
    }
    Ok(values)
}

/// A hostile value is not repeated in full.
pub fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        parse("--route", text, ["path", "gate"]).unwrap_err().code
    }

    #[test]
    fn pairs_come_in_any_order_once() {
        let values = parse("--route", "gate=free, path=/a=b", ["path", "gate"]).unwrap();
        assert_eq!(values, [Some("/a=b".into()), Some("free".into())]);
        assert_eq!(code("/health"), "pair_malformed");
        assert_eq!(code(""), "pair_malformed");
        assert_eq!(code("path=/a,"), "pair_malformed");
        assert_eq!(code("path=/a,gates=free"), "pair_unknown");
        assert_eq!(code("path=/a,path=/b"), "pair_twice");
    }
}
