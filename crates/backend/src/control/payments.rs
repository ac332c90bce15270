//! Payments over the control socket: the journal stays with the node that has it.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use obol_settle::{Cashier, ListError, PaymentQuery, RefundError};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use url::form_urlencoded;

use super::{
    RefundRequest,
    server::{Answer, Refused, body, json, no_such_call, respond},
};

/// Answers a gateway's operators, whom nothing but payments is told.
pub(crate) async fn attend(cashier: Cashier, request: Request<Incoming>) -> Response<Full<Bytes>> {
    respond(route(&cashier, request).await)
}

/// Answers what is asked of payments.
pub(super) async fn route(cashier: &Cashier, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["v1", "payments", rest @ ..]) => answer(cashier, rest, request.uri().query()).await,
        (&Method::POST, ["v1", "payments", "refund"]) => refund(cashier, body(request).await?).await,
        _ => Err(no_such_call(&request)),
    }
}

/// Answers `GET /v1/payments…`: a page of the newest, `export` for a page of all with archives, or
/// a key for one.
async fn answer(cashier: &Cashier, rest: &[&str], query: Option<&str>) -> Answer {
    match rest {
        [] => json(&cashier.payments(parse(query)?).await?),
        ["export"] => json(&cashier.export(parse(query)?).await?),
        key => {
            let found = cashier.payment(&key.join("/")).await?;
            json(&found.ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, "payment_unknown", "there is no such payment"))?)
        }
    }
}

/// Answers `POST /v1/payments/refund`. Nothing is paid: the seller says what was done.
async fn refund(cashier: &Cashier, request: RefundRequest) -> Answer {
    let RefundRequest { key, refund } = request;
    json(&cashier.note_refund(&key, refund).await?)
}

impl From<RefundError> for Refused {
    fn from(error: RefundError) -> Self {
        let status = match &error {
            RefundError::Unknown => StatusCode::NOT_FOUND,
            RefundError::NotOwed(_) => StatusCode::CONFLICT,
            RefundError::Journal(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

impl From<ListError> for Refused {
    fn from(error: ListError) -> Self {
        let status = if matches!(error, ListError::Cursor) { StatusCode::BAD_REQUEST } else { StatusCode::SERVICE_UNAVAILABLE };
        Self::new(status, error.code(), error.to_string())
    }
}

fn parse(query: Option<&str>) -> Result<PaymentQuery, Refused> {
    let mut wanted = PaymentQuery { limit: 50, ..PaymentQuery::default() };
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let bad = || Refused::new(StatusCode::BAD_REQUEST, "bad_query", format!("`{name}` cannot be `{}`", short(&value)));
        let time = || OffsetDateTime::parse(&value, &Rfc3339).map_err(|_| bad());
        match name.as_ref() {
            "state" => wanted.states.push(serde_json::from_value(value.as_ref().into()).map_err(|_| bad())?),
            "offer" => wanted.offer = Some(value.parse().map_err(|_| bad())?),
            "payer" => wanted.payer = Some(value.parse().map_err(|_| bad())?),
            "since" => wanted.since = Some(time()?),
            "until" => wanted.until = Some(time()?),
            "find" => wanted.find = Some(value.into_owned()),
            "limit" => wanted.limit = value.parse().map_err(|_| bad())?,
            "cursor" => wanted.cursor = Some(value.into_owned()),
            _ => return Err(bad()),
        }
    }
    Ok(wanted)
}

fn short(value: &str) -> String {
    value.chars().take(80).collect()
}

/// The query string that [`parse`] reads.
pub(super) fn render(query: &PaymentQuery) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    for state in &query.states {
        text.append_pair("state", state.code());
    }
    let time = |time: OffsetDateTime| time.format(&Rfc3339).ok();
    let pairs = [
        ("offer", query.offer.as_ref().map(ToString::to_string)),
        ("payer", query.payer.map(|payer| payer.to_string())),
        ("since", query.since.and_then(time)),
        ("until", query.until.and_then(time)),
        ("find", query.find.clone()),
        ("cursor", query.cursor.clone()),
        ("limit", (query.limit > 0).then(|| query.limit.to_string())),
    ];
    for (name, value) in pairs {
        if let Some(value) = value {
            text.append_pair(name, &value);
        }
    }
    text.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use obol_settle::PaymentState;

    #[test]
    fn a_query_survives_its_text() {
        let query = PaymentQuery {
            states: vec![PaymentState::Owed, PaymentState::Unknown],
            offer: "weather".parse().ok(),
            payer: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".parse().ok(),
            since: Some(OffsetDateTime::UNIX_EPOCH),
            until: OffsetDateTime::parse("2026-11-23T15:31:42.123Z", &Rfc3339).ok(),
            find: Some("0xab&=%/ +".into()),
            limit: 7,
            cursor: Some("1.ff".into()),
        };
        assert_eq!(parse(Some(&render(&query))).ok(), Some(query));
    }

    #[test]
    fn hostile_queries_are_refused() {
        for query in ["state=vanished", "offer=A", "payer=0x", "since=now", "limit=-1", "lots=1", "limit=99999999999999999999999"] {
            let Err(Refused(status, problem)) = parse(Some(query)) else { panic!("{query}") };
            assert_eq!((status, problem.code.as_str()), (StatusCode::BAD_REQUEST, "bad_query"), "{query}");
        }
    }
}
