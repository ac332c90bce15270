//! Prices that depend on what is asked: the body is read before anything is said of money, within bounds.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use obol_offer::Demand;
use obol_x402::wire;

use crate::{
    body::RequestBody,
    demand::demand,
    problem,
    respond::{self, Answer},
    serve::{Found, NoPayment, Shared, Visit},
};

/// Bound on reading a body that nobody has paid for yet.
const UNPAID_TIMEOUT: Duration = Duration::from_secs(15);
/// Bound on reading one that comes with a payment.
const PAID_TIMEOUT: Duration = Duration::from_secs(60);

type Priced = (Box<Visit>, Request<RequestBody>);

impl Shared {
    /// Reads the body, works out what it may use, and matches the payment against that price.
    ///
    /// # Errors
    /// What is answered instead: the price, or why there is none.
    pub(crate) async fn price(self: &Arc<Self>, mut visit: Box<Visit>, request: Request<Incoming>) -> Result<Priced, (Answer, Box<Visit>)> {
        let request = match self.read(&visit, request).await {
            Ok((demand, request)) => {
                visit.demand = Some(demand);
                request
            }
            Err(answer) => return Err((*answer, visit)),
        };
        match self.matched(&visit, &request) {
            Ok(found) => visit.set_payment(found),
            Err(NoPayment::Answered(answer)) => return Err((*answer, visit)),
            Err(NoPayment::Mismatch(unmatched)) => return Err((self.mismatched(&visit, &unmatched).await, visit)),
        }
        Ok((visit, request))
    }

    fn matched(&self, visit: &Visit, request: &Request<RequestBody>) -> Result<Option<Found>, NoPayment> {
        let table = self.table.load();
        let table = table.as_ref().ok_or_else(|| respond::problem(&problem::not_ready()))?;
        self.payment(table, visit, request.method(), request.headers())
    }

    async fn read(&self, visit: &Visit, request: Request<Incoming>) -> Result<(Demand, Request<RequestBody>), Box<Answer>> {
        let refuse = |problem| Box::new(respond::problem(&problem));
        let offer = &visit.entry.offer;
        // A price per token has a model.
        let Some(model) = &offer.model else { return Err(refuse(problem::not_found())) };
        let max = u64::from(model.max_prompt_bytes).min(offer.limits.max_body_bytes.unwrap_or(u64::MAX));
        let told = request.body().size_hint().exact();
        if told.is_some_and(|length| length > max) {
            return Err(refuse(problem::body_too_large()));
        }
        let paid = is_paid(request.headers());
        if !paid {
            self.count_unpaid(visit.peer)?;
        }
        let kib = u32::try_from(told.unwrap_or(max).div_ceil(1024)).unwrap_or(u32::MAX);
        let share = self.body_memory.clone().try_acquire_many_owned(kib).map_err(|_| refuse(problem::busy()))?;
        let (parts, body) = request.into_parts();
        let limit = usize::try_from(max).unwrap_or(usize::MAX);
        let patience = if paid { PAID_TIMEOUT } else { UNPAID_TIMEOUT };
        let bytes = match tokio::time::timeout(patience, Limited::new(body, limit).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(refuse(problem::body_too_large())),
            Ok(Err(_)) => return Err(refuse(problem::body_broken())),
            Err(_) => return Err(refuse(problem::body_timeout())),
        };
        let demand = demand(model, &visit.path, &bytes);
        Ok((demand, Request::from_parts(parts, RequestBody::Ready { bytes, _share: Some(share) })))
    }
}

fn is_paid(headers: &HeaderMap) -> bool {
    headers.contains_key(wire::PAYMENT_SIGNATURE) || headers.contains_key(wire::X_PAYMENT)
}
