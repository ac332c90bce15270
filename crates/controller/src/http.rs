//! Questions to our own Pods: plain HTTP, short answers, every replica.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

const TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer: ten thousand offers are about 2 MB.
const MAX_BODY: usize = 16 << 20;

type Answer = Result<(StatusCode, Bytes), String>;

/// Asks every address of a URL's host. An error is one of finding addresses.
pub(crate) async fn get_each(base: &Url, path: &str) -> Result<Vec<Answer>, String> {
    let host = base.host_str().unwrap_or_default().to_owned();
    let port = base.port_or_known_default().unwrap_or(80);
    let plain = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let found = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((plain.as_str(), port))).await;
    let found = found.map_err(|_| format!("{host} was not looked up in time"))?;
    let addresses: BTreeSet<SocketAddr> = found.map_err(|error| format!("{host}: {error}"))?.collect();
    let authority = format!("{host}:{port}");
    let mut answers = Vec::new();
    for address in addresses {
        let asked = tokio::time::timeout(TIMEOUT, get(address, &authority, path)).await;
        answers.push(asked.unwrap_or_else(|_| Err(format!("http://{authority}{path} did not answer within {} s", TIMEOUT.as_secs()))));
    }
    Ok(answers)
}

async fn get(address: SocketAddr, authority: &str, path: &str) -> Answer {
    let told = |error: &dyn std::error::Error| format!("GET http://{authority}{path}: {}", crate::mirror::innermost(error));
    let stream = TcpStream::connect(address).await.map_err(|error| told(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| told(&error))?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get(path).header(header::HOST, authority).header(header::USER_AGENT, "obol-controller");
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| told(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| told(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_BODY).collect().await.map_err(|error| told(error.as_ref()))?;
    Ok((status, body.to_bytes()))
}
