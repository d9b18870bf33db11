//! Parses the path and query of a request to the API.

use hyper::Request;
use hyper::body::Incoming;
use serde_json::Value;
use std::time::Duration;

/// What a request is about.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub(super) plural: String,
    pub(super) namespace: String,
    pub(super) name: Option<String>,
    pub(super) sub: Option<String>,
    pub(super) watch: bool,
    pub(super) version: u64,
    /// A streaming list: the watch begins with all objects.
    pub(super) initial_events: bool,
    pub(super) bookmarks: bool,
    /// How long a watch lasts.
    pub(super) timeout: Duration,
    /// Objects in one page of a list; 0 for all.
    pub(super) limit: usize,
    /// Where the last page ended.
    pub(super) after: Option<String>,
    /// Terms `path=value` and `path!=value` of fieldSelector and labelSelector that all must hold.
    selectors: Vec<Selector>,
}

#[derive(Debug)]
struct Selector {
    path: Vec<String>,
    wanted: Wanted,
}

#[derive(Debug)]
enum Wanted {
    Value(String),
    Another(String),
    Any,
}

impl Target {
    pub(super) fn parse(request: &Request<Incoming>) -> Option<Self> {
        Self::of(request.uri().path(), request.uri().query().unwrap_or_default())
    }

    pub(super) fn of(path: &str, query: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/').map(str::to_owned);
        let group_parts = if parts.next()? == "api" { 1 } else { 2 };
        let mut parts = parts.skip(group_parts);
        let first = parts.next()?;
        // A Namespace itself is `namespaces/NAME`; its contents are `namespaces/NAME/PLURAL`.
        let (mut namespace, mut plural, mut name) = (String::new(), first, None);
        if plural == "namespaces" {
            let (inner, outer) = (parts.next(), parts.next());
            match outer {
                Some(contents) => (namespace, plural) = (inner?, contents),
                None => name = inner,
            }
        }
        let query: Vec<(&str, String)> = query
            .split('&')
            .filter_map(|p| p.split_once('='))
            .map(|(name, value)| (name, decode(value)))
            .collect();
        let value = |name: &str| query.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
        let number = |name: &str| value(name).and_then(|v| v.parse::<u64>().ok());
        let fields = terms(value("fieldSelector"), |path| {
            path.split('.').map(str::to_owned).collect()
        });
        let labels = terms(value("labelSelector"), |name| {
            vec!["metadata".to_owned(), "labels".to_owned(), name.to_owned()]
        });
        Some(Self {
            plural,
            namespace,
            name: name.or_else(|| parts.next()),
            sub: parts.next(),
            watch: value("watch") == Some("true"),
            version: number("resourceVersion").unwrap_or_default(),
            initial_events: value("sendInitialEvents") == Some("true"),
            bookmarks: value("allowWatchBookmarks") == Some("true"),
            timeout: Duration::from_secs(number("timeoutSeconds").unwrap_or(290)),
            limit: number("limit")
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or_default(),
            after: value("continue").map(str::to_owned),
            selectors: fields.chain(labels).collect(),
        })
    }

    /// The object is in the namespace asked for and all selectors hold. The text is parsed only when there are any.
    pub(super) fn selects(&self, namespace: &str, text: &[u8]) -> bool {
        if !self.namespace.is_empty() && self.namespace != namespace {
            return false;
        }
        if self.selectors.is_empty() {
            return true;
        }
        let object: Value = serde_json::from_slice(text).unwrap();
        self.selectors.iter().all(|selector| {
            let found = selector.path.iter().fold(&object, |value, part| &value[part.as_str()]);
            let text = found.as_str().unwrap_or_default();
            match &selector.wanted {
                Wanted::Value(value) => text == value,
                Wanted::Another(value) => text != value,
                Wanted::Any => !found.is_null(),
            }
        })
    }
}

fn terms(text: Option<&str>, path: fn(&str) -> Vec<String>) -> impl Iterator<Item = Selector> {
    let terms: Vec<_> = text
        .unwrap_or_default()
        .split(',')
        .filter(|term| !term.is_empty())
        .map(|term| {
            let (name, wanted) = match (term.split_once("!="), term.split_once('=')) {
                (Some((name, value)), _) => (name, Wanted::Another(value.to_owned())),
                (None, Some((name, value))) => (name, Wanted::Value(value.trim_start_matches('=').to_owned())),
                (None, None) => (term, Wanted::Any),
            };
            Selector {
                path: path(name),
                wanted,
            }
        })
        .collect();
    terms.into_iter()
}

/// Percent and plus decoding of a query's value.
fn decode(value: &str) -> String {
    let mut bytes = value.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || {
                    bytes
                        .next()
                        .and_then(|b| char::from(b).to_digit(16))
                        .unwrap_or_default()
                };
                let (high, low) = (digit(), digit());
                u8::try_from(high * 16 + low).unwrap_or_default()
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}
