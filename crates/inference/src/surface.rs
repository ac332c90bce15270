//! What is sold: five calls of the OpenAI API, and nothing else of the model server.

use http::Method;

use crate::problem::Problem;

/// A call that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `POST /v1/responses`
    Responses,
}

impl Call {
    /// The one spelling of its path.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Responses => "/v1/responses",
        }
    }

    const ALL: [Self; 4] = [Self::Chat, Self::Completions, Self::Embeddings, Self::Responses];
}

/// What a request line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The model server is asked.
    Call(Call),
    /// `GET /v1/models`: answered here.
    Models,
    /// `GET /v1/models/{id}`: answered here. The id as it stands in the path.
    Model(String),
}

/// Reads a request line. The path is compared byte by byte and never decoded, normalised or passed
/// on: what is not spelled exactly like a call that is sold reaches no model server.
///
/// # Errors
/// 404 for every other path, 405 for the wrong method on a right one.
pub fn read(method: &Method, path: &str) -> Result<Asked, Problem> {
    if let Some(call) = Call::ALL.into_iter().find(|call| call.path() == path) {
        return if *method == Method::POST { Ok(Asked::Call(call)) } else { Err(Problem::method("POST")) };
    }
    let asked = match path.strip_prefix("/v1/models") {
        Some("") => Asked::Models,
        Some(rest) => match rest.strip_prefix('/') {
            Some(id) if !id.is_empty() => Asked::Model(id.to_owned()),
            _ => return Err(Problem::not_served()),
        },
        None => return Err(Problem::not_served()),
    };
    if matches!(*method, Method::GET | Method::HEAD) { Ok(asked) } else { Err(Problem::method("GET, HEAD")) }
}

/// Whether `id`, as it stands in a path, is `name`: percent-encoding is undone once, here, where
/// the result is compared and goes nowhere else.
pub fn is_id(id: &str, name: &str) -> bool {
    let mut bytes = id.bytes();
    let mut decoded = Vec::with_capacity(id.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        let (Some(high), Some(low)) = (digit(), digit()) else { return false };
        decoded.push(high << 4 | low);
    }
    decoded == name.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: Method, path: &str) -> u16 {
        read(&method, path).map_or_else(|problem| problem.status.as_u16(), |_| 200)
    }

    #[test]
    fn the_calls_have_one_spelling_and_one_method() {
        for call in Call::ALL {
            assert_eq!(read(&Method::POST, call.path()), Ok(Asked::Call(call)));
            assert_eq!(status(Method::GET, call.path()), 405);
            assert_eq!(status(Method::DELETE, call.path()), 405);
        }
        assert_eq!(read(&Method::GET, "/v1/models"), Ok(Asked::Models));
        assert_eq!(read(&Method::GET, "/v1/models/a%2Fb"), Ok(Asked::Model("a%2Fb".into())));
        assert_eq!(status(Method::DELETE, "/v1/models/a"), 405);
    }

    #[test]
    fn everything_else_is_not_there() {
        let paths = [
            "/",
            "",
            "/v1",
            "/v1/",
            "/api/pull",
            "/api/tags",
            "/api/generate",
            "/metrics",
            "/health",
            "/v1/../api/tags",
            "/v1/%2e%2e/api/tags",
            "/v1//chat/completions",
            "//v1/chat/completions",
            "/v1/chat/completions/",
            "/v1/chat%2fcompletions",
            "/v1/chat/completions;a",
            "/v1/chat/completions%00",
            "/V1/chat/completions",
            "/v1/Chat/completions",
            "/v1/models/",
            "/v1/modelsx",
            "/v1/audio/speech",
            "/v1/responses/resp_1",
            "/v1/chat/completions/x",
            "/v1/./chat/completions",
            "/slots",
            "/props",
            "/completion",
            "/infill",
        ];
        for path in paths {
            assert_eq!(status(Method::POST, path), 404, "{path}");
            assert_eq!(status(Method::GET, path), 404, "{path}");
        }
    }

    #[test]
    fn an_id_is_compared_after_one_decoding() {
        assert!(is_id("org%2Fm", "org/m") && is_id("org/m", "org/m") && is_id("m:7b", "m:7b"));
        assert!(!is_id("org%252Fm", "org/m") && !is_id("%", "%") && !is_id("%zz", "%zz") && !is_id("", "m") && !is_id("%+1", "\u{1}"));
    }
}
