//! Server-sent events (WHATWG HTML § 9.2), event by event, each with its bytes as they came.

use bytes::{Bytes, BytesMut};

/// Longest event that is looked into; a longer one passes as it comes.
pub const MAX_EVENT: usize = 1024 * 1024;

/// Cuts a stream into events.
#[derive(Debug, Default)]
pub struct Events {
    buffer: BytesMut,
    /// How much of `buffer` has been looked at.
    seen: usize,
    /// Whether the line so far is empty.
    line_is_empty: bool,
    after_cr: bool,
    /// Whether the event has become too long.
    passing: bool,
}

/// A part of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// One event with the empty line that ends it.
    Event(Bytes),
    /// A part of an event that is too long to be looked into, or the rest at the stream's end.
    Raw(Bytes),
}

impl Events {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what came.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next part, if it is all there.
    pub fn next_part(&mut self) -> Option<Part> {
        while let Some(byte) = self.buffer.get(self.seen) {
            self.seen += 1;
            match byte {
                // The second half of a line break that was counted already.
                b'\n' if self.after_cr => self.after_cr = false,
                b'\n' | b'\r' => {
                    self.after_cr = *byte == b'\r';
                    if self.line_is_empty {
                        // Clients that look for CRLF CRLF need its last byte now.
                        if self.after_cr && self.buffer.get(self.seen) == Some(&b'\n') {
                            (self.seen, self.after_cr) = (self.seen + 1, false);
                        }
                        self.line_is_empty = false;
                        return Some(self.cut());
                    }
                    self.line_is_empty = true;
                }
                _ => (self.after_cr, self.line_is_empty) = (false, false),
            }
        }
        if self.seen > MAX_EVENT || self.passing && self.seen > 0 {
            self.passing = true;
            let bytes = self.take();
            return Some(Part::Raw(bytes));
        }
        None
    }

    /// What is left when the stream ends.
    pub fn rest(&mut self) -> Option<Bytes> {
        self.seen = self.buffer.len();
        let rest = self.take();
        (!rest.is_empty()).then_some(rest)
    }

    fn cut(&mut self) -> Part {
        let bytes = self.take();
        if std::mem::take(&mut self.passing) { Part::Raw(bytes) } else { Part::Event(bytes) }
    }

    fn take(&mut self) -> Bytes {
        self.buffer.split_to(std::mem::take(&mut self.seen)).freeze()
    }
}

/// The lines of an event, without their ends.
fn lines(event: &[u8]) -> impl Iterator<Item = &[u8]> {
    event.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty())
}

fn value(line: &[u8]) -> Option<&[u8]> {
    let value = line.strip_prefix(b"data")?;
    match value.strip_prefix(b":") {
        Some(value) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        None => value.is_empty().then_some(value),
    }
}

/// The event's data: its `data` lines, joined; nothing for a comment.
pub fn data(event: &[u8]) -> Option<Vec<u8>> {
    let values: Vec<&[u8]> = lines(event).filter_map(value).collect();
    (!values.is_empty()).then(|| values.join(&b'\n'))
}

/// The event with other data of one line.
pub fn with_data(event: &[u8], data: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 64);
    for line in lines(event).filter(|line| value(line).is_none()) {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\n");
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data.as_bytes());
    out.extend_from_slice(b"\n\n");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(chunks: &[&[u8]]) -> Vec<Bytes> {
        let (mut events, mut parts) = (Events::new(), Vec::new());
        for chunk in chunks {
            events.push(chunk);
            while let Some(Part::Event(bytes) | Part::Raw(bytes)) = events.next_part() {
                parts.push(bytes);
            }
        }
        parts.extend(events.rest());
        parts
    }

    #[test]
    fn every_line_break_ends_an_event_the_same_way() {
        for end in ["\n", "\r\n", "\r"] {
            let text = format!(": hello{end}{end}event: a{end}data: 1{end}data:2{end}{end}data: x");
            let whole = events(&[text.as_bytes()]);
            assert_eq!(whole.iter().map(|e| data(e)).collect::<Vec<_>>(), [None, Some(b"1\n2".to_vec()), Some(b"x".to_vec())]);
            let bytewise: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(events(&bytewise).concat(), text.as_bytes());
            assert_eq!(events(&bytewise).len(), 3);
        }
    }

    #[test]
    fn an_event_without_end_is_not_gathered() {
        let (mut events, mut out) = (Events::new(), 0);
        let chunk = vec![b'x'; 64 * 1024];
        for _ in 0..64 {
            events.push(&chunk);
            while let Some(part) = events.next_part() {
                let Part::Raw(bytes) = part else { panic!("no event ended") };
                out += bytes.len();
            }
            assert!(events.buffer.len() <= MAX_EVENT + chunk.len());
        }
        events.push(b"\n\ndata: 1\n\n");
        assert!(matches!(events.next_part(), Some(Part::Raw(_))));
        assert_eq!(events.next_part(), Some(Part::Event(Bytes::from_static(b"data: 1\n\n"))));
        assert_eq!(out, 64 * chunk.len());
    }

    #[test]
    fn data_is_replaced_and_the_rest_kept() {
        assert_eq!(with_data(b"event: a\r\nid: 1\r\ndata: old\r\n\r\n", "{}"), &b"event: a\nid: 1\ndata: {}\n\n"[..]);
    }
}
