use std::sync::{Arc, Mutex};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use obol_offer::{Amount, Scheme, Terms};
use obol_x402::{LocalCheck, PaymentHeaders, Quote, QuoteInfo, Receipt, decode, match_payment};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;

/// What the scripted seller does with one request.
enum Step {
    /// Sends this.
    Answer(String),
    /// Closes the connection.
    HangUp,
}

/// A seller that plays a script, one step per connection, and remembers each request.
struct Seller {
    url: Url,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Seller {
    async fn start(script: Vec<Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/weather", listener.local_addr().unwrap())).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::clone(&seen);
        tokio::spawn(async move {
            let mut open = Vec::new();
            for step in script {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                requests.lock().unwrap().push(request);
                if let Step::Answer(text) = step {
                    // The buyer may have read enough.
                    let _ = stream.write_all(text.as_bytes()).await;
                    open.push(stream);
                }
            }
            std::future::pending::<()>().await;
        });
        Self { url, seen }
    }

    fn request(&self, max: &str) -> PayRequest {
        PayRequest { timeout: Duration::from_secs(5), ..PayRequest::get(self.url.clone(), max.parse().unwrap()) }
    }

    /// The payment header, if any, of each request seen.
    fn payments(&self) -> Vec<Option<String>> {
        let header = |request: &String| {
            let line = request.lines().find(|l| l.starts_with("payment-signature:") || l.starts_with("x-payment:"))?;
            Some(line.split_once(": ").unwrap().1.to_owned())
        };
        self.seen.lock().unwrap().iter().map(header).collect()
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut part = [0; 4096];
    loop {
        let read = stream.read(&mut part).await.unwrap();
        text.push_str(std::str::from_utf8(&part[..read]).unwrap());
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
            if body.len() >= length {
                return text;
            }
        }
        assert_ne!(read, 0, "{text}");
    }
}

fn answer(status: &str, headers: &[(&str, &str)], body: &str) -> Step {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    Step::Answer(format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()))
}

fn terms(network: &str) -> Terms {
    let network = Network::find(network).unwrap();
    let (asset, pay_to) = (network.default_asset(), obol_offer::Address::repeat_byte(7));
    Terms { scheme: Scheme::Exact, network, asset, pay_to, amount: Amount::from(10_000), max_timeout_seconds: 300 }
}

fn offer(networks: &[&str]) -> Quote {
    Quote::new(networks.iter().map(|n| terms(n)).collect(), QuoteInfo::default())
}

fn challenge(error: &str) -> Step {
    let challenge = offer(&["base-sepolia"]).challenge("http://seller.example/weather", error);
    answer("402 Payment Required", &[("PAYMENT-REQUIRED", &challenge.header)], &challenge.body)
}

fn served() -> Step {
    let settled = SettleResponse { success: true, transaction: "0xfeed".into(), ..SettleResponse::default() };
    let receipt = Receipt::new(&settled, Network::find("base-sepolia").unwrap());
    answer("200 OK", &[("PAYMENT-RESPONSE", &receipt.v2)], "sunny")
}

fn settling(seconds: &str) -> Step {
    let settled = SettleResponse { transaction: "0xabba".into(), ..SettleResponse::default() };
    let receipt = Receipt::new(&settled, Network::find("base-sepolia").unwrap());
    answer("503 Service Unavailable", &[("Retry-After", seconds), ("PAYMENT-RESPONSE", &receipt.v2)], "")
}

#[tokio::test]
async fn pays_once_and_keeps_the_receipt() {
    let seller = Seller::start(vec![challenge(""), served()]).await;
    let wallet = Wallet::random();
    let answer = pay(&wallet, seller.request("0.01")).await.unwrap();
    assert_eq!((answer.status, answer.sent_payment), (StatusCode::OK, true));
    assert_eq!(answer.receipt.as_ref().unwrap().transaction, "0xfeed");
    assert_eq!(answer.paid.as_ref().unwrap().to_string(), "0.01 USDC on base-sepolia");
    assert_eq!(answer.body.bytes(100).await.unwrap(), "sunny");

    let payments = seller.payments();
    assert_eq!((payments.len(), &payments[0]), (2, &None));
    let header = payments[1].clone().unwrap();
    let payment = decode(&PaymentHeaders { v2: vec![header.as_bytes()], v1: vec![] }).unwrap().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let matched = match_payment(&payment, &offer(&["base-sepolia"]), "", now, |url| url == "http://seller.example/weather").unwrap();
    assert_eq!(matched.local_check, LocalCheck::SignedByPayer);
    assert_eq!(matched.authorization.from, wallet.address());
}

#[tokio::test]
async fn an_old_seller_is_paid_in_version_1() {
    let old = offer(&["base-sepolia"]).challenge("http://seller.example/weather", "").body;
    let seller = Seller::start(vec![answer("402 Payment Required", &[], &old), served()]).await;
    assert_eq!(pay(&Wallet::random(), seller.request("0.01")).await.unwrap().status, StatusCode::OK);
    assert!(seller.seen.lock().unwrap()[1].contains("\r\nx-payment: "));
}

#[tokio::test]
async fn method_headers_and_body_go_with_both_requests() {
    let seller = Seller::start(vec![challenge(""), served()]).await;
    let mut request = seller.request("0.01");
    request.method = Method::POST;
    request.body = Some("where=here".into());
    request.headers.insert("x-city", HeaderValue::from_static("Paris"));
    request.headers.insert(X_PAYMENT, HeaderValue::from_static("somebody's"));
    pay(&Wallet::random(), request).await.unwrap();
    for seen in seller.seen.lock().unwrap().iter() {
        assert!(seen.starts_with("POST /weather ") && seen.ends_with("\r\n\r\nwhere=here") && seen.contains("x-city: Paris"), "{seen}");
        assert!(!seen.contains("somebody's"));
    }
}

#[tokio::test]
async fn what_costs_nothing_is_not_paid() {
    for status in ["200 OK", "404 Not Found", "302 Found"] {
        let seller = Seller::start(vec![answer(status, &[("location", "http://127.0.0.1:1/")], "free")]).await;
        let answer = pay(&Wallet::random(), seller.request("0.01")).await.unwrap();
        assert_eq!((answer.sent_payment, answer.paid.clone()), (false, None));
        assert!(status.starts_with(answer.status.as_str()));
    }
}

#[tokio::test]
async fn a_payment_does_not_follow_a_redirect() {
    let elsewhere = Seller::start(vec![served()]).await;
    let redirect = answer("307 Temporary Redirect", &[("location", elsewhere.url.as_str())], "");
    let seller = Seller::start(vec![challenge(""), redirect]).await;
    let answer = pay(&Wallet::random(), seller.request("0.01")).await.unwrap();
    assert_eq!((answer.status, answer.sent_payment, answer.paid.is_none()), (StatusCode::TEMPORARY_REDIRECT, true, true));
    assert!(elsewhere.payments().is_empty());
}

#[tokio::test]
async fn nothing_above_the_limit_or_on_another_network_is_signed() {
    let cases = [("0.009999", None, "too_expensive"), ("0.0000001", None, "max_too_fine"), ("1", Network::find("base"), "nothing_payable")];
    for (max, network, code) in cases {
        let seller = Seller::start(vec![challenge(""), served()]).await;
        let error = pay(&Wallet::random(), PayRequest { network, ..seller.request(max) }).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(seller.payments(), [None]);
    }
}

#[tokio::test]
async fn the_asked_network_is_chosen_among_several() {
    let challenge = offer(&["base-sepolia", "polygon", "base"]).challenge("http://seller.example/weather", "");
    let first = answer("402 Payment Required", &[("PAYMENT-REQUIRED", &challenge.header)], "{}");
    let seller = Seller::start(vec![first, served()]).await;
    let paid = pay(&Wallet::random(), PayRequest { network: Network::find("base"), ..seller.request("1") }).await.unwrap().paid;
    assert_eq!(paid.unwrap().network.name, "base");
}

#[tokio::test]
async fn a_402_that_is_not_x402_is_an_error() {
    for (headers, body) in [(vec![], "<html>pay me"), (vec![("PAYMENT-REQUIRED", "!")], "{}")] {
        let seller = Seller::start(vec![answer("402 Payment Required", &headers, body)]).await;
        assert_eq!(pay(&Wallet::random(), seller.request("1")).await.unwrap_err().code(), "challenge_malformed");
    }
}

#[tokio::test]
async fn a_second_402_is_not_signed_again() {
    let seller = Seller::start(vec![challenge(""), challenge("insufficient_funds"), served()]).await;
    let error = pay(&Wallet::random(), seller.request("0.01")).await.unwrap_err();
    assert_eq!(error.code(), "payment_refused");
    assert!(error.to_string().contains("insufficient_funds"), "{error}");
    assert_eq!(seller.payments().len(), 2);
}

#[tokio::test]
async fn an_unknown_outcome_sends_the_same_payment_again() {
    let seller =
        Seller::start(vec![challenge(""), settling("0"), Step::HangUp, answer("409 Conflict", &[("retry-after", "0")], ""), served()])
            .await;
    let answer = pay(&Wallet::random(), seller.request("0.01")).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    let payments = seller.payments();
    assert_eq!(payments.len(), 5);
    assert!(payments[1].is_some() && payments[1..].iter().all(|p| *p == payments[1]));
}

#[tokio::test]
async fn an_outcome_that_stays_unknown_names_nonce_and_hash() {
    let lasting = |_| settling("0");
    let seller = Seller::start([challenge("")].into_iter().chain((0..9).map(lasting)).collect()).await;
    let error = pay(&Wallet::random(), seller.request("0.01")).await.unwrap_err();
    let PayError::Unknown { nonce, transaction, .. } = &error else { panic!("{error}") };
    assert_eq!(transaction.as_deref(), Some("0xabba"));
    assert!(error.to_string().contains(&nonce.to_string()) && error.to_string().contains("may have gone through"));
    assert_eq!(seller.payments().len(), 1 + MAX_SENDS as usize);

    let seller = Seller::start(vec![challenge(""), settling("3600"), served()]).await;
    assert_eq!(pay(&Wallet::random(), seller.request("0.01")).await.unwrap_err().code(), "payment_unknown");
}

/// The first copy may have been settled, so a refusal of the second proves nothing.
#[tokio::test]
async fn a_402_after_an_open_outcome_is_unknown() {
    let seller = Seller::start(vec![challenge(""), settling("0"), challenge("nonce used")]).await;
    let error = pay(&Wallet::random(), seller.request("0.01")).await.unwrap_err();
    assert_eq!(error.code(), "payment_unknown");
    assert!(error.to_string().contains("nonce used"), "{error}");
}

#[tokio::test]
async fn an_upstream_failure_is_an_answer_without_a_payment() {
    let seller = Seller::start(vec![challenge(""), answer("500 Internal Server Error", &[], "sorry")]).await;
    let answer = pay(&Wallet::random(), seller.request("0.01")).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.sent_payment, answer.paid), (500, true, None));
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://user:secret@{}/", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let error = pay(&Wallet::random(), PayRequest::get(url, "1".parse().unwrap())).await.unwrap_err();
    assert_eq!(error.code(), "unreachable");
    assert!(!error.to_string().contains("secret"), "{error}");
}

/// The TLS side is set up without anything the caller must install first.
#[tokio::test]
async fn https_needs_no_preparation() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("https://{}/", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move { drop(listener.accept().await) });
    let error = pay(&Wallet::random(), PayRequest::get(url, "1".parse().unwrap())).await.unwrap_err();
    // A machine without root certificates says that instead.
    assert!(matches!(error.code(), "unreachable" | "http_client"), "{error}");
}

#[tokio::test]
async fn a_challenge_that_drips_or_never_ends_is_cut() {
    let endless = format!("HTTP/1.1 402 Payment Required\r\ncontent-length: 9999999\r\n\r\n{}", "x".repeat(300_000));
    let unfinished = "HTTP/1.1 402 Payment Required\r\ncontent-length: 9999999\r\n\r\nx".to_owned();
    for text in [endless, unfinished] {
        let seller = Seller::start(vec![Step::Answer(text)]).await;
        let request = PayRequest { timeout: Duration::from_millis(300), ..seller.request("1") };
        assert_eq!(pay(&Wallet::random(), request).await.unwrap_err().code(), "challenge_malformed");
    }
}

#[tokio::test]
async fn a_quote_shows_both_versions_and_pays_nothing() {
    let seller = Seller::start(vec![challenge("pay"), answer("200 OK", &[], "free")]).await;
    let ask = || crate::quote(&seller.url, Method::GET, HeaderMap::new(), Duration::from_secs(5));
    let probe = ask().await.unwrap();
    assert_eq!((probe.status.as_u16(), probe.offers.len(), probe.problem), (402, 1, None));
    assert_eq!(probe.v2.unwrap().accepts[0].amount, Amount::from(10_000));
    assert_eq!(probe.v1.unwrap().accepts[0].network, "base-sepolia");
    assert!(STANDARD.decode(probe.headers[PAYMENT_REQUIRED].as_bytes()).is_ok());
    let free = ask().await.unwrap();
    assert_eq!((free.status.as_u16(), free.offers.len(), free.problem), (200, 0, None));
    assert_eq!(seller.payments(), [None, None]);
}

const FACILITATOR: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

/// A metered offer: at most so much, or all of it at once.
fn metered() -> Quote {
    let exact = terms("base-sepolia");
    let mut info = QuoteInfo::default();
    info.facilitators.add(exact.network, FACILITATOR.parse().unwrap());
    Quote::new(vec![Terms { scheme: Scheme::Upto, ..exact.clone() }, exact], info)
}

fn metered_challenge(error: &str) -> Step {
    let challenge = metered().challenge("http://seller.example/weather", error);
    answer("402 Payment Required", &[("PAYMENT-REQUIRED", &challenge.header)], &challenge.body)
}

/// A node that says what Permit2 may spend.
fn node(allowance: &str) -> Vec<Step> {
    let says = |result: &str| answer("200 OK", &[], &format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{result}"}}"#));
    vec![says("0x14a34"), says(allowance), says("0x14a34"), says(allowance)]
}

fn kind(header: &str) -> (Scheme, obol_x402::AuthorizationKind) {
    let payment = decode(&PaymentHeaders { v2: vec![header.as_bytes()], v1: vec![] }).unwrap().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let matched = match_payment(&payment, &metered(), "", now, |_| true).unwrap();
    assert_eq!(matched.local_check, LocalCheck::SignedByPayer);
    (matched.terms.scheme, matched.authorization.kind)
}

#[tokio::test]
async fn what_was_used_is_told_beside_what_was_authorised() {
    let settled = SettleResponse { success: true, transaction: "0xfeed".into(), amount: Some(1858.into()), ..SettleResponse::default() };
    let receipt = Receipt::new(&settled, Network::find("base-sepolia").unwrap());
    let seller = Seller::start(vec![metered_challenge(""), answer("200 OK", &[("PAYMENT-RESPONSE", &receipt.v2)], "")]).await;
    let paid = pay(&Wallet::random(), seller.request("0.01")).await.unwrap().paid.unwrap();
    assert_eq!(paid.to_string(), "0.001858 USDC on base-sepolia, of 0.01 authorised");
    let (scheme, kind) = kind(seller.payments()[1].as_ref().unwrap());
    assert_eq!((scheme, kind.facilitator()), (Scheme::Upto, FACILITATOR.parse().ok()));
}

#[tokio::test]
async fn without_an_allowance_the_next_way_is_taken() {
    for (allowance, scheme) in [("0x270f", Scheme::Exact), ("0x2710", Scheme::Upto), ("nonsense", Scheme::Upto)] {
        let (seller, node) = (Seller::start(vec![metered_challenge(""), served()]).await, Seller::start(node(allowance)).await);
        let request = PayRequest { node: Some(node.url.clone()), ..seller.request("0.01") };
        assert!(pay(&Wallet::random(), request).await.unwrap().paid.is_some());
        assert_eq!(kind(seller.payments()[1].as_ref().unwrap()).0, scheme, "{allowance}");
    }
}

#[tokio::test]
async fn a_missing_allowance_is_told_with_the_command_that_gives_it() {
    let (seller, node) = (Seller::start(vec![metered_challenge("")]).await, Seller::start(node("0x0")).await);
    let request = PayRequest { node: Some(node.url.clone()), scheme: Some(Scheme::Upto), ..seller.request("0.01") };
    let error = pay(&Wallet::random(), request).await.unwrap_err();
    assert_eq!((error.code(), seller.payments().len()), ("permit2_allowance", 1));
    let PayError::Allowance { approval, reason: None } = error else { panic!("{error}") };
    let command = approval.command();
    assert!(command.contains("cast send 0x036CbD53842c5426634e7929541eC2318f3dCF7e"), "{command}");
    assert!(command.contains("0x000000000022D473030F116dDEE9F6B43aC78BA3 10000"), "{command}");

    let seller = Seller::start(vec![metered_challenge(""), metered_challenge("permit2_allowance_required")]).await;
    let error = pay(&Wallet::random(), seller.request("0.01")).await.unwrap_err();
    assert_eq!(error.code(), "permit2_allowance");
    assert!(error.to_string().contains("permit2_allowance_required"), "{error}");
}

#[tokio::test]
async fn the_asked_scheme_alone_is_paid() {
    let seller = Seller::start(vec![metered_challenge(""), served()]).await;
    let request = PayRequest { scheme: Some(Scheme::Exact), ..seller.request("0.01") };
    assert!(pay(&Wallet::random(), request).await.unwrap().paid.is_some());
    assert_eq!(kind(seller.payments()[1].as_ref().unwrap()).0, Scheme::Exact);
    let seller = Seller::start(vec![challenge("")]).await;
    let request = PayRequest { scheme: Some(Scheme::Upto), ..seller.request("0.01") };
    assert_eq!(pay(&Wallet::random(), request).await.unwrap_err().code(), "nothing_payable");
}

#[tokio::test]
async fn a_receipt_behind_the_body_is_read() {
    let settled = SettleResponse { success: true, transaction: "0xfeed".into(), amount: Some(7.into()), ..SettleResponse::default() };
    let receipt = Receipt::new(&settled, Network::find("base-sepolia").unwrap());
    let trailers = format!(
        "trailer: payment-response\r\ntransfer-encoding: chunked\r\n\r\n5\r\nsunny\r\n0\r\npayment-response: {}\r\n\r\n",
        receipt.v2
    );
    let seller = Seller::start(vec![metered_challenge(""), Step::Answer(format!("HTTP/1.1 200 OK\r\n{trailers}"))]).await;
    let mut answer = pay(&Wallet::random(), seller.request("0.01")).await.unwrap();
    assert!(seller.seen.lock().unwrap()[1].to_lowercase().contains("te: trailers"));
    assert_eq!((answer.sent_payment, answer.receipt.is_none()), (true, true));
    let mut body = Vec::new();
    while let Some(part) = answer.body.chunk().await.unwrap() {
        body.extend_from_slice(&part);
    }
    answer.close();
    assert_eq!((body.as_slice(), answer.paid.unwrap().amount), (b"sunny".as_slice(), 7.into()));
}
