//! How much of a metered answer has left, counted as it leaves.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts, read by whoever settles.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    bytes: AtomicU64,
    events: AtomicU64,
}

impl Tally {
    /// Bytes of the body.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Whole server-sent events with data.
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }
}

/// Bytes of a line that tell what it is: `data: [DONE]` is the longest that matters.
const TOLD: usize = 16;

/// Reads a body on its way.
#[derive(Debug)]
pub(crate) struct Counter {
    tally: std::sync::Arc<Tally>,
    /// Whether the body is a stream of events (HTML §9.2).
    events: bool,
    /// The beginning of the current line, without its end.
    line: [u8; TOLD],
    length: usize,
    /// A carriage return was last, so a line feed ends no other line.
    returned: bool,
    has_data: bool,
}

impl Counter {
    pub(crate) fn new(tally: std::sync::Arc<Tally>, events: bool) -> Self {
        Self { tally, events, line: [0; TOLD], length: 0, returned: false, has_data: false }
    }

    /// Counts bytes that leave.
    pub(crate) fn count(&mut self, bytes: &[u8]) {
        self.tally.bytes.fetch_add(bytes.len() as u64, Ordering::Release);
        if !self.events {
            return;
        }
        for byte in bytes {
            match byte {
                b'\n' if self.returned => self.returned = false,
                b'\r' | b'\n' => {
                    self.returned = *byte == b'\r';
                    self.end_line();
                }
                other => {
                    self.returned = false;
                    if let Some(slot) = self.line.get_mut(self.length) {
                        *slot = *other;
                    }
                    // One more than fits says that there was more.
                    self.length = (self.length + 1).min(TOLD + 1);
                }
            }
        }
    }

    fn end_line(&mut self) {
        let line = self.line.get(..self.length.min(TOLD)).unwrap_or_default();
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                self.tally.events.fetch_add(1, Ordering::Release);
            }
        } else if let Some(data) = line.strip_prefix(b"data:") {
            // OpenAI's mark of the end carries nothing.
            self.has_data |= data.trim_ascii() != b"[DONE]";
        }
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn events(parts: &[&[u8]]) -> u64 {
        let tally = Arc::new(Tally::default());
        let mut counter = Counter::new(tally.clone(), true);
        parts.iter().for_each(|part| counter.count(part));
        assert_eq!(tally.bytes(), parts.iter().map(|part| part.len() as u64).sum::<u64>());
        tally.events()
    }

    const STREAM: &[u8] =
        b": hello\n\ndata: {\"a\":1}\n\ndata: {\"b\":\r\ndata: 2}\r\n\r\nevent: x\rdata:y\r\rid: 7\n\ndata: [DONE]\n\ndata: cut";

    #[test]
    fn events_with_data_count_once_they_are_whole() {
        assert_eq!(events(&[STREAM]), 3);
        assert_eq!(events(&[b"data: x\n"]), 0);
        assert_eq!(events(&[b"data: x\n", b"\n"]), 1);
        assert_eq!(events(&[b"data: [DONE], and more than that\n\n"]), 1);
        assert_eq!(events(&[b"databases: 1\n\ndata\n\n"]), 0);
    }

    proptest! {
        /// Where the network cuts a stream does not matter.
        #[test]
        fn pieces_count_like_the_whole(cuts in proptest::collection::vec(0..STREAM.len(), 0..6)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|ends| &STREAM[ends[0]..ends[1]]).collect();
            prop_assert_eq!(events(&parts), events(&[STREAM]));
        }
    }
}
