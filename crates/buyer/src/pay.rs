//! The paid request: ask, sign once, send until the outcome is known.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CONTENT_LENGTH, HOST, RETRY_AFTER, TE},
};
use obol_offer::{B256, Network, Price, Scheme};
use obol_x402::{
    Authorization, Received,
    wire::{PAYMENT_REQUIRED, PAYMENT_SIGNATURE, SettleResponse, X_PAYMENT},
};
use reqwest::{Client, Response};
use url::Url;

use crate::{
    Answer, Approval, Paid, PayError, Wallet,
    allowance::allowed,
    answer::{read_some, receipt},
    choice::{Choice, choices},
    client::client,
    error::explain,
};

/// Longest body of a challenge that is read.
pub(crate) const MAX_CHALLENGE_BODY: usize = 256 * 1024;
/// How long a node is waited for.
pub(crate) const TIMEOUT_OF_NODE: Duration = Duration::from_secs(5);
/// How often one signed payment is sent.
const MAX_SENDS: u32 = 5;
/// How long, in all, before the outcome is given up as unknown.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Clocks differ: a signature counts from this long ago.
const CLOCK_SKEW: u64 = 600;
/// Longest validity that is signed, whatever the seller asks for.
const MAX_VALIDITY: u64 = 24 * 3600;

/// A request and what it may cost.
#[derive(Clone, Debug)]
pub struct PayRequest {
    /// What to ask for; `http` or `https`.
    pub url: Url,
    /// HTTP method.
    pub method: Method,
    /// Further headers. Payment headers among them are left out.
    pub headers: HeaderMap,
    /// Request body.
    pub body: Option<Bytes>,
    /// Most that may be paid, in whole units of the asset.
    pub max: Price,
    /// The only network to pay on; any when absent.
    pub network: Option<&'static Network>,
    /// The only scheme to pay by; any when absent.
    pub scheme: Option<Scheme>,
    /// A node of that network, to be asked whether Permit2 may spend what a payment needs.
    pub node: Option<Url>,
    /// How long to wait for the head of each answer.
    pub timeout: Duration,
}

impl PayRequest {
    /// A plain `GET` on any network, with a minute for each answer.
    pub fn get(url: Url, max: Price) -> Self {
        Self {
            url,
            method: Method::GET,
            headers: HeaderMap::new(),
            body: None,
            max,
            network: None,
            scheme: None,
            node: None,
            timeout: Duration::from_secs(60),
        }
    }
}

/// Does a request and pays for it if asked to, at most `request.max`, and signs at most once.
///
/// The first request carries no payment. A `402` to it is paid with the first payment, in the
/// seller's order, that we can make: one by Permit2 is passed over when the node says that there is no
/// allowance for it. Then the *same* signed payment is sent again, up to 5 times in
/// 60 seconds, when the connection breaks or the server says (by `Retry-After`) that the outcome is
/// not known yet. Redirects are not followed.
///
/// # Errors
/// [`PayError`]; only [`PayError::Refused`] and [`PayError::Unknown`] come after a payment was sent.
pub async fn pay(wallet: &Wallet, request: PayRequest) -> Result<Answer, PayError> {
    let client = client(&request.url)?;
    let PayRequest { url, method, headers, body, timeout, .. } = &request;
    let attempt = Attempt { url, method, headers, body: body.as_ref(), timeout: *timeout };
    let mut response = attempt.send(&client, None).await.map_err(|reason| unreachable(url, reason))?;
    if response.status() != StatusCode::PAYMENT_REQUIRED {
        return Ok(Answer::new(response, None));
    }
    let text = read_some(&mut response, MAX_CHALLENGE_BODY, *timeout).await;
    let header = response.headers().get(PAYMENT_REQUIRED).map(HeaderValue::as_bytes);
    let received = Received::parse(header, &text).map_err(|e| PayError::Challenge(e.to_string()))?;
    let Choice { offered, terms, kind } = first_allowed(wallet, choices(&received, &request)?, request.node.as_ref()).await?;

    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let valid_before = now + u64::from(terms.max_timeout_seconds).clamp(1, MAX_VALIDITY);
    let nonce = B256::from(rand::random::<[u8; 32]>());
    let authorization = wallet.sign(&terms, kind, nonce, now.saturating_sub(CLOCK_SKEW)..valid_before);
    let (name, value) = offered.payment(&authorization);
    let value = HeaderValue::try_from(value).map_err(|e| PayError::Challenge(e.to_string()))?;
    let approval = kind.is_permit2().then(|| Approval::of(wallet.address(), &terms));
    let (symbol, decimals) = (terms.asset.symbol, terms.asset.decimals);
    let paid = Paid { amount: terms.amount, authorised: terms.amount, symbol, decimals, network: terms.network };
    Sending { attempt, client, payment: (HeaderName::from_static(name), value), authorization, approval }.until_known(paid).await
}

/// The first payment for which no allowance is known to be missing.
async fn first_allowed<'a>(wallet: &Wallet, choices: Vec<Choice<'a>>, node: Option<&Url>) -> Result<Choice<'a>, PayError> {
    let mut missing = None;
    for choice in choices {
        let allowed = match node.filter(|_| choice.kind.is_permit2()) {
            Some(node) => allowed(node, wallet.address(), &choice.terms).await?,
            None => None,
        };
        if allowed.is_none_or(|allowed| allowed >= choice.terms.amount) {
            return Ok(choice);
        }
        missing.get_or_insert_with(|| Box::new(Approval::of(wallet.address(), &choice.terms)));
    }
    match missing {
        Some(approval) => Err(PayError::Allowance { approval, reason: None }),
        None => Err(PayError::NothingPayable("it names none that is complete".to_owned())),
    }
}

/// One HTTP exchange, to be repeated as it is.
pub(crate) struct Attempt<'a> {
    pub url: &'a Url,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    pub body: Option<&'a Bytes>,
    pub timeout: Duration,
}

impl Attempt<'_> {
    /// Sends it and waits for the head of the answer; the error is a sentence.
    pub async fn send(&self, client: &Client, payment: Option<&(HeaderName, HeaderValue)>) -> Result<Response, String> {
        let mut headers = self.headers.clone();
        for ours in [HeaderName::from_static(PAYMENT_SIGNATURE), HeaderName::from_static(X_PAYMENT), HOST, CONTENT_LENGTH] {
            headers.remove(ours);
        }
        if let Some((name, value)) = payment {
            headers.insert(name, value.clone());
            // What is charged by use is known at the end of the answer, and so is its receipt.
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        let mut request = client.request(self.method.clone(), self.url.clone()).headers(headers);
        if let Some(body) = self.body {
            request = request.body(body.clone());
        }
        match tokio::time::timeout(self.timeout, request.send()).await {
            Ok(sent) => sent.map_err(explain),
            Err(_) => Err(format!("no answer within {} s", self.timeout.as_secs())),
        }
    }
}

/// A signed payment on its way.
struct Sending<'a> {
    attempt: Attempt<'a>,
    client: Client,
    payment: (HeaderName, HeaderValue),
    authorization: Authorization,
    /// What a payment by Permit2 needs.
    approval: Option<Approval>,
}

impl Sending<'_> {
    async fn until_known(self, paid: Paid) -> Result<Answer, PayError> {
        let start = Instant::now();
        let mut transaction = None;
        let mut sent = 0;
        loop {
            sent += 1;
            let (reason, pause) = match self.attempt.send(&self.client, Some(&self.payment)).await {
                Ok(response) if response.status() == StatusCode::PAYMENT_REQUIRED => {
                    // After a send whose outcome is open, "refused" may mean "used already".
                    return Err(match (refusal(response, self.attempt.timeout).await, sent) {
                        (reason, 1) => self.refused(reason),
                        (reason, _) => self.unknown(reason, transaction),
                    });
                }
                Ok(response) => {
                    let receipt = receipt(response.headers());
                    let Some(pause) = undecided(&response, receipt.as_ref(), sent > 1) else {
                        return Ok(Answer::new(response, Some(paid)));
                    };
                    transaction = receipt.map(|r| r.transaction).filter(|hash| !hash.is_empty()).or(transaction);
                    (format!("the server answers {}", response.status()), pause)
                }
                Err(reason) => (reason, Duration::from_secs(u64::from(sent))),
            };
            if sent >= MAX_SENDS || start.elapsed() + pause > MAX_WAIT {
                return Err(self.unknown(reason, transaction));
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn refused(&self, reason: String) -> PayError {
        // `permit2_allowance_required`, or the token's own words.
        if let Some(approval) = self.approval.clone().filter(|_| reason.to_ascii_lowercase().contains("allowance")) {
            return PayError::Allowance { approval: Box::new(approval), reason: Some(reason) };
        }
        PayError::Refused { reason, nonce: self.authorization.nonce, valid_before: self.authorization.valid_before }
    }

    fn unknown(&self, reason: String, transaction: Option<String>) -> PayError {
        let Authorization { from: payer, nonce, valid_before, .. } = self.authorization;
        PayError::Unknown { reason, payer, nonce, transaction, valid_before }
    }
}

/// How long to wait if the answer says that the outcome is not known yet: 503 with `Retry-After`,
/// or, to a repeated payment, 409 without a receipt (the first copy is still being worked on).
fn undecided(response: &Response, receipt: Option<&SettleResponse>, repeated: bool) -> Option<Duration> {
    // A date instead of seconds counts as a short while: who sends it does not know better.
    let seconds = |value: &HeaderValue| value.to_str().ok().and_then(|text| text.trim().parse().ok()).unwrap_or(5);
    let retry_after = response.headers().get(RETRY_AFTER).map(seconds).map(Duration::from_secs);
    match response.status() {
        StatusCode::SERVICE_UNAVAILABLE => retry_after,
        StatusCode::CONFLICT if repeated && !receipt.is_some_and(|r| r.success) => Some(retry_after.unwrap_or(Duration::from_secs(2))),
        _ => None,
    }
}

/// The server's reason for a second `402`.
async fn refusal(mut response: Response, timeout: Duration) -> String {
    let settled = receipt(response.headers()).and_then(|receipt| receipt.error_reason);
    let text = read_some(&mut response, MAX_CHALLENGE_BODY, timeout).await;
    let header = response.headers().get(PAYMENT_REQUIRED).map(HeaderValue::as_bytes);
    let challenge = Received::parse(header, &text).ok().and_then(|received| received.error);
    let reason = settled.or(challenge).unwrap_or_else(|| "it gives no reason".to_owned());
    reason.chars().filter(|c| !c.is_control()).take(300).collect()
}

pub(crate) fn unreachable(url: &Url, reason: String) -> PayError {
    let mut shown = url.clone();
    let _ = shown.set_password(None);
    PayError::Unreachable { url: shown.to_string(), reason }
}

#[cfg(test)]
#[path = "pay_tests.rs"]
mod tests;
