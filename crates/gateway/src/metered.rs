//! Answers that leave at once and are charged at their end, by what was used.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use obol_offer::{Amount, Rate, Terms, USAGE_FIELD, Usage, WhenUncounted};
use obol_settle::{Captured, Receipt};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    body::{Body, BodyError, clean_trailers},
    headers,
    limits::InFlight,
    offers::OfferState,
    permit::Spent,
    respond,
    serve::Shared,
    tally::{Counter, Tally},
};

/// How one request is charged.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    /// What it is asked for: `amount` is the ceiling.
    pub terms: Terms,
    pub rate: Rate,
    pub when_uncounted: WhenUncounted,
    /// Length of its body; 0 when there is none.
    pub prompt_bytes: u64,
}

/// What was reported, where anything was; inner `None` when that is no clear report.
pub(crate) fn reported(fields: &HeaderMap) -> Option<Option<Usage>> {
    let mut reports = fields.get_all(USAGE_FIELD).into_iter();
    let first = reports.next()?;
    // Two reports are none: nobody can tell which is meant.
    Some(first.to_str().ok().filter(|_| reports.next().is_none()).and_then(Usage::parse))
}

impl Meter {
    /// The charge for what was reported, if that is what is sold, and never more than the ceiling.
    pub(crate) fn charge(&self, usage: Option<Usage>) -> Option<Amount> {
        self.rate.charge(usage?).map(|charge| charge.min(self.terms.amount))
    }

    /// The charge for a whole answer.
    fn whole(&self, usage: Option<Usage>, tally: &Tally) -> Amount {
        let bytes = || match (&self.rate, self.when_uncounted) {
            (Rate::PerToken { .. }, WhenUncounted::Bytes) => Some(Usage::Tokens { input: self.prompt_bytes, output: tally.bytes() }),
            _ => None,
        };
        self.charge(usage).or_else(|| self.charge(bytes())).unwrap_or(self.terms.amount)
    }

    /// The charge for an answer that was cut and whose usage is not known: of tokens, a quarter of the prompt's bytes,
    /// and each event that left but the first, which announces the answer; where there are no events, a quarter of the
    /// bytes that left. One unit. Nothing, where nothing left.
    fn cut(&self, tally: &Tally, events: bool) -> Amount {
        if tally.bytes() == 0 {
            return Amount::ZERO;
        }
        let usage = match &self.rate {
            Rate::PerToken { .. } => {
                let output = if events { tally.events().saturating_sub(1) } else { tally.bytes() / 4 };
                Usage::Tokens { input: self.prompt_bytes / 4, output }
            }
            Rate::PerUnit { .. } | Rate::PerRequest(_) => Usage::Units(1),
        };
        self.charge(Some(usage)).unwrap_or(self.terms.amount)
    }
}

/// How a buyer takes a receipt that comes after the answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReceiptWay {
    /// As trailers: it sent `TE: trailers`.
    trailers: bool,
    /// As a last server-sent event: it sent `X-Obol-Receipt: event`.
    event: bool,
}

impl ReceiptWay {
    pub(crate) fn of(request: &HeaderMap) -> Self {
        let says = |name, word: &str| {
            let values = request.get_all(name).into_iter().filter_map(|value: &HeaderValue| value.to_str().ok());
            values.flat_map(|list| list.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
        };
        Self { trailers: says(header::TE, "trailers"), event: says(HeaderName::from_static("x-obol-receipt"), "event") }
    }
}

/// How it ended: what was reported. Not said when the answer was cut.
struct End(Option<Usage>);

/// What became of the payment, for the buyer.
type Outcome = Result<Receipt, String>;

/// An answer on its way.
pub(crate) struct MeteredBody {
    inner: Incoming,
    counter: Counter,
    stage: Stage,
    /// The payment is about to end.
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Dropped when the answer is cut.
    end: Option<oneshot::Sender<End>>,
    outcome: Option<oneshot::Receiver<Outcome>>,
    terms: Terms,
    way: ReceiptWay,
    _in_flight: InFlight,
}

enum Stage {
    Streaming,
    /// All has left but the receipt and these.
    Settling(HeaderMap),
    Trailers(HeaderMap),
    Done,
}

impl std::fmt::Debug for MeteredBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MeteredBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl MeteredBody {
    pub(crate) fn is_end_stream(&self) -> bool {
        match self.stage {
            Stage::Streaming => !self.waits() && self.inner.is_end_stream(),
            Stage::Settling(_) | Stage::Trailers(_) => false,
            Stage::Done => true,
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        if self.waits() { SizeHint::default() } else { self.inner.size_hint() }
    }

    /// Whether something comes behind the answer.
    fn waits(&self) -> bool {
        self.way.trailers || self.way.event
    }

    fn finish(&mut self, usage: Option<Usage>) {
        if let Some(end) = self.end.take() {
            // Whoever settles may have stopped waiting.
            let _ = end.send(End(usage));
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match &mut self.stage {
                Stage::Streaming => {
                    if self.end.is_some() && self.stop.as_mut().poll(cx).is_ready() {
                        self.end = None;
                        return Poll::Ready(Some(Err(BodyError::PaymentEnds)));
                    }
                    let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                        Some(Ok(frame)) => frame,
                        Some(Err(error)) => {
                            self.end = None;
                            return Poll::Ready(Some(Err(BodyError::Upstream(error))));
                        }
                        None => {
                            self.finish(None);
                            self.stage = Stage::Settling(HeaderMap::new());
                            continue;
                        }
                    };
                    if let Some(trailers) = frame.trailers_ref() {
                        self.finish(reported(trailers).flatten());
                        let trailers = clean_trailers(frame, headers::is_private_response_header).into_trailers();
                        self.stage = Stage::Settling(trailers.unwrap_or_default());
                        continue;
                    }
                    if let Some(data) = frame.data_ref() {
                        self.counter.count(data);
                    }
                    if self.inner.is_end_stream() {
                        // With a known length nobody polls past the last byte.
                        self.finish(None);
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Stage::Settling(trailers) => {
                    let mut trailers = std::mem::take(trailers);
                    let outcome = match self.outcome.as_mut().filter(|_| self.way.trailers || self.way.event) {
                        None => None,
                        Some(outcome) => match Pin::new(outcome).poll(cx) {
                            Poll::Ready(outcome) => outcome.ok(),
                            Poll::Pending => {
                                self.stage = Stage::Settling(trailers);
                                return Poll::Pending;
                            }
                        },
                    };
                    self.outcome = None;
                    let event = outcome.as_ref().filter(|_| self.way.event).map(|outcome| event(&self.terms, outcome));
                    if let Some(outcome) = outcome.as_ref().filter(|_| self.way.trailers) {
                        respond::receipts(&mut trailers, &self.terms, outcome.as_ref().map_err(String::as_str));
                    }
                    self.stage = Stage::Trailers(trailers);
                    if let Some(event) = event {
                        return Poll::Ready(Some(Ok(Frame::data(event))));
                    }
                }
                Stage::Trailers(trailers) => {
                    let trailers = std::mem::take(trailers);
                    self.stage = Stage::Done;
                    if !trailers.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                }
                Stage::Done => return Poll::Ready(None),
            }
        }
    }
}

/// The receipt as a named event, which clients that do not know it pass over (HTML §9.2).
fn event(terms: &Terms, outcome: &Outcome) -> Bytes {
    let receipt = respond::receipt_v2(terms, outcome.as_ref().map_err(String::as_str));
    format!("event: x402.receipt\ndata: {}\n\n", serde_json::to_string(&receipt).unwrap_or_default()).into()
}

impl Shared {
    /// Lets an answer out at once, and has it charged when it has ended, however it ends: in a task of its own.
    pub(crate) fn meter(
        self: &Arc<Self>,
        state: Arc<OfferState>,
        spent: Spent,
        meter: Meter,
        answer: Response<Incoming>,
        way: ReceiptWay,
        in_flight: InFlight,
    ) -> Response<Body> {
        let (mut parts, body) = answer.into_parts();
        let head = &mut parts.headers;
        let events = head.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        let way = ReceiptWay { event: way.event && events, ..way };
        announce(head, way);
        let (tally, stop) = (Arc::new(Tally::default()), CancellationToken::new());
        let (end, ended) = oneshot::channel();
        let (reply, outcome) = oneshot::channel();
        let mut answer = MeteredBody {
            inner: body,
            counter: Counter::new(tally.clone(), events),
            stage: Stage::Streaming,
            stop: Box::pin(stop.clone().cancelled_owned()),
            end: Some(end),
            outcome: Some(outcome),
            terms: meter.terms.clone(),
            way,
            _in_flight: in_flight,
        };
        if answer.inner.is_end_stream() {
            // An answer without a body may never be polled.
            answer.finish(None);
        }
        let (shared, patience) = (self.clone(), spent.time_to_deliver());
        self.tasks.spawn(async move {
            let usage = wait(ended, patience, &stop).await;
            let charge = match usage {
                Some(End(usage)) => meter.whole(usage, &tally),
                None => meter.cut(&tally, events),
            };
            let outcome = shared.settle(&state, &meter.terms, spent, charge).await;
            // A buyer who is gone, or asked for no receipt, hears nothing of it.
            let _ = reply.send(outcome);
        });
        Response::from_parts(parts, Body::Metered(Box::new(answer)))
    }

    async fn settle(&self, state: &OfferState, terms: &Terms, spent: Spent, charge: Amount) -> Outcome {
        let (payer, paid_already) = (spent.payer(), spent.is_paid_already());
        let captured = spent.capture_delivered(charge).await;
        let count = |code| state.count_payment(&self.metrics, Some(terms), code);
        match captured {
            // What is charged is what was delivered.
            Some(Captured::Settled(receipt, _)) if paid_already => {
                count("rerun");
                Ok(receipt)
            }
            Some(Captured::Settled(receipt, _)) => {
                count("settled");
                state.count_captured(&self.metrics, terms, receipt.amount);
                Ok(receipt)
            }
            Some(Captured::Nothing) => {
                count("nothing_used");
                Ok(Receipt { transaction: String::new(), payer: payer.unwrap_or_default(), amount: Amount::ZERO })
            }
            Some(Captured::Refused { reason }) => {
                count("settlement_refused");
                tracing::warn!(%charge, reason, "an answer that has left was not paid for");
                Err(reason)
            }
            Some(Captured::Unsettled { .. }) => {
                count("settlement_unknown");
                Err("settlement_unknown".to_owned())
            }
            Some(Captured::NotAsked) | None => {
                count("settlement_not_asked");
                Err("facilitator_unavailable".to_owned())
            }
        }
    }
}

/// The end of an answer; `None` when it was cut, or is stopped because its payment ends.
async fn wait(ended: oneshot::Receiver<End>, patience: Duration, stop: &CancellationToken) -> Option<End> {
    match tokio::time::timeout(patience, ended).await {
        Ok(end) => end.ok(),
        Err(_) => {
            stop.cancel();
            None
        }
    }
}

/// Names the trailers that the buyer gets, and not those that it does not (RFC 9110 §6.6.2).
fn announce(head: &mut HeaderMap, way: ReceiptWay) {
    let lists = head.get_all(header::TRAILER).into_iter().filter_map(|value| value.to_str().ok());
    let names = lists.flat_map(|list| list.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok());
    let mut names: Vec<String> =
        names.filter(|name| !headers::is_private_response_header(name)).map(|name| name.as_str().to_owned()).collect();
    if way.trailers {
        names.extend([obol_x402::wire::PAYMENT_RESPONSE, obol_x402::wire::X_PAYMENT_RESPONSE].map(str::to_owned));
    }
    if way.trailers || way.event {
        head.remove(header::CONTENT_LENGTH);
    }
    head.remove(header::TRAILER);
    if let Some(value) = Some(names.join(", ")).filter(|list| !list.is_empty()).and_then(|list| HeaderValue::try_from(list).ok()) {
        head.insert(header::TRAILER, value);
    }
}

#[cfg(test)]
#[path = "metered_tests.rs"]
mod tests;
