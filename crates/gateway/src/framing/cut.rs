//! The parser's own idea of where messages begin and end, for comparing it with a server's.

use super::{FramingRefusal, parser::Parser};

/// One message as the guard cuts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Request line and headers with the empty line at their end.
    pub head: Vec<u8>,
    /// The body as it is on the wire, chunks and all.
    pub body: Vec<u8>,
    /// Whether its end was seen.
    pub complete: bool,
}

/// The messages at the start of `bytes`, up to the first that is refused or asks for another protocol.
pub(crate) fn cut(bytes: &[u8], max_head: usize) -> (Vec<Message>, Option<FramingRefusal>) {
    let (mut parser, mut held, mut messages) = (Parser::new(max_head), Vec::new(), Vec::<Message>::new());
    for byte in bytes {
        held.push(*byte);
        let passed = match parser.feed(&held) {
            Ok(passed) => passed,
            Err(fault) => return (messages, Some(fault.refusal)),
        };
        if passed == 0 {
            continue;
        }
        let piece = std::mem::take(&mut held);
        if parser.heads > messages.len() as u64 {
            messages.push(Message { head: piece, ..Message::default() });
        } else if let Some(message) = messages.last_mut() {
            message.body.extend(piece);
        }
        if let Some(message) = messages.last_mut() {
            message.complete = !parser.is_mid_message();
        }
        if parser.is_raw() {
            break;
        }
    }
    (messages, None)
}
