//! The framing guard beside the HTTP library: whatever the guard lets through, the library sees as
//! the same sequence of requests, however the bytes arrive.
//!
//! First byte: how many bytes arrive at a time, 0 for all at once.

use std::{cell::RefCell, str};

use obol_gateway::fuzzing::{Message, Seen, cut_messages, serve};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(Builder::new_current_thread().enable_time().build().expect("a runtime"));
}

pub fn target(data: &[u8]) {
    let Some((step, bytes)) = data.split_first() else { return };
    if bytes.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") {
        return;
    }
    let step = if *step == 0 { usize::MAX } else { usize::from(*step) };
    let (messages, refused) = cut_messages(bytes);
    let Some((seen, told, clean)) = RUNTIME.with_borrow(|runtime| runtime.block_on(serve(bytes, step.min(1 << 20)))) else {
        panic!("the connection hangs");
    };
    assert!(seen.len() <= messages.len(), "more requests than messages: {seen:?} of {messages:?}");
    for (message, seen) in messages.iter().zip(&seen) {
        compare(message, seen);
    }
    let last = messages.iter().any(closes);
    if clean && !last && !refused {
        assert_eq!(seen.len(), messages.len(), "a message was lost: {messages:?}");
    }
    if told {
        assert!(refused, "refused by nobody");
    }
}

fn compare(message: &Message, seen: &Seen) {
    let head = message.head.iter().position(|b| !matches!(b, b'\r' | b'\n')).map_or(&[][..], |start| &message.head[start..]);
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ');
    assert_eq!(words.next(), Some(seen.method.as_bytes()));
    let target = words.next().unwrap_or_default();
    // The library writes a target in absolute form with a path, and host and scheme in its own way.
    if target.starts_with(b"/") {
        assert_eq!(str::from_utf8(target), Ok(seen.target.as_str()));
    }
    match (&seen.body, message.complete) {
        (Some(body), true) => assert_eq!(*body, content(message), "{:?}", String::from_utf8_lossy(&message.head)),
        (Some(body), false) => panic!("a body that did not end: {body:?}"),
        (None, true) => panic!("a body was lost"),
        (None, false) => {}
    }
}

/// Whether a server may leave what follows unread.
fn closes(message: &Message) -> bool {
    let head = String::from_utf8_lossy(&message.head).to_ascii_lowercase();
    !message.complete
        || head.contains("\nconnection:")
        || head.contains("\nupgrade:")
        || head.contains("\nexpect:")
        || head.contains(" http/1.0\r")
}

/// A body without its chunks. What the guard let through is well-formed, so this is simple.
fn content(message: &Message) -> Vec<u8> {
    let head = String::from_utf8_lossy(&message.head).to_ascii_lowercase();
    if !head.contains("\ntransfer-encoding:") {
        return message.body.clone();
    }
    let (mut rest, mut out) = (message.body.as_slice(), Vec::new());
    loop {
        let end = rest.iter().position(|b| *b == b'\n').expect("a chunk's line ends");
        let line = str::from_utf8(&rest[..end]).expect("ASCII");
        let digits = line.split([';', '\r']).next().unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).expect("a size");
        if size == 0 {
            return out;
        }
        rest = &rest[end + 1..];
        out.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}
