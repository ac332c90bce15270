//! A facilitator somewhere else: `POST /verify`, `POST /settle`, `GET /supported`.
//! Source: x402 v2 section 7, and how real facilitators differ from it.

pub(crate) mod answer;
#[cfg(test)]
mod answer_tests;
mod client;

use futures_util::future::BoxFuture;
use obol_x402::MatchedPayment;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use url::Url;

pub use self::client::client;
pub(crate) use self::client::roots;
use self::client::{bounded_body, describe};
use crate::{Facilitator, Secret, SettleOutcome, VerifyOutcome};

/// A facilitator reached over HTTP.
pub(crate) struct HttpFacilitator {
    id: String,
    verify: Url,
    settle: Url,
    supported: Url,
    authorization: Option<HeaderValue>,
    client: reqwest::Client,
}

/// What a facilitator is called in the journal and in logs: its base URL without trailing slash,
/// and without a password.
pub(crate) fn id_of(base: &Url) -> String {
    let mut base = base.clone();
    let _ = base.set_password(None);
    let _ = base.set_username("");
    base.as_str().trim_end_matches('/').to_owned()
}

fn below(base: &Url, name: &str) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push(name);
    }
    url
}

impl HttpFacilitator {
    pub fn new(base: &Url, secret: Option<&Secret>, client: reqwest::Client) -> Self {
        let authorization = secret.and_then(|secret| HeaderValue::from_str(secret.expose()).ok()).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        let (verify, settle, supported) = (below(base, "verify"), below(base, "settle"), below(base, "supported"));
        Self { id: id_of(base), verify, settle, supported, authorization, client }
    }

    async fn post(&self, url: &Url, payment: &MatchedPayment) -> Result<(u16, Vec<u8>), Failure> {
        let request = self.client.post(url.clone()).header(CONTENT_TYPE, "application/json").body(payment.facilitator_body.clone());
        self.send(request).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>), Failure> {
        let mut request = request.header(ACCEPT, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let response = request
            .send()
            .await
            .map_err(|error| Failure { never_sent: error.is_connect() || error.is_builder(), cause: describe(&error) })?;
        let status = response.status().as_u16();
        let body = bounded_body(response).await.map_err(|cause| Failure { never_sent: false, cause })?;
        Ok((status, body))
    }

    /// The raw answer to `/supported`.
    pub async fn supported(&self) -> Result<Vec<u8>, String> {
        match self.send(self.client.get(self.supported.clone())).await {
            Ok((200, body)) => Ok(body),
            Ok((status, _)) => Err(format!("HTTP {status}")),
            Err(failure) => Err(failure.cause),
        }
    }
}

struct Failure {
    /// The request certainly did not reach anybody.
    never_sent: bool,
    cause: String,
}

impl Facilitator for HttpFacilitator {
    fn id(&self) -> &str {
        &self.id
    }

    fn verify<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, VerifyOutcome> {
        Box::pin(async move {
            match self.post(&self.verify, payment).await {
                Ok((status, body)) => answer::verify(status, &body, payment),
                Err(Failure { cause, .. }) => VerifyOutcome::Unavailable { cause },
            }
        })
    }

    fn settle<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, SettleOutcome> {
        Box::pin(async move {
            match self.post(&self.settle, payment).await {
                Ok((status, body)) => answer::settle(status, &body, payment),
                Err(Failure { never_sent: true, cause }) => SettleOutcome::NotAsked { cause },
                Err(Failure { never_sent: false, cause }) => SettleOutcome::Unknown { cause, transaction: None },
            }
        })
    }
}
