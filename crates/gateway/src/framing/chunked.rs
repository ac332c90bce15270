//! A strict reader of chunked bodies (RFC 9112 §7.1): finds the end, changes nothing.

use super::FramingRefusal;

/// Longest chunk extension in bytes; nobody needs any.
const MAX_EXTENSION: u16 = 256;
/// Largest trailer section in bytes.
const MAX_TRAILERS: u16 = 8 * 1024;

#[derive(Debug, Default)]
pub(super) struct Chunked {
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Size { digits: u8, size: u64 },
    Extension { seen: u16, size: u64 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart { total: u16 },
    TrailerName { total: u16 },
    TrailerValue { total: u16 },
    TrailerLf { total: u16 },
    LastLf,
}

impl Default for Step {
    fn default() -> Self {
        Self::Size { digits: 0, size: 0 }
    }
}

impl Chunked {
    /// Reads on. How many bytes belong to the body, and whether it ended with them.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), FramingRefusal> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let Step::Data { left } = self.step {
                let here = (bytes.len() - at) as u64;
                let taken = left.min(here);
                at += usize::try_from(taken).unwrap_or(usize::MAX);
                self.step = if taken == left { Step::DataCr } else { Step::Data { left: left - taken } };
                continue;
            }
            at += 1;
            match self.byte(byte)? {
                Some(step) => self.step = step,
                None => return Ok((at, true)),
            }
        }
        Ok((at, false))
    }

    /// The step after one byte outside chunk data; `None` at the end of the body.
    fn byte(&self, byte: u8) -> Result<Option<Step>, FramingRefusal> {
        let next = match (self.step, byte) {
            (Step::Size { digits, size }, b) if b.is_ascii_hexdigit() => {
                // 15 digits cannot overflow, and no chunk is that long.
                if digits == 15 {
                    return Err(FramingRefusal::Chunk);
                }
                let digit = char::from(b).to_digit(16).unwrap_or_default();
                Step::Size { digits: digits + 1, size: size * 16 + u64::from(digit) }
            }
            (Step::Size { digits: 1.., size }, b'\r') => Step::SizeLf { size },
            (Step::Size { digits: 1.., size }, b';') => Step::Extension { seen: 0, size },
            (Step::Extension { size, .. }, b'\r') => Step::SizeLf { size },
            (Step::Extension { seen, size }, b'\t' | b' '..=b'~') if seen < MAX_EXTENSION => Step::Extension { seen: seen + 1, size },
            (Step::SizeLf { size: 0 }, b'\n') => Step::TrailerStart { total: 0 },
            (Step::SizeLf { size }, b'\n') => Step::Data { left: size },
            (Step::DataCr, b'\r') => Step::DataLf,
            (Step::DataLf, b'\n') => Step::default(),
            (Step::Size { .. } | Step::Extension { .. } | Step::SizeLf { .. } | Step::DataCr | Step::DataLf, _) => {
                return Err(FramingRefusal::Chunk);
            }
            (Step::LastLf, b'\n') => return Ok(None),
            (Step::TrailerStart { .. }, b'\r') => Step::LastLf,
            (Step::TrailerStart { total } | Step::TrailerName { total }, b) if is_token(b) && total < MAX_TRAILERS => {
                Step::TrailerName { total: total + 1 }
            }
            (Step::TrailerName { total }, b':') => Step::TrailerValue { total },
            (Step::TrailerValue { total }, b'\r') => Step::TrailerLf { total },
            (Step::TrailerValue { total }, b'\t' | b' '..=b'~' | 0x80..) if total < MAX_TRAILERS => Step::TrailerValue { total: total + 1 },
            (Step::TrailerLf { total }, b'\n') => Step::TrailerStart { total },
            _ => return Err(FramingRefusal::Trailer),
        };
        Ok(Some(next))
    }
}

/// `tchar` of RFC 9110 §5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(body: &str) -> Result<Option<usize>, FramingRefusal> {
        let whole = Chunked::default().advance(body.as_bytes()).map(|(n, done)| done.then_some(n));
        let mut slow = Chunked::default();
        let mut bytewise = Ok(None);
        for (i, byte) in body.bytes().enumerate() {
            match slow.advance(&[byte]) {
                Ok((_, true)) => {
                    bytewise = Ok(Some(i + 1));
                    break;
                }
                Ok(_) => {}
                Err(refusal) => {
                    bytewise = Err(refusal);
                    break;
                }
            }
        }
        assert_eq!(whole, bytewise, "the end does not depend on how bytes arrive: {body:?}");
        whole
    }

    #[test]
    fn well_formed_bodies_end_where_they_should() {
        assert_eq!(end_of("0\r\n\r\nGET"), Ok(Some(5)));
        assert_eq!(end_of("3\r\nabc\r\n0\r\n\r\n"), Ok(Some(13)));
        assert_eq!(end_of("A;ext=1\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nrest"), Ok(Some(36)));
        assert_eq!(end_of("3\r\nab"), Ok(None));
    }

    #[test]
    fn hostile_chunks_are_refused() {
        for bad in [
            "\r\n",
            "g\r\n",
            "0x3\r\nabc\r\n",
            "+3\r\nabc",
            "-1\r\n",
            " 3\r\nabc",
            "3 \r\nabc",
            "3\nabc\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc0\r\n",
            "3\r\nabc\n",
            "fffffffffffffffff\r\n",
            "3;\n\r\nabc",
            "3;a\x00\r\n",
            "3\rX",
            "3\r\nabc\rX",
        ] {
            assert_eq!(end_of(bad), Err(FramingRefusal::Chunk), "{bad:?}");
        }
        assert_eq!(end_of(&format!("1;{}\r\n", "e".repeat(300))), Err(FramingRefusal::Chunk));
    }

    #[test]
    fn hostile_trailers_are_refused() {
        for bad in
            ["0\r\n x: 1\r\n\r\n", "0\r\nno-colon\r\n\r\n", "0\r\nx : 1\r\n\r\n", "0\r\nx: 1\n\r\n", "0\r\nx: \x00\r\n", "0\r\n: 1\r\n"]
        {
            assert_eq!(end_of(bad), Err(FramingRefusal::Trailer), "{bad:?}");
        }
        assert_eq!(end_of(&format!("0\r\nx: {}\r\n\r\n", "y".repeat(9000))), Err(FramingRefusal::Trailer));
    }
}
