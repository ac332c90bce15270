//! The service that the quickstart sells: a weather report, the same for everybody.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, body::Incoming, header::CONTENT_TYPE, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinHandle};

/// What it answers.
pub const REPORT: &str = r#"{"city":"Lisbon","sky":"clear","celsius":21}"#;

/// Where it says that it is well.
const HEALTH: &str = "/health";

/// A running demo service; ends when dropped.
pub struct Demo {
    /// Loopback address.
    pub address: SocketAddr,
    reports: Arc<AtomicU64>,
    server: JoinHandle<()>,
}

impl Demo {
    /// Starts it on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let reports = Arc::new(AtomicU64::new(0));
        let server = tokio::spawn(serve(listener, reports.clone()));
        Ok(Self { address, reports, server })
    }

    /// How many reports it has given; health probes are not counted.
    pub fn reports(&self) -> u64 {
        self.reports.load(Ordering::SeqCst)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, reports: Arc<AtomicU64>) {
    while let Ok((stream, _)) = listener.accept().await {
        let reports = reports.clone();
        let service = service_fn(move |request| std::future::ready(answer(&request, &reports)));
        // A buyer that hangs up is no concern of the others.
        tokio::spawn(async move { hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await });
    }
}

fn answer(request: &Request<Incoming>, reports: &AtomicU64) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = if request.uri().path() == HEALTH {
        r#"{"status":"ok"}"#
    } else {
        reports.fetch_add(1, Ordering::SeqCst);
        REPORT
    };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}
