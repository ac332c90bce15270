//! Cuts a connection's bytes into messages, without I/O.

use super::{
    FramingRefusal,
    chunked::Chunked,
    head::{self, BodyFraming},
};

/// Where in the stream of messages we are.
#[derive(Debug)]
enum State {
    Head {
        searched: usize,
    },
    Length(u64),
    Chunked(Chunked),
    /// No longer HTTP/1, or never was.
    Raw,
}

/// A message that must not pass.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub refusal: FramingRefusal,
    /// Bytes of this batch that stand before it and may pass.
    pub clean: usize,
    /// Whether its head went through in an earlier batch.
    pub head_passed: bool,
}

#[derive(Debug)]
pub(super) struct Parser {
    state: State,
    max_head: usize,
    upgrade: bool,
    /// Heads that passed so far.
    pub heads: u64,
}

impl Parser {
    pub(super) fn new(max_head: usize) -> Self {
        Self { state: State::Head { searched: 0 }, max_head, upgrade: false, heads: 0 }
    }

    /// From now on everything passes (HTTP/2 has unambiguous framing of its own).
    pub(super) fn set_raw(&mut self) {
        self.state = State::Raw;
    }

    /// Whether a body has not ended. Behind an upgrade there are no messages.
    pub(super) fn is_mid_message(&self) -> bool {
        matches!(self.state, State::Length(_) | State::Chunked(_))
    }

    /// Whether it has stopped cutting.
    #[cfg(fuzzing)]
    pub(super) fn is_raw(&self) -> bool {
        matches!(self.state, State::Raw)
    }

    /// How many of `bytes` may pass. The rest is the start of a head: present it again, with more.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut at = 0;
        // Start of the message whose head is in this batch: it can still be held back as a whole.
        let mut start = None;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            match &mut self.state {
                State::Raw => return Ok(bytes.len()),
                State::Head { searched } => {
                    let fault = |refusal| Fault { refusal, clean: at, head_passed: false };
                    let end = head::find_end(rest, searched).map_err(fault)?;
                    if end.unwrap_or(rest.len()) > self.max_head {
                        return Err(fault(FramingRefusal::HeadTooLarge));
                    }
                    let Some(end) = end else { return Ok(at) };
                    let framing = head::check(rest.get(..end).unwrap_or_default()).map_err(fault)?;
                    self.heads += 1;
                    self.upgrade = framing.upgrade;
                    start = Some(at);
                    at += end;
                    match framing.body {
                        BodyFraming::Length(0) => self.next(),
                        BodyFraming::Length(length) => self.state = State::Length(length),
                        BodyFraming::Chunked => self.state = State::Chunked(Chunked::default()),
                    }
                }
                _ if rest.is_empty() => return Ok(at),
                State::Length(left) => {
                    let taken = (*left).min(rest.len() as u64);
                    *left -= taken;
                    at += usize::try_from(taken).unwrap_or(usize::MAX);
                    if *left == 0 {
                        self.next();
                    }
                }
                State::Chunked(chunked) => match chunked.advance(rest) {
                    Ok((taken, done)) => {
                        at += taken;
                        if done {
                            self.next();
                        }
                    }
                    Err(refusal) => {
                        // Its head is held back with it, so it does not count.
                        self.heads -= u64::from(start.is_some());
                        return Err(Fault { refusal, clean: start.unwrap_or(at), head_passed: start.is_none() });
                    }
                },
            }
        }
    }

    fn next(&mut self) {
        self.state = if self.upgrade { State::Raw } else { State::Head { searched: 0 } };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";

    /// Feeds in pieces of `size` bytes as the guard does; the bytes that passed, and the fault.
    fn run(input: &str, size: usize) -> (usize, u64, Option<Fault>) {
        let (mut parser, mut held, mut passed) = (Parser::new(1024), Vec::new(), 0);
        for piece in input.as_bytes().chunks(size) {
            held.extend_from_slice(piece);
            match parser.feed(&held) {
                Ok(n) => {
                    held.drain(..n);
                    passed += n;
                }
                Err(fault) => return (passed + fault.clean, parser.heads, Some(fault)),
            }
        }
        (passed, parser.heads, None)
    }

    #[test]
    fn pipelined_requests_pass_however_they_arrive() {
        let input = format!("{GET}{POST}{CHUNKED}{GET}");
        for size in [1, 2, 3, 7, 40, 1000] {
            assert_eq!(run(&input, size), (input.len(), 4, None), "{size}");
        }
    }

    #[test]
    fn hostile_second_request_does_not_pass_with_the_first() {
        let bad = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for first in [GET, POST, CHUNKED] {
            for size in [1, 11, 1000] {
                let (passed, heads, fault) = run(&format!("{first}{bad}"), size);
                assert_eq!((passed, heads, fault.unwrap().refusal), (first.len(), 1, FramingRefusal::LengthAndEncoding));
            }
        }
    }

    #[test]
    fn hostile_body_holds_back_a_head_that_came_with_it() {
        let input = format!("{GET}POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
        let (passed, heads, fault) = run(&input, 1000);
        assert_eq!((passed, heads), (GET.len(), 1));
        assert!(!fault.unwrap().head_passed);
        assert!(run(&input, 1).2.unwrap().head_passed);
    }

    #[test]
    fn hostile_heads_without_end_are_bounded() {
        let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(2000));
        for size in [1, 100, 5000] {
            assert_eq!(run(&endless, size).2.unwrap().refusal, FramingRefusal::HeadTooLarge);
        }
    }

    #[test]
    fn everything_passes_after_an_upgrade() {
        let input = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n\x01\x02 not HTTP\n";
        assert_eq!(run(input, 1000), (input.len(), 1, None));
    }

    /// Pieces of which ambiguous messages are made.
    const PIECES: [&str; 24] = [
        "GET / HTTP/1.1\r\n",
        "POST /a HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
        "Host: a\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Upgrade: x\r\n",
        "\r\n",
        "\n",
        "\r",
        " ",
        "\0",
        ":",
        ";",
        "0\r\n\r\n",
        "5\r\nhello\r\n",
        "hello",
        "ffff\r\n",
        "X: y\r\n",
        "\r\n\r\n",
        "0",
        "é",
    ];

    proptest::proptest! {
        #[test]
        fn hostile_mixtures_are_cut_alike_however_they_arrive(pieces in proptest::collection::vec(0..PIECES.len(), 0..14), size in 1_usize..9) {
            let input: String = pieces.iter().map(|i| PIECES[*i]).collect();
            let (whole, split) = (run(&input, usize::MAX), run(&input, size));
            let refusal = |fault: &Option<Fault>| fault.as_ref().map(|fault| fault.refusal);
            proptest::prop_assert_eq!(refusal(&whole.2), refusal(&split.2));
            // In one batch a bad body still holds its head back; what is more never passes.
            proptest::prop_assert!(whole.0 <= split.0 && whole.1 <= split.1);
            if whole.2.is_none() {
                proptest::prop_assert_eq!(whole.0, split.0);
            }
        }
    }
}
