//! Why a message was refused for its framing.

use http::StatusCode;

/// One cause per variant; [`FramingRefusal::code`] is stable and the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingRefusal {
    #[error("the request line is malformed")]
    RequestLine,
    #[error("the request target is longer than 16 KiB")]
    TargetTooLong,
    #[error("the request target and the Host header name different hosts, or the target is malformed")]
    Target,
    #[error("CONNECT is not offered here")]
    Connect,
    #[error("the request head is too large")]
    HeadTooLarge,
    #[error("the request has more than 100 headers")]
    TooManyHeaders,
    #[error("a line does not end in CR LF")]
    LineEnding,
    #[error("a header is malformed")]
    Header,
    #[error("Host must be given exactly once, as a host name with an optional port")]
    Host,
    #[error("Content-Length must be given at most once, in digits only")]
    ContentLength,
    #[error("Content-Length and Transfer-Encoding exclude each other")]
    LengthAndEncoding,
    #[error("the only transfer coding understood is `chunked`, given once, in HTTP/1.1")]
    TransferEncoding,
    #[error("a chunk of the body is malformed")]
    Chunk,
    #[error("the trailer section is malformed or too large")]
    Trailer,
}

impl FramingRefusal {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::RequestLine => "bad_request_line",
            Self::TargetTooLong => "target_too_long",
            Self::Target => "bad_target",
            Self::Connect => "connect_refused",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyHeaders => "too_many_headers",
            Self::LineEnding => "bad_line_ending",
            Self::Header => "bad_header",
            Self::Host => "bad_host",
            Self::ContentLength => "bad_content_length",
            Self::LengthAndEncoding => "ambiguous_length",
            Self::TransferEncoding => "bad_transfer_encoding",
            Self::Chunk => "bad_chunk",
            Self::Trailer => "bad_trailer",
        }
    }

    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge | Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Connect | Self::TransferEncoding => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}
