//! The load generator: a closed loop over kept-alive HTTP/1.1 connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Uri, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What one run found.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Requests per second.
    pub rate: f64,
    /// Median latency.
    pub p50: Duration,
    /// Latency that one request in a hundred exceeds.
    pub p99: Duration,
}

/// What is sent.
pub struct Plan {
    /// Target.
    pub url: Uri,
    /// Status that every answer must have.
    pub status: u16,
    /// Payment headers, each sent once; empty for requests without payment.
    pub payments: Vec<String>,
    /// How many at most.
    pub requests: usize,
}

/// Keeps `connections` requests in flight for `time`, or until requests or payments are used up.
///
/// # Panics
/// When an answer has another status, or a connection breaks.
pub async fn run(plan: &Arc<Plan>, connections: usize, time: Duration) -> Figures {
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let tasks: Vec<_> = (0..connections).map(|_| tokio::spawn(one_connection(Arc::clone(plan), Arc::clone(&next), begin + time))).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("every answer is the expected one"));
    }
    let took = begin.elapsed();
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or_default();
    Figures { rate: latencies.len() as f64 / took.as_secs_f64(), p50: at(0.50), p99: at(0.99) }
}

async fn one_connection(plan: Arc<Plan>, next: Arc<AtomicUsize>, end: Instant) -> Vec<Duration> {
    let host = plan.url.authority().expect("a URL has a host").to_string();
    let socket = TcpStream::connect(&host).await.expect("the server listens");
    socket.set_nodelay(true).expect("TCP_NODELAY");
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= plan.requests {
            break;
        }
        let mut request = Request::get(plan.url.path()).header(HOST, &host);
        if !plan.payments.is_empty() {
            let Some(payment) = plan.payments.get(number) else { break };
            request = request.header("payment-signature", payment);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let begin = Instant::now();
        sender.ready().await.expect("the connection stays");
        let answer = sender.send_request(request).await.expect("an answer");
        let told = answer.status();
        let body = answer.into_body().collect().await.expect("a whole answer").to_bytes();
        latencies.push(begin.elapsed());
        assert_eq!(told, plan.status, "{}", String::from_utf8_lossy(&body));
    }
    latencies
}
