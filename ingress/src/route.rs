//! The table of routes and how a request finds its way in it. Pure; [`build`] makes the table from objects of the API.
//!
//! S1 to S30 are rules of the comments in kubernetes/api networking/v1/types.go and discovery/v1/types.go, and of experience with other
//! proxies; the README of this crate lists them with their tests.

mod build;
mod class;
mod compile;
mod endpoints;
mod explain;
mod host;
mod last_good;
mod options;
pub mod pattern;
mod remark;
mod table;

pub use build::{Builder, Objects};
pub use class::{CLASS_ANNOTATION, DEFAULT_CLASS};
pub use explain::Explanation;
pub use host::host_of;
pub use last_good::LastGood;
#[cfg(test)]
pub use options::CONTROLLER;
pub use options::Options;
pub use remark::{Reason, Remark, Severity};

pub use crate::balance::Backend;
use crate::events::Note;
use crate::policy::{Canary, Policy};
use crate::tls::Table as TlsTable;
use crate::traffic::Slot;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use table::Table;

/// Everything a request needs; replaced as a whole.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Precise hosts, lower case.
    hosts: HashMap<Box<str>, Table>,
    /// What stands behind `*.`.
    wildcards: HashMap<Box<str>, Table>,
    /// Rules without a host.
    any_host: Option<Table>,
    default: Option<Arc<Route>>,
    /// What lost against an older object, or could not be used; for people.
    pub remarks: Vec<Remark>,
    /// Every Ingress that is ours.
    pub ours: Vec<Ours>,
    /// Certificates of `spec.tls` (S18), oldest Ingress first; only for hosts that its namespace owns.
    pub certificates: Vec<CertificateUse>,
    /// Certificates by host, made of `certificates` and the Secrets that are there.
    pub tls: Arc<TlsTable>,
    /// Every Secret that an Ingress of ours names and may name, as namespace and name.
    pub wanted: BTreeSet<(String, String)>,
}

/// An Ingress that this proxy serves.
#[derive(Debug, PartialEq, Eq)]
pub struct Ours {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Tells it from an earlier one of the same name.
    pub uid: String,
}

/// One certificate that an Ingress asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateUse {
    /// Host, lower case, as in [`Host::name`]; empty for an item without hosts, which is the default certificate.
    pub host: String,
    /// Namespace of the Ingress and so of the Secret.
    pub namespace: String,
    /// The Secret; `None` serves the default certificate.
    pub secret: Option<String>,
    /// Name of the Ingress.
    pub ingress: String,
}

/// A host of the table.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// As written, lower case: `a.example.com` or `*.example.com`; empty for all hosts.
    pub name: Box<str>,
    /// Namespace of the oldest Ingress that names it, which owns it.
    pub namespace: Box<str>,
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
    pub path: String,
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
    pub fn matches(&self, path: &str) -> bool {
        match &self.pattern {
            Some(pattern) => pattern.is_match(path),
            None if self.exact => self.path == path,
            None => table::is_below(path, table::stem(&self.path)),
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

impl Snapshot {
    /// Returns the route of a request; its backend may have no endpoint. `host` is normalised by [`host_of`] and empty when the request
    /// has none; `path` is in the form of [`crate::path::canonical`].
    ///
    /// S5: a host that is known but has no such path does not fall through to a wildcard or to rules without host, only to the
    /// default backend.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        self.table(host)
            .and_then(|table| table.find(path))
            .or(self.default.as_ref())
    }

    /// Returns the entry of the table that a host falls under; for its owner and whether it has TLS.
    pub fn host(&self, host: &str) -> Option<&Arc<Host>> {
        self.table(host).map(|table| &table.host)
    }

    /// The namespace that a host belongs to; `None` when no rule has it.
    pub fn owner(&self, host: &str) -> Option<&str> {
        let host = self.host(host).filter(|host| !host.name.is_empty());
        host.map(|host| &*host.namespace)
    }

    /// The routes among which a request for this host finds its own.
    pub fn routes_of(&self, host: &str) -> &[Arc<Route>] {
        let default = || self.default.as_slice();
        self.table(host).map_or_else(default, |table| &table.routes)
    }

    fn table(&self, host: &str) -> Option<&Table> {
        let wildcard = || match host.split_once('.') {
            Some((label, parent)) if !label.is_empty() => self.wildcards.get(parent),
            _ => None,
        };
        self.hosts.get(host).or_else(wildcard).or(self.any_host.as_ref())
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        self.hosts.values().chain(self.wildcards.values()).chain(&self.any_host)
    }

    /// Every route, by host and then in order of precedence; for people.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        let mut tables: Vec<&Table> = self.tables().collect();
        // Rules without a host come last.
        tables.sort_by_key(|table| (table.host.name.is_empty(), &table.host.name));
        tables.into_iter().flat_map(|table| table.routes.iter())
    }

    /// The route for everything that no other takes.
    pub fn default_route(&self) -> Option<&Arc<Route>> {
        self.default.as_ref()
    }

    /// All routes of all hosts.
    pub fn route_count(&self) -> usize {
        self.tables().map(|table| table.routes.len()).sum()
    }

    /// What people should know of their objects, for Events.
    pub fn notes(&self) -> impl Iterator<Item = Note> {
        let key = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        let named = self.ours.iter().map(|i| (key(&i.namespace, &i.name), i.uid.clone()));
        // Most of the time there are none, and then nothing is looked up.
        let uids: HashMap<_, _> = named.take_while(|_| !self.remarks.is_empty()).collect();
        self.remarks.iter().map(move |remark| Note {
            kind: remark.kind.clone(),
            uid: uids
                .get(&key(&remark.namespace, &remark.name))
                .cloned()
                .unwrap_or_default(),
            namespace: remark.namespace.clone(),
            name: remark.name.clone(),
            reason: format!("{:?}", remark.reason),
            text: remark.text.clone(),
            warning: remark.severity != Severity::Note,
        })
    }

    /// Every address that some route leads to.
    pub fn endpoints(&self) -> BTreeSet<SocketAddr> {
        let routes = self.tables().flat_map(|table| table.routes.iter()).chain(&self.default);
        let backends = routes.flat_map(|route| {
            let others = route.alternatives.iter().map(|a| &a.backend);
            let extra = [&route.fallback, &route.auth, &route.mirror].into_iter().flatten();
            std::iter::once(&route.backend).chain(others).chain(extra)
        });
        let all = backends.map(|backend| backend.endpoints());
        all.flat_map(|set| set.all().map(|e| e.address).collect::<Vec<_>>())
            .collect()
    }
}

#[cfg(test)]
mod tests;
