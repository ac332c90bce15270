//! The framing guard: reads every HTTP/1 request head on the wire before the server does, and
//! refuses messages that two servers could cut differently (request smuggling).
//!
//! The HTTP library drops a `Content-Length` beside a `Transfer-Encoding` and the like before we
//! could see it, so the guard stands in front of it, as a reader. Sources: RFC 9112 §§2.2, 3, 5, 6, 7.

mod chunked;
#[cfg(fuzzing)]
pub(crate) mod cut;
mod guard;
mod head;
mod parser;
mod refusal;

pub(crate) use guard::{Guard, Protocol, Verdict};
pub(crate) use head::valid_host;
pub(crate) use refusal::FramingRefusal;
