//! Where a request goes: a path of a host, and what its Ingress asks for beside it.

use crate::policy::{Canary, Policy};
use crate::prefix::{is_below, stem};
use landfall_ingress_balance::Backend;
use landfall_ingress_telemetry::traffic::{EVERY_HOST, RouteKey, Slot};
use std::sync::Arc;

/// A host of the table.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// As written, lower case: `a.example.com` or `*.example.com`; empty for all hosts.
    pub name: Arc<str>,
    /// Namespace of the oldest Ingress that names it, which owns it; empty when no rule has it.
    pub namespace: Arc<str>,
    /// Some Ingress of the owner has TLS for it (S22).
    pub tls: bool,
}

/// A path that leads somewhere.
#[derive(Debug, Default)]
pub struct Route {
    /// Whole path only, or everything below too.
    pub exact: bool,
    /// Set when the path is a regular expression, matched from the start.
    pub pattern: Option<regex::Regex>,
    /// The path in canonical form; a regular expression as written; empty for the default backend.
    pub path: Arc<str>,
    /// Its host.
    pub host: Arc<Host>,
    /// Where it leads.
    pub backend: Arc<Backend>,
    /// `namespace/name` of the Ingress.
    pub ingress: Arc<str>,
    /// What else its Ingress asks for.
    pub policy: Arc<Policy>,
    /// Other backends for some of the requests, oldest first (`canary-*`).
    pub alternatives: Vec<Alternative>,
    /// Answers when the backend has no endpoint, or one of `policy.replaced_statuses`.
    pub fallback: Option<Arc<Backend>>,
    /// The Service of `policy.external_auth`, when that names one.
    pub auth: Option<Arc<Backend>>,
    /// The Service of `policy.mirror`, when that names one.
    pub mirror: Option<Arc<Backend>>,
    /// Where its counts are.
    pub traffic: Slot,
}

/// Another backend of a route.
#[derive(Debug)]
pub struct Alternative {
    /// `namespace/name` of the Ingress that offers it.
    pub ingress: Arc<str>,
    /// Where it leads.
    pub backend: Arc<Backend>,
    /// Which requests go there.
    pub canary: Arc<Canary>,
}

impl Route {
    /// S1 to S3: `Exact` compares all; `Prefix` (and `ImplementationSpecific`, which is the same here) goes by elements.
    #[inline]
    pub fn matches(&self, path: &str) -> bool {
        match &self.pattern {
            // An expression is written as people read paths, or as they are spelled.
            Some(pattern) => {
                pattern.is_match(path)
                    || landfall_ingress_http::path::readable(path).is_some_and(|path| pattern.is_match(&path))
            }
            None if self.exact => *self.path == *path,
            None => is_below(path, stem(&self.path)),
        }
    }

    /// Whether this route may be asked whether requests of `other` may pass: it is another one, and does not ask somebody itself. Else the
    /// protected application would be asked about itself.
    pub fn answers_for(&self, other: &Route) -> bool {
        !std::ptr::eq(self, other) && self.policy.external_auth.is_none()
    }

    /// What it is counted under, whatever table it is in.
    pub fn key(&self) -> RouteKey {
        RouteKey {
            ingress: Arc::clone(&self.ingress),
            host: match self.host.name.is_empty() {
                true => EVERY_HOST.into(),
                false => Arc::clone(&self.host.name),
            },
            path: Arc::clone(&self.path),
            exact: self.exact,
        }
    }

    /// Its host for people: `*` is every host.
    pub fn shown_host(&self) -> &str {
        match &*self.host.name {
            "" => EVERY_HOST,
            name => name,
        }
    }

    /// Its kind for people, which of a default backend is another.
    pub fn shown_kind(&self) -> &'static str {
        match self.path.is_empty() {
            true => "DefaultBackend",
            false => self.kind(),
        }
    }

    /// Its kind, for people.
    pub fn kind(&self) -> &'static str {
        match (self.pattern.is_some(), self.exact) {
            (true, _) => "Regex",
            (false, true) => "Exact",
            (false, false) => "Prefix",
        }
    }
}
