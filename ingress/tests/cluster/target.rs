//! What a request to the API is about.

use hyper::Request;
use hyper::body::Incoming;

/// What a request is about.
pub struct Target {
    pub plural: String,
    pub namespace: String,
    pub name: Option<String>,
    pub sub: Option<String>,
    pub watch: bool,
    pub version: u64,
    /// `metadata.name` of a field selector.
    pub only: Option<String>,
}

impl Target {
    pub fn parse(request: &Request<Incoming>) -> Option<Self> {
        let mut parts = request.uri().path().trim_matches('/').split('/').map(str::to_owned);
        let group_parts = if parts.next()? == "api" { 1 } else { 2 };
        let mut parts = parts.skip(group_parts);
        let first = parts.next()?;
        let (namespace, plural) = match first.as_str() {
            "namespaces" => (parts.next()?, parts.next()?),
            _ => (String::new(), first),
        };
        let query: Vec<_> = request
            .uri()
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|p| p.split_once('='))
            .collect();
        let value = |name: &str| query.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        Some(Self {
            plural,
            namespace,
            name: parts.next(),
            sub: parts.next(),
            only: value("fieldSelector")
                .and_then(|v| v.strip_prefix("metadata.name%3D"))
                .map(str::to_owned),
            watch: value("watch") == Some("true"),
            version: value("resourceVersion")
                .and_then(|v| v.parse().ok())
                .unwrap_or_default(),
        })
    }

    /// Whether an object is asked for.
    pub fn has(&self, key: &crate::world::Key) -> bool {
        let here = self.namespace.is_empty() || key.0 == self.namespace;
        here && self.only.as_ref().is_none_or(|name| key.1 == *name)
    }
}
