//! The table of routes and how a request finds its way in it. Pure; [`build`] makes the table from objects of the API.
//!
//! S1 to S12 are the rules of the comments in kubernetes/api networking/v1/types.go and discovery/v1/types.go; the README of this
//! crate lists them with their tests.

mod build;
mod endpoints;
mod host;

pub use build::{CLASS_ANNOTATION, DEFAULT_CLASS, Objects};
pub use host::host_of;

#[cfg(test)]
pub use build::CONTROLLER;

use crate::policy::Policy;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Everything a request needs; replaced as a whole.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Precise hosts, lower case, to routes in order of precedence.
    hosts: BTreeMap<String, Vec<Route>>,
    /// What stands behind `*.` to routes.
    wildcards: BTreeMap<String, Vec<Route>>,
    /// Routes of rules without a host.
    any_host: Vec<Route>,
    default: Option<Route>,
    /// What lost against an older object, or could not be used; for people.
    pub remarks: Vec<String>,
    /// Every Ingress that is ours.
    pub ours: Vec<Ours>,
}

/// An Ingress that this proxy serves, with the addresses its status names now.
#[derive(Debug, PartialEq, Eq)]
pub struct Ours {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Addresses or host names in `status.loadBalancer`.
    pub addresses: BTreeSet<String>,
}

/// A path that leads somewhere.
#[derive(Debug)]
pub struct Route {
    /// Whole path only, or everything below too.
    pub exact: bool,
    /// The path as written.
    pub path: String,
    /// Where it leads.
    pub backend: Arc<Backend>,
    /// `namespace/name` of the Ingress.
    pub ingress: Arc<str>,
    /// What else its Ingress asks for.
    pub policy: Arc<Policy>,
}

impl Route {
    /// S1 to S3: `Exact` compares all; `Prefix` (and `ImplementationSpecific`, which is the same here) goes by elements.
    fn matches(&self, path: &str) -> bool {
        if self.exact {
            return self.path == path;
        }
        let prefix = self.path.trim_end_matches('/');
        let rest = path.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// A Service with the addresses that may be used.
#[derive(Debug, Default)]
pub struct Backend {
    /// `namespace/service:port`, for people.
    pub name: String,
    /// Addresses, in stable order.
    pub endpoints: Vec<SocketAddr>,
    next: AtomicUsize,
}

impl Backend {
    /// Returns all addresses, each time starting with the next, so that load spreads and the rest serve for failover.
    pub fn candidates(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.endpoints.len();
        (0..count).map(move |i| self.endpoints[start.wrapping_add(i) % count])
    }
}

impl Snapshot {
    /// Returns the route of a request; its backend may have no endpoint. `host` is normalised by [`host_of`] and empty when the request
    /// has none; `path` is the request's, byte by byte, without its query.
    ///
    /// S5: a host that is known but has no such path does not fall through to a wildcard or to rules without host, only to the
    /// default backend.
    pub fn find(&self, host: &str, path: &str) -> Option<&Route> {
        let wildcard = || match host.split_once('.') {
            Some((label, parent)) if !label.is_empty() => self.wildcards.get(parent),
            _ => None,
        };
        let routes = self.hosts.get(host).or_else(wildcard).unwrap_or(&self.any_host);
        let route = routes.iter().find(|r| r.matches(path));
        route.or(self.default.as_ref())
    }

    /// Every route with its host as written, for the status page.
    pub fn routes(&self) -> impl Iterator<Item = (String, &Route)> {
        let precise = self.hosts.iter().map(|(host, routes)| (host.clone(), routes));
        let wild = self
            .wildcards
            .iter()
            .map(|(host, routes)| (format!("*.{host}"), routes));
        let any = std::iter::once(("*".to_owned(), &self.any_host));
        let all = precise.chain(wild).chain(any);
        all.flat_map(|(host, routes)| routes.iter().map(move |r| (host.clone(), r)))
    }

    /// The backend for everything that no route takes.
    pub fn default_backend(&self) -> Option<&Backend> {
        self.default.as_ref().map(|route| &*route.backend)
    }

    /// All routes of all hosts.
    pub fn route_count(&self) -> usize {
        let lists = self.hosts.values().chain(self.wildcards.values());
        lists.map(Vec::len).sum::<usize>() + self.any_host.len()
    }

    /// Every address that some route leads to.
    pub fn endpoints(&self) -> BTreeSet<SocketAddr> {
        let lists = self.hosts.values().chain(self.wildcards.values());
        let routes = lists.chain([&self.any_host]).flatten();
        let backends = routes.chain(&self.default).map(|r| &r.backend);
        backends.flat_map(|b| b.endpoints.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests;
