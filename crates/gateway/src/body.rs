//! Bodies in both directions: streamed, never gathered, with what must happen at their end.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use obol_settle::Delivery;
use tokio::sync::OwnedSemaphorePermit;

use crate::{headers, limits::InFlight, metered::MeteredBody};

/// An answer to a buyer.
#[derive(Debug)]
pub(crate) enum Body {
    /// From the gateway itself.
    Ready(Bytes),
    /// From an upstream.
    Upstream(Box<UpstreamBody>),
    /// From an upstream, charged at its end.
    Metered(Box<MeteredBody>),
}

/// Why an answer breaks off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the upstream's answer broke: {0}")]
    Upstream(hyper::Error),
    #[error("the payment for it would end before it could be settled")]
    PaymentEnds,
}

impl Body {
    pub(crate) const fn empty() -> Self {
        Self::Ready(Bytes::new())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Ready(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Ready(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Upstream(body) => body.poll(cx).map_err(BodyError::Upstream),
            Self::Metered(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ready(bytes) => bytes.is_empty(),
            Self::Upstream(body) => body.inner.is_end_stream(),
            Self::Metered(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ready(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream(body) => body.inner.size_hint(),
            Self::Metered(body) => body.size_hint(),
        }
    }
}

/// An upstream's answer as it comes, or as it was read before its payment was captured.
#[derive(Debug)]
pub(crate) enum Source {
    Stream(Incoming),
    Whole(Bytes),
}

impl HttpBody for Source {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Stream(body) => body.is_end_stream(),
            Self::Whole(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Stream(body) => body.size_hint(),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

/// An upstream's answer on its way to the buyer.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    inner: Source,
    /// Completed at the end; dropped before it, the payment is owed.
    delivery: Option<Delivery>,
    /// The request counts as in progress until here.
    _in_flight: InFlight,
}

impl UpstreamBody {
    pub(crate) fn new(inner: Source, delivery: Option<Delivery>, in_flight: InFlight) -> Self {
        let mut body = Self { inner, delivery, _in_flight: in_flight };
        // An answer without a body is never polled.
        body.complete_at_end();
        body
    }

    fn complete_at_end(&mut self) {
        if self.inner.is_end_stream() {
            self.complete();
        }
    }

    fn complete(&mut self) {
        if let Some(delivery) = self.delivery.take() {
            delivery.complete();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            None => {
                self.complete();
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                // With a known length nobody polls past the last byte.
                self.complete_at_end();
                Poll::Ready(Some(Ok(clean_trailers(frame, headers::is_private_response_header))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
        }
    }
}

pub(crate) fn clean_trailers(frame: Frame<Bytes>, private: fn(&http::HeaderName) -> bool) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            headers::remove_if(&mut trailers, private);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// What a request body told while it streamed, for whoever waits for the upstream's answer.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    last: AtomicU64,
    over: AtomicBool,
    broken: AtomicBool,
}

impl Progress {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), last: AtomicU64::new(0), over: AtomicBool::new(false), broken: AtomicBool::new(false) })
    }

    fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// How long nothing has moved from the buyer to the upstream.
    pub(crate) fn idle(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }

    /// Whether the body passed the offer's bound.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Whether the buyer's side of the body broke.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

/// Why a request body did not reach the upstream in full.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestBodyError {
    #[error("the body passed the offer's bound")]
    TooLarge,
    #[error("the buyer's body broke: {0}")]
    Broken(hyper::Error),
}

/// A buyer's request body on its way to an upstream.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// Read and digested before; with its share of the memory for such bodies.
    Ready { bytes: Bytes, _share: Option<OwnedSemaphorePermit> },
    /// As it comes.
    Stream {
        inner: Incoming,
        /// Bytes still allowed.
        left: u64,
        progress: Arc<Progress>,
    },
}

impl RequestBody {
    /// As it comes, and no more than `left` bytes of it.
    pub(crate) fn stream(inner: Incoming, left: u64) -> Self {
        Self::Stream { inner, left, progress: Progress::new() }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match self.get_mut() {
            Self::Ready { bytes, .. } if bytes.is_empty() => Poll::Ready(None),
            Self::Ready { bytes, .. } => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream { inner, left, progress } => {
                let frame = ready!(Pin::new(inner).poll_frame(cx));
                progress.touch();
                let Some(frame) = frame else { return Poll::Ready(None) };
                let frame = match frame {
                    Ok(frame) => frame,
                    Err(error) => {
                        progress.broken.store(true, Ordering::Relaxed);
                        return Poll::Ready(Some(Err(RequestBodyError::Broken(error))));
                    }
                };
                let size = frame.data_ref().map_or(0, |data| data.len() as u64);
                match left.checked_sub(size) {
                    Some(rest) => *left = rest,
                    None => {
                        progress.over.store(true, Ordering::Relaxed);
                        return Poll::Ready(Some(Err(RequestBodyError::TooLarge)));
                    }
                }
                Poll::Ready(Some(Ok(clean_trailers(frame, headers::is_private_request_header))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ready { bytes, .. } => bytes.is_empty(),
            Self::Stream { inner, .. } => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ready { bytes, .. } => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream { inner, .. } => inner.size_hint(),
        }
    }
}
