//! One request head: where it ends, and whether its framing is beyond doubt.

use std::mem::MaybeUninit;

use super::{FramingRefusal, chunked::is_token};

/// More headers than this are refused.
const MAX_HEADERS: usize = 100;
/// Longest request target in bytes.
const MAX_TARGET: usize = 16 * 1024;
/// Blank lines before a request line are skipped (RFC 9112 §2.2), but not for ever.
const MAX_BLANK: usize = 4;

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFraming {
    Length(u64),
    Chunked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framing {
    pub body: BodyFraming,
    /// Asks to leave HTTP/1.1 after this message.
    pub upgrade: bool,
}

/// Finds the end of the head that starts `bytes`; what was searched before is not searched again.
pub(super) fn find_end(bytes: &[u8], searched: &mut usize) -> Result<Option<usize>, FramingRefusal> {
    let byte = |i: Option<usize>| i.and_then(|i| bytes.get(i)).copied();
    let mut from = *searched;
    while let Some(offset) = bytes.get(from..).and_then(|rest| rest.iter().position(|b| *b == b'\n')) {
        let lf = from + offset;
        if byte(lf.checked_sub(1)) != Some(b'\r') {
            return Err(FramingRefusal::LineEnding);
        }
        let blank = lf == 1 || byte(lf.checked_sub(2)) == Some(b'\n');
        from = lf + 1;
        if blank {
            let leading = bytes.get(..lf).unwrap_or_default().iter().all(|b| matches!(b, b'\r' | b'\n'));
            match leading {
                false => return Ok(Some(from)),
                true if lf > MAX_BLANK => return Err(FramingRefusal::RequestLine),
                true => {}
            }
        }
    }
    *searched = bytes.len();
    Ok(None)
}

/// Checks a whole head.
pub(super) fn check(head: &[u8]) -> Result<Framing, FramingRefusal> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, &mut headers) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(FramingRefusal::LineEnding),
        Err(httparse::Error::TooManyHeaders) => return Err(FramingRefusal::TooManyHeaders),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => return Err(FramingRefusal::Header),
        Err(httparse::Error::NewLine) => return Err(FramingRefusal::LineEnding),
        Err(_) => return Err(FramingRefusal::RequestLine),
    }
    let http11 = request.version == Some(1);
    let mut fields = Fields::default();
    for header in request.headers.iter() {
        fields.see(header.name, header.value)?;
    }
    match fields.host {
        Some(host) if valid_host(host) => {}
        None if !http11 => {}
        _ => return Err(FramingRefusal::Host),
    }
    check_target(request.method.unwrap_or_default(), request.path.unwrap_or_default(), fields.host)?;
    if fields.chunked && !http11 {
        return Err(FramingRefusal::TransferEncoding);
    }
    let body = match (fields.chunked, fields.length) {
        (true, Some(_)) => return Err(FramingRefusal::LengthAndEncoding),
        (true, None) => BodyFraming::Chunked,
        (false, length) => BodyFraming::Length(length.unwrap_or(0)),
    };
    Ok(Framing { body, upgrade: fields.upgrade && http11 })
}

#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl<'a> Fields<'a> {
    fn see(&mut self, name: &str, value: &'a [u8]) -> Result<(), FramingRefusal> {
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => match self.host.replace(value) {
                None => {}
                Some(_) => return Err(FramingRefusal::Host),
            },
            7 if name.eq_ignore_ascii_case("upgrade") => self.upgrade = true,
            14 if name.eq_ignore_ascii_case("content-length") => {
                let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
                let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|v| v.parse().ok());
                if self.length.is_some() || length.is_none() {
                    return Err(FramingRefusal::ContentLength);
                }
                self.length = length;
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(FramingRefusal::TransferEncoding);
                }
                self.chunked = true;
            }
            // Some servers read `_` as `-`; nobody honest sends these two so.
            14 if name.eq_ignore_ascii_case("content_length") => return Err(FramingRefusal::ContentLength),
            17 if name.eq_ignore_ascii_case("transfer_encoding") => return Err(FramingRefusal::TransferEncoding),
            _ => {}
        }
        Ok(())
    }
}

fn check_target(method: &str, target: &str, host: Option<&[u8]>) -> Result<(), FramingRefusal> {
    if method == "CONNECT" {
        return Err(FramingRefusal::Connect);
    }
    if !method.bytes().all(is_token) {
        return Err(FramingRefusal::RequestLine);
    }
    if target.len() > MAX_TARGET {
        return Err(FramingRefusal::TargetTooLong);
    }
    if target.contains('#') {
        return Err(FramingRefusal::Target);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(());
    }
    let scheme = |s: &str| target.get(..s.len()).filter(|t| t.eq_ignore_ascii_case(s)).and_then(|_| target.get(s.len()..));
    let authority = scheme("http://").or_else(|| scheme("https://")).and_then(|rest| rest.split(['/', '?']).next());
    match (authority, host) {
        (Some(authority), Some(host)) if authority.as_bytes().eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(FramingRefusal::Target),
    }
}

/// `uri-host [":" port]` (RFC 9110 §7.2), with the characters that names and addresses have.
pub(crate) fn valid_host(host: &[u8]) -> bool {
    let name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let (address, port) = match host.first() {
        Some(b'[') => {
            let Some(end) = host.iter().position(|b| *b == b']') else { return false };
            let (address, rest) = host.split_at(end + 1);
            let inner = address.get(1..end).unwrap_or_default();
            if inner.is_empty() || !inner.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
                return false;
            }
            (address, rest)
        }
        _ => {
            let end = host.iter().position(|b| *b == b':').unwrap_or(host.len());
            let (address, rest) = host.split_at(end);
            if address.is_empty() || !address.iter().all(name) {
                return false;
            }
            (address, rest)
        }
    };
    address.len() <= 255
        && match port.split_first() {
            None => true,
            Some((colon, digits)) => *colon == b':' && digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
