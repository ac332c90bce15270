//! The body of an answer on its way from the model server to the gateway.

use std::{
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::{
    meter::Meter,
    model::Model,
    problem::Problem,
    slots::Slot,
    usage::{Report, USAGE},
};

/// An answer's body.
#[derive(Debug)]
pub enum Body {
    /// From here.
    Ready(Bytes),
    /// From the model server.
    Answer(Box<AnswerBody>),
}

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
#[error("the model server broke off: {0}")]
pub struct BodyError(String);

/// A model server's answer: metered as it passes, with the report as trailer.
#[derive(Debug)]
pub struct AnswerBody {
    inner: Incoming,
    meter: Meter,
    model: Arc<Model>,
    request_id: Option<HeaderValue>,
    timer: Pin<Box<Sleep>>,
    /// Until when the first piece must be there, and how long each further one may take.
    patience: Patience,
    out: BytesMut,
    report: Option<Report>,
    ended: bool,
    /// What must still go out before the error is told.
    error: Option<BodyError>,
    /// The model works on other requests when this is dropped.
    _slot: Slot,
}

/// Bounds on the waiting for an answer's body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) first: Instant,
    pub(crate) next: Duration,
}

impl AnswerBody {
    pub(crate) fn new(
        inner: Incoming,
        meter: Meter,
        model: Arc<Model>,
        request_id: Option<HeaderValue>,
        patience: Patience,
        slot: Slot,
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep_until(patience.first));
        let (out, report, ended, error) = (BytesMut::new(), None, false, None);
        Self { inner, meter, model, request_id, timer, patience, out, report, ended, error, _slot: slot }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if !self.out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(self.out.split().freeze()))));
            }
            if let Some(error) = self.error.take() {
                return Poll::Ready(Some(Err(error)));
            }
            if self.ended {
                return Poll::Ready(self.trailers().map(Ok));
            }
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.meter.push(&data, &mut self.out);
                    self.timer.as_mut().reset(Instant::now() + self.patience.next);
                }
                Poll::Ready(None) => {
                    let report = self.meter.finish(&mut self.out);
                    self.end(report);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.broke("upstream_broken", format!("the model server broke off: {error}"));
                }
                Poll::Pending if self.timer.as_mut().poll(cx).is_ready() => {
                    self.broke("token_timeout", "the model server gave no further token in time".to_owned());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn end(&mut self, report: Report) {
        self.ended = true;
        self.report = Some(report);
        self.model.count(self.request_id.as_ref(), report);
    }

    /// A stream ends with an error that clients know, and with its report; another answer just breaks.
    fn broke(&mut self, code: &'static str, message: String) {
        tracing::warn!(offer = self.model.config.offer, request_id = ?self.request_id, code, "{message}");
        let report = self.meter.cut();
        if self.meter.is_stream() {
            let problem = Problem::new(http::StatusCode::BAD_GATEWAY, code, message);
            self.out.extend_from_slice(format!("data: {}\n\n", problem.body()).as_bytes());
        } else {
            self.error = Some(BodyError(message));
        }
        self.end(report);
    }

    fn trailers(&mut self) -> Option<Frame<Bytes>> {
        let value = HeaderValue::try_from(self.report.take()?.to_string()).ok()?;
        Some(Frame::trailers(HeaderMap::from_iter([(USAGE, value)])))
    }
}

impl Drop for AnswerBody {
    /// The buyer has gone. The gateway charges by what left it, which it alone knows; here it is counted only.
    fn drop(&mut self) {
        if !self.ended {
            let report = self.meter.cut();
            self.end(report);
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Ready(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Ready(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Answer(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Ready(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Ready(bytes) => http_body::SizeHint::with_exact(bytes.len() as u64),
            Self::Answer(_) => http_body::SizeHint::default(),
        }
    }
}
