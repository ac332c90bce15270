//! The parser as a reader between socket and server.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::{FramingRefusal, parser::Parser};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Stands in for a refused request, so that the answer leaves in its turn, behind those of
/// requests that came before it on the connection.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused.invalid\r\n\r\n";
/// Input read and dropped after a refusal, so that closing does not reset the connection before
/// the client has read its answer.
const MAX_LINGER: u64 = 256 * 1024;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Shared with the service of the connection: which of its requests is the stand-in.
#[derive(Debug)]
pub(crate) struct Verdict {
    stand_in: AtomicU64,
    refusal: OnceLock<FramingRefusal>,
}

impl Verdict {
    fn new() -> Arc<Self> {
        Arc::new(Self { stand_in: AtomicU64::new(u64::MAX), refusal: OnceLock::new() })
    }

    /// Why request number `index` (from 0) of the connection was refused, if it was.
    pub(crate) fn of(&self, index: u64) -> Option<FramingRefusal> {
        (index >= self.stand_in.load(Ordering::Acquire)).then(|| self.refusal.get().copied()).flatten()
    }
}

#[derive(Debug)]
enum Mode {
    Guarding,
    /// A body broke: reading on is an error.
    Broken,
    /// A stand-in went in: the rest is dropped.
    Lingering {
        left: u64,
    },
}

/// A reader that lets only unambiguous messages through; writes pass untouched.
#[derive(Debug)]
pub(crate) struct Guard<S> {
    io: S,
    parser: Parser,
    mode: Mode,
    /// Checked, not yet handed on.
    passed: BytesMut,
    /// Start of a head whose end has not come.
    held: BytesMut,
    verdict: Arc<Verdict>,
}

impl<S: AsyncRead + Unpin> Guard<S> {
    pub(crate) fn new(io: S, max_head: usize) -> Self {
        Self {
            io,
            parser: Parser::new(max_head),
            mode: Mode::Guarding,
            passed: BytesMut::new(),
            held: BytesMut::new(),
            verdict: Verdict::new(),
        }
    }

    pub(crate) fn verdict(&self) -> Arc<Verdict> {
        self.verdict.clone()
    }

    /// Reads until it is clear what the client speaks.
    pub(crate) async fn sniff(&mut self) -> io::Result<Protocol> {
        loop {
            if self.held.len() >= PREFACE.len() && self.held.starts_with(PREFACE) {
                self.parser.set_raw();
                self.passed = self.held.split();
                return Ok(Protocol::Http2);
            }
            if !PREFACE.starts_with(&self.held) {
                self.sort_held();
                return Ok(Protocol::Http1);
            }
            self.held.reserve(4096);
            if self.io.read_buf(&mut self.held).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Moves what may pass from `held` to `passed`.
    fn sort_held(&mut self) {
        match self.parser.feed(&self.held) {
            Ok(clean) => self.passed.unsplit(self.held.split_to(clean)),
            Err(fault) => {
                self.passed.unsplit(self.held.split_to(fault.clean));
                self.refuse(fault.refusal, fault.head_passed);
            }
        }
    }

    fn refuse(&mut self, refusal: FramingRefusal, head_passed: bool) {
        self.held.clear();
        let _ = self.verdict.refusal.set(refusal);
        if head_passed {
            self.mode = Mode::Broken;
        } else {
            self.verdict.stand_in.store(self.parser.heads, Ordering::Release);
            self.passed.extend_from_slice(STAND_IN);
            self.mode = Mode::Lingering { left: MAX_LINGER };
        }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; 4096];
        loop {
            let Mode::Lingering { left: left @ 1.. } = &mut self.mode else { return Poll::Pending };
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            // Never an end of input here: it would make the server drop answers under way.
            *left = match buffer.filled().len() {
                0 => 0,
                read => left.saturating_sub(read as u64),
            };
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.passed.is_empty() {
                let count = this.passed.len().min(out.remaining());
                out.put_slice(this.passed.get(..count).unwrap_or_default());
                this.passed.advance(count);
                if this.passed.is_empty() {
                    this.passed = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            match this.mode {
                Mode::Guarding => {}
                Mode::Broken => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "refused framing"))),
                Mode::Lingering { .. } => return this.poll_linger(cx),
            }
            if !this.held.is_empty() {
                let mut chunk = [0; 4096];
                let mut buffer = ReadBuf::new(&mut chunk);
                ready!(Pin::new(&mut this.io).poll_read(cx, &mut buffer))?;
                if buffer.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                this.held.extend_from_slice(buffer.filled());
                this.sort_held();
                continue;
            }
            // The common case: straight into the server's buffer, and only looked at there.
            let before = out.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, out))?;
            let read = out.filled().get(before..).unwrap_or_default();
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let clean = match this.parser.feed(read) {
                Ok(clean) => {
                    this.held.extend_from_slice(read.get(clean..).unwrap_or_default());
                    clean
                }
                Err(fault) => {
                    this.refuse(fault.refusal, fault.head_passed);
                    fault.clean
                }
            };
            out.set_filled(before + clean);
            if clean > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
