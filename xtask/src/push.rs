//! Pushing an image to a registry, in the few requests that it takes (OCI distribution
//! specification 1.1, "Pushing blobs" and "Pushing manifests").

use std::{env, process::Command};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::{
    oci::Layout,
    run::{Error, Result, output},
};

/// A place in a registry.
#[derive(Debug, PartialEq, Eq)]
struct Reference {
    registry: String,
    repository: String,
    tag: String,
}

impl Reference {
    fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::Check(format!("`{text}` is no image reference; write registry.example/team/obol:v1"));
        let (registry, rest) = text.split_once('/').ok_or_else(wrong)?;
        let (repository, tag) = rest.rsplit_once(':').unwrap_or((rest, "latest"));
        let plain = |text: &str, more: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
        if !plain(registry, ".:-") || !plain(repository, "._-/") || !plain(tag, "._-") {
            return Err(wrong());
        }
        Ok(Self { registry: registry.to_owned(), repository: repository.to_owned(), tag: tag.to_owned() })
    }

    /// Plain http on this machine only, as every container engine has it.
    fn base(&self) -> String {
        let host = self.registry.split(':').next().unwrap_or_default();
        let scheme = if matches!(host, "localhost" | "127.0.0.1") { "http" } else { "https" };
        format!("{scheme}://{}/v2/{}", self.registry, self.repository)
    }
}

/// Pushes every blob that the registry lacks, then the manifest under its tag.
pub fn push(layout: &Layout, reference: &str) -> Result {
    let reference = Reference::parse(reference)?;
    let base = reference.base();
    let token = token(&reference)?;
    let manifest = layout.manifest();
    let described: Value = serde_json::from_slice(manifest).map_err(std::io::Error::from)?;
    let layers = described.get("layers").and_then(Value::as_array).into_iter().flatten();
    for blob in layers.chain(described.get("config")) {
        let digest = blob.get("digest").and_then(Value::as_str).unwrap_or_default();
        if curl(&token, &["--head", &format!("{base}/blobs/{digest}")], None)?.status == 200 {
            continue;
        }
        let bytes = layout.blob(digest).ok_or_else(|| Error::Check(format!("the image has no blob {digest}")))?;
        let begun = curl(&token, &["--request", "POST", "--header", "Content-Length: 0", &format!("{base}/blobs/uploads/")], None)?;
        let location = begun.expect(202, "begin an upload")?.location;
        let place = if location.starts_with('/') { format!("{}{location}", origin(&base)) } else { location };
        let joint = if place.contains('?') { '&' } else { '?' };
        let url = format!("{place}{joint}digest={digest}");
        let header = "Content-Type: application/octet-stream";
        curl(&token, &["--request", "PUT", "--header", header, &url], Some(bytes))?.expect(201, "upload a blob")?;
    }
    let header = format!("Content-Type: {}", described.get("mediaType").and_then(Value::as_str).unwrap_or_default());
    let url = format!("{base}/manifests/{}", reference.tag);
    curl(&token, &["--request", "PUT", "--header", &header, &url], Some(manifest))?.expect(201, "upload the manifest")?;
    println!("pushed {}/{}:{} ({})", reference.registry, reference.repository, reference.tag, layout.digest);
    Ok(())
}

fn origin(base: &str) -> &str {
    base.find("/v2/").and_then(|end| base.get(..end)).unwrap_or(base)
}

/// A header that lets us push; none where the registry asks for none.
fn token(reference: &Reference) -> Result<Option<String>> {
    let asked = curl(&None, &[&format!("{}/v2/", origin(&reference.base()))], None)?;
    if asked.status != 401 {
        return Ok(None);
    }
    let user = |name: &str| env::var(name).map_err(|_| Error::Check(format!("the registry asks who you are: set {name}")));
    let login = format!("{}:{}", user("REGISTRY_USER")?, user("REGISTRY_PASSWORD")?);
    let login = format!("Authorization: Basic {}", BASE64_STANDARD.encode(login));
    let field = |key: &str| {
        let rest = asked.challenge.split(&format!("{key}=\"")).nth(1)?;
        rest.split('"').next().map(str::to_owned)
    };
    let Some(realm) = field("realm").filter(|_| asked.challenge.to_lowercase().starts_with("bearer")) else { return Ok(Some(login)) };
    let service = field("service").unwrap_or_default();
    let url = format!("{realm}?service={service}&scope=repository:{}:pull,push", reference.repository);
    let answer = curl(&Some(login), &[&url], None)?.expect(200, "get a token")?;
    let answer: Value = serde_json::from_str(&answer.body).map_err(std::io::Error::from)?;
    let token = ["token", "access_token"].iter().find_map(|field| answer.get(field)?.as_str());
    Ok(token.map(|token| format!("Authorization: Bearer {token}")))
}

#[derive(Debug, Default)]
struct Answer {
    status: u16,
    location: String,
    challenge: String,
    body: String,
}

impl Answer {
    fn expect(self, status: u16, action: &str) -> Result<Self> {
        if self.status == status {
            return Ok(self);
        }
        let said: String = self.body.chars().take(300).collect();
        Err(Error::Check(format!("the registry does not let us {action}: {} {said}", self.status)))
    }
}

/// One request by `curl`, which every machine has. Secrets go in by a file of headers, not by its
/// arguments, which others can see.
fn curl(secret: &Option<String>, args: &[&str], body: Option<&[u8]>) -> Result<Answer> {
    let file = |bytes: &[u8]| -> Result<tempfile::NamedTempFile> {
        let file = tempfile::NamedTempFile::new()?;
        fs_err::write(file.path(), bytes)?;
        Ok(file)
    };
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--include", "--http1.1", "--max-time", "600", "--header", "Expect:"]).args(args);
    let secret = secret.as_ref().map(|secret| file(secret.as_bytes())).transpose()?;
    if let Some(secret) = &secret {
        curl.arg("--header").arg(format!("@{}", secret.path().display()));
    }
    let body = body.map(file).transpose()?;
    if let Some(body) = &body {
        curl.arg("--data-binary").arg(format!("@{}", body.path().display()));
    }
    Ok(answer(&String::from_utf8_lossy(&output(&mut curl)?)))
}

fn answer(text: &str) -> Answer {
    // An interim answer (100) comes first where there is one.
    let last = text.rfind("HTTP/1.1 ").or_else(|| text.rfind("HTTP/1.0 ")).unwrap_or(0);
    let text = text.get(last..).unwrap_or_default();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let header = |name: &str| {
        let found = head.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
    Answer { status, location: header("location"), challenge: header("www-authenticate"), body: body.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::TcpListener,
    };

    use super::*;
    use crate::oci::{File, Image};

    /// A registry that has nothing yet: answers as the specification says, and returns what it was
    /// asked.
    fn registry(listener: TcpListener, requests: usize) -> Vec<(String, Vec<u8>)> {
        let mut seen = Vec::new();
        for _ in 0..requests {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut length) = (String::new(), 0);
            reader.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let answer = match first.split(' ').next().unwrap() {
                "GET" => "200 OK",
                "HEAD" => "404 Not Found",
                "POST" => "202 Accepted\r\nLocation: /v2/team/obol/blobs/uploads/1?state=x",
                _ => "201 Created",
            };
            write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            seen.push((first.trim().to_owned(), body));
        }
        seen
    }

    #[test]
    fn an_image_is_pushed_blob_by_blob_and_then_by_its_manifest() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let image = Image {
            name: "obol:v1".to_owned(),
            entrypoint: vec!["/obol".to_owned()],
            user: "65532".to_owned(),
            env: Vec::new(),
            labels: Default::default(),
            files: vec![File { path: "obol".to_owned(), mode: 0o755, bytes: b"program".to_vec() }],
            gzip: true,
        };
        let layout = image.layout().unwrap();
        let server = std::thread::spawn(move || registry(listener, 8));
        push(&layout, &format!("{address}/team/obol:v1")).unwrap();
        let seen = server.join().unwrap();
        let verbs: Vec<&str> = seen.iter().map(|(line, _)| line.split(' ').next().unwrap()).collect();
        assert_eq!(verbs, ["GET", "HEAD", "POST", "PUT", "HEAD", "POST", "PUT", "PUT"]);
        assert!(seen[3].0.starts_with("PUT /v2/team/obol/blobs/uploads/1?state=x&digest=sha256:"), "{}", seen[3].0);
        assert!(seen[7].0.starts_with("PUT /v2/team/obol/manifests/v1 "));
        assert_eq!(seen[7].1, layout.manifest());
    }

    #[test]
    fn a_reference_names_registry_repository_and_tag() {
        let found = Reference::parse("ghcr.io/obolnetwork/obol:v1").unwrap();
        assert_eq!(found.base(), "https://ghcr.io/v2/obolnetwork/obol");
        assert_eq!(Reference::parse("localhost:5000/obol").unwrap().base(), "http://localhost:5000/v2/obol");
        for wrong in ["obol", "ghcr.io/", "ghcr.io/o b:v1", "ghcr.io/obol:"] {
            assert!(Reference::parse(wrong).is_err(), "{wrong}");
        }
    }
}
