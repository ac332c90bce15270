//! `cargo xtask bench inference`: many streams at once through `obol serve inference`, beside the same streams straight from
//! the model server: what is added to the time to the first token, and what memory it takes.

use std::{
    convert::Infallible,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{Request, Response, body::Frame, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use obol_e2e::{
    http, keep,
    process::Process,
    stack::{Stack, free_address},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// Streams at once.
const STREAMS: usize = 500;
/// Tokens of each, and the time between two: a model that is read along with.
const TOKENS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);
const GATE: &str = "gate-secret-of-the-bench";
const PATIENCE: Duration = Duration::from_secs(30);
const BODY: &str = r#"{"model":"sold","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;

/// Measures and prints.
pub async fn measure() {
    let upstream = model_server().await;
    let folder = tempfile::tempdir().expect("a folder");
    let offer = folder.path().join("values-offer.yaml");
    fs_err::write(&offer, values(upstream)).expect("a file");
    let (at, admin) = (free_address(), free_address());
    let mut command = Stack::new().command();
    command.args(["serve", "inference", "--listen", &at.to_string(), "--admin", &admin.to_string(), "--offer"]).arg(&offer);
    let mut role = Process::start("obol serve inference", command.env("OBOL_GATE_SECRET", GATE));
    let started = Instant::now();
    while !http().get(format!("http://{admin}/readyz")).send().await.is_ok_and(|answer| answer.status().is_success()) {
        assert!(role.is_running() && started.elapsed() < PATIENCE, "the role is not ready:\n{}", role.tail());
        sleep(Duration::from_millis(100)).await;
    }
    let before = resident_kib(role.id());
    let direct = streams(upstream, "/v1/chat/completions").await;
    let running = tokio::spawn(async move { streams(at, "/chat/v1/chat/completions").await });
    let mut resident = Vec::new();
    while !running.is_finished() {
        sleep(Duration::from_secs(1)).await;
        resident.push(resident_kib(role.id()));
    }
    let through = running.await.expect("no panic");
    let peak = resident.iter().max().copied().unwrap_or_default();
    let (d50, d99, t50, t99) = (direct.at(50), direct.at(99), through.at(50), through.at(99));
    let told = format!(
        "{STREAMS} streams of {TOKENS} tokens at once\ntime to first token   p50 {:>8.2} ms   p99 {:>8.2} ms   straight from the server\n\
         \x20                     p50 {:>8.2} ms   p99 {:>8.2} ms   through obol\n\
         resident memory       {before} KiB before, {peak} KiB at most, by the second: {resident:?}",
        d50, d99, t50, t99
    );
    println!("{told}");
    keep("bench-inference.txt", &told);
}

fn values(upstream: SocketAddr) -> String {
    format!(
        "name: chat\nspec:\n  type: inference\n  upstream:\n    url: http://{upstream}\n  model:\n    name: sold\n    upstreamName: own\n  \
         payment:\n    network: base-sepolia\n    payTo: \"0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC\"\n    price:\n      perMTok: \"1\"\n"
    )
}

/// `VmRSS` of a process.
fn resident_kib(pid: u32) -> u64 {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Times to the first token in milliseconds, sorted.
struct Times(Vec<f64>);

impl Times {
    fn at(&self, percent: usize) -> f64 {
        self.0.get(self.0.len().saturating_sub(1) * percent / 100).copied().unwrap_or(f64::NAN)
    }
}

async fn streams(at: SocketAddr, path: &'static str) -> Times {
    let all: Vec<_> = (0..STREAMS)
        .map(|number| {
            tokio::spawn(async move {
                // Buyers come one after the other; they stay together.
                sleep(Duration::from_millis(4) * u32::try_from(number).expect("few")).await;
                one(at, path).await
            })
        })
        .collect();
    let mut times = Vec::new();
    for stream in all {
        times.push(stream.await.expect("no panic"));
    }
    times.sort_by(f64::total_cmp);
    Times(times)
}

/// One stream to its end; milliseconds to the first token.
async fn one(at: SocketAddr, path: &str) -> f64 {
    let mut connection = TcpStream::connect(at).await.expect("a connection");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {GATE}\r\nte: trailers\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let started = Instant::now();
    connection.write_all(head.as_bytes()).await.expect("written");
    let (mut first, mut seen, mut buffer) = (None, Vec::new(), vec![0; 4096]);
    loop {
        let read = connection.read(&mut buffer).await.expect("read");
        if read == 0 {
            break;
        }
        seen.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if first.is_none() && seen.windows(9).any(|part| part == b"\"content\"") {
            first = Some(started.elapsed().as_secs_f64() * 1000.0);
        }
    }
    let text = String::from_utf8_lossy(&seen);
    assert_eq!(
        text.matches("\"content\"").count(),
        usize::try_from(TOKENS).expect("few"),
        "a whole stream: {}",
        text.chars().take(300).collect::<String>()
    );
    first.expect("a token")
}

/// A server that lists `own`, and streams without thinking.
async fn model_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = listener.local_addr().expect("it listens");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let _ = socket.set_nodelay(true);
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(answer)));
        }
    });
    at
}

async fn answer(request: Request<Incoming>) -> Result<Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let list = request.uri().path() == "/v1/models";
    let _ = request.into_body().collect().await;
    let kind = if list { "application/json" } else { "text/event-stream" };
    let frames = stream::unfold(0, move |token| async move {
        let text = match token {
            0 if list => r#"{"object":"list","data":[{"id":"own"}]}"#.to_owned(),
            _ if list || token > TOKENS + 1 => return None,
            token if token < TOKENS => {
                format!("data: {{\"model\":\"own\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"t{token}\"}}}}]}}\n\n")
            }
            token if token == TOKENS => {
                format!("data: {{\"model\":\"own\",\"choices\":[],\"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":{TOKENS}}}}}\n\n")
            }
            _ => "data: [DONE]\n\n".to_owned(),
        };
        if token > 0 {
            sleep(PAUSE).await;
        }
        Some((Ok(Frame::data(Bytes::from(text))), token + 1))
    });
    Ok(Response::builder().header("content-type", kind).body(StreamBody::new(frames).boxed_unsync()).expect("an answer"))
}
