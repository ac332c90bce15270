//! The parser as a reader between socket and server.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::{FramingRefusal, parser::Parser};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Stands in for a refused request, so that the answer leaves in its turn, behind those of
/// requests that came before it on the connection.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused.invalid\r\n\r\n";
/// Input read and dropped at most, and for how long, when a connection is closed in the middle of
/// a message: closing with input unread would reset it, and a client that is still sending its
/// body would never see its `402`.
const MAX_LINGER: u64 = 64 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(5);

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
    Lingering,
    /// The write side is shut: reading until the client is done, or for too long.
    Closing(Pin<Box<tokio::time::Sleep>>),
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
    /// What may still be read and dropped.
    linger: u64,
    /// How long a client may take nothing of its answer.
    stall_timeout: Duration,
    stalled: Option<Pin<Box<tokio::time::Sleep>>>,
    verdict: Arc<Verdict>,
}

impl<S: AsyncRead + Unpin> Guard<S> {
    pub(crate) fn new(io: S, max_head: usize, stall_timeout: Duration) -> Self {
        Self {
            io,
            parser: Parser::new(max_head),
            mode: Mode::Guarding,
            passed: BytesMut::new(),
            held: BytesMut::new(),
            linger: MAX_LINGER,
            stall_timeout,
            stalled: None,
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
            self.mode = Mode::Lingering;
        }
    }

    /// Reads and drops; ready at the end of input, or when enough was dropped.
    fn poll_drop_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; 8192];
        while self.linger > 0 {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            self.linger = match buffer.filled().len() {
                0 => 0,
                read => self.linger.saturating_sub(read as u64),
            };
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the client may still be sending a message.
    fn is_mid_message(&self) -> bool {
        !matches!(self.mode, Mode::Guarding) || self.parser.is_mid_message() || !self.held.is_empty()
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
            match &this.mode {
                Mode::Guarding => {}
                Mode::Broken => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "refused framing"))),
                Mode::Lingering | Mode::Closing(_) => {
                    ready!(this.poll_drop_input(cx))?;
                    // Never an end of input here: it would make the server drop answers under way.
                    return Poll::Pending;
                }
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

impl<S> Guard<S> {
    /// Passes a write's outcome on; one that does not move for too long is an error.
    fn bound<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.stall_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.bound(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !matches!(this.mode, Mode::Closing(_)) {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if !this.is_mid_message() {
                return Poll::Ready(Ok(()));
            }
            this.mode = Mode::Closing(Box::pin(tokio::time::sleep(LINGER_TIME)));
        }
        if let Mode::Closing(end) = &mut this.mode
            && end.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Ok(()));
        }
        this.poll_drop_input(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.bound(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
