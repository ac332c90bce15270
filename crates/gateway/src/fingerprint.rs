//! What a payment is bound to when it is admitted.

use http::{HeaderValue, Request, header};
use obol_offer::CanonicalPath;
use sha2::{Digest as _, Sha256};

use crate::body::RequestBody;

/// Digest of method, path, query, and the body where it is short and of known
/// length. An answer to a longer one is never replayed, so its length and type are enough.
pub(crate) fn fingerprint(request: &Request<RequestBody>, path: &CanonicalPath) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        // Lengths first, so that no two lists of parts are the same bytes.
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(request.method().as_str().as_bytes());
    part(path.as_str().as_bytes());
    part(request.uri().query().unwrap_or_default().as_bytes());
    match request.body() {
        RequestBody::Ready { bytes, .. } => {
            part(b"body");
            part(&Sha256::digest(bytes));
        }
        RequestBody::Stream { .. } => {
            part(b"stream");
            for name in [header::CONTENT_LENGTH, header::CONTENT_TYPE] {
                part(request.headers().get(name).map_or(&[], HeaderValue::as_bytes));
            }
        }
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, target: &str, body: &'static str) -> [u8; 32] {
        let body = RequestBody::Ready { bytes: body.into(), _share: None };
        let request = Request::builder().method(method).uri(target).body(body).unwrap();
        fingerprint(&request, &CanonicalPath::parse(request.uri().path()).unwrap())
    }

    #[test]
    fn each_part_of_a_request_counts() {
        let base = of("GET", "/a?q", "b");
        assert_eq!(base, of("GET", "//%61?q", "b"));
        for other in [of("PUT", "/a?q", "b"), of("GET", "/b?q", "b"), of("GET", "/a?r", "b"), of("GET", "/a?q", "c"), of("GET", "/aq", "b")]
        {
            assert_ne!(base, other);
        }
    }
}
