//! Where paid requests go, and how the upstream is asked whether it is well.

use url::Url;

use super::{Checker, Upstream, shape::URL};
use crate::{CanonicalPath, Hostname, UpstreamSpec};

impl Checker {
    pub(super) fn upstream(&mut self, spec: &UpstreamSpec) -> Option<Upstream> {
        let stray = spec.service.is_none() && (spec.namespace.is_some() || spec.port.is_some());
        match (&spec.url, &spec.host, &spec.service) {
            _ if stray => {
                self.refuse(
                    "upstream_ambiguous",
                    "spec.upstream",
                    "`namespace` and `port` belong to `service`",
                    "remove them, or name a service",
                );
                None
            }
            (Some(url), None, None) => self.upstream_url(url),
            (None, Some(host), None) if host.port > 0 => Some(Upstream::Host { port: host.port }),
            (None, Some(_), None) => {
                self.refuse("upstream_port", "spec.upstream.host.port", "port 0 is no port", "write a port from 1 to 65535");
                None
            }
            (None, None, Some(service)) => self.upstream_service(service, spec),
            (None, None, None) => {
                self.refuse(
                    "upstream_missing",
                    "spec.upstream",
                    "no upstream is given",
                    "write `url: http://127.0.0.1:9000`, or pass --upstream",
                );
                None
            }
            _ => {
                self.refuse("upstream_ambiguous", "spec.upstream", "more than one upstream is given", "keep one of url, host, service");
                None
            }
        }
    }

    fn upstream_url(&mut self, text: &str) -> Option<Upstream> {
        let field = "spec.upstream.url";
        let fix = "write an absolute URL such as http://127.0.0.1:9000";
        let url = match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => url,
            Ok(_) => {
                self.refuse("upstream_url", field, format!("`{text}` is no http or https URL"), fix);
                return None;
            }
            Err(error) => {
                self.refuse("upstream_url", field, format!("`{text}` is no URL: {error}"), fix);
                return None;
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            self.refuse("upstream_credentials", field, "the URL carries a password", "slices hold no secrets; remove `user:password@`");
        } else if url.query().is_some() || url.fragment().is_some() {
            self.refuse("upstream_url", field, "the URL has a query or fragment", "a buyer's own query is forwarded; give only the base");
        } else if url.port() == Some(0) {
            self.refuse("upstream_port", field, "port 0 is no port", "write a port from 1 to 65535");
        } else if !URL.fits(text) {
            self.refuse("upstream_url", field, format!("`{text}` is no plain URL"), fix);
        } else {
            return Some(Upstream::Url(url));
        }
        None
    }

    fn upstream_service(&mut self, service: &str, spec: &UpstreamSpec) -> Option<Upstream> {
        let namespace = spec.namespace.as_deref().unwrap_or("default");
        for (field, text) in [("service", service), ("namespace", namespace)] {
            if let Err(error) = text.parse::<Hostname>() {
                self.refuse("upstream_service", format!("spec.upstream.{field}"), format!("`{text}`: {error}"), "write a Kubernetes name");
            }
        }
        match spec.port {
            Some(port) if port > 0 => Some(Upstream::Service { name: service.to_owned(), namespace: namespace.to_owned(), port }),
            _ => {
                self.refuse("upstream_port", "spec.upstream.port", "a service needs its port", "write a port from 1 to 65535");
                None
            }
        }
    }

    pub(super) fn health_path(&mut self, text: Option<&str>) -> CanonicalPath {
        let text = text.unwrap_or("/health");
        let why = match CanonicalPath::parse(text) {
            Ok(path) if path.as_str() == text => return path,
            Ok(path) => format!("`{text}` is written otherwise: `{path}`"),
            Err(error) => format!("`{text}`: {error}"),
        };
        self.refuse("health_path", "spec.upstream.healthPath", why, "write a path such as /health");
        CanonicalPath::root()
    }
}
