//! Websockets (RFC 6455) through the gate: paid once, at the handshake.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use obol_settle::Delivery;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::limits::InFlight;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// Both sides have switched long before this, or never will.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a request asks for a websocket. Other protocols are not offered, and ignoring an
/// `Upgrade` is always allowed (RFC 9110 §7.8): the request is then served as HTTP/1.1.
pub(crate) fn wants_websocket<B>(request: &Request<B>) -> bool {
    let has = |name, word: &str| {
        let values = request.headers().get_all(name).into_iter().filter_map(|v: &HeaderValue| v.to_str().ok());
        values.flat_map(|list| list.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && has(header::UPGRADE, "websocket")
        && has(header::CONNECTION, "upgrade")
}

/// The hop-by-hop headers of a websocket handshake, in either direction.
pub(crate) fn set_handshake(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, WEBSOCKET);
}

/// Whether a `101` switches to what was asked for.
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Carries bytes both ways until either side ends or the gateway stops.
pub(crate) fn tunnel(
    tasks: &TaskTracker,
    stop: CancellationToken,
    buyer: OnUpgrade,
    upstream: OnUpgrade,
    delivery: Option<Delivery>,
    in_flight: InFlight,
) {
    tasks.spawn(async move {
        let _in_flight = in_flight;
        let both = async { tokio::try_join!(buyer, upstream) };
        let (buyer, upstream) = match tokio::time::timeout(SWITCH_TIMEOUT, both).await {
            Ok(Ok(both)) => both,
            Ok(Err(error)) => return tracing::debug!(%error, "a websocket did not open"),
            Err(_) => return tracing::debug!("a websocket did not open in time"),
        };
        // What was sold is the open connection.
        if let Some(delivery) = delivery {
            delivery.complete();
        }
        let (mut buyer, mut upstream) = (TokioIo::new(buyer), TokioIo::new(upstream));
        tokio::select! {
            ended = tokio::io::copy_bidirectional(&mut buyer, &mut upstream) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a websocket broke off");
                }
            }
            () = stop.cancelled() => {}
        }
    });
}
