//! The table of one moment. What one and the next have in common they share; see [`crate::shared`].

use crate::certificate::Held;
use crate::route::{Host, Route};
use crate::shared::Shared;
use crate::table::Table;
use crate::virtual_host::{VirtualHost, key};
use landfall_ingress_tls::certificate::Certificate;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// Everything a request needs; replaced as a whole. A copy shares all that does not change.
#[derive(Debug, Default, Clone)]
pub struct RouteTable {
    hosts: Shared<VirtualHost>,
    /// By what stands behind `*.`.
    wildcards: Shared<VirtualHost>,
    /// Rules without a host.
    any_host: Option<Arc<VirtualHost>>,
    /// The default backend of hosts that no Ingress names: of the oldest Ingress without rules.
    default: Option<Arc<Route>>,
    /// The same of each namespace, for its own hosts.
    defaults: Arc<BTreeMap<Arc<str>, Arc<Route>>>,
    /// The certificate of hosts that have none, when one was named.
    default_certificate: Option<Arc<Held>>,
    route_count: usize,
}

impl RouteTable {
    /// Returns the route of a request; its backend may have no endpoint. `host` is normalised by [`landfall_ingress_http::host::host_of`] and empty when the
    /// request has none; `path` is in the form of [`landfall_ingress_http::path::canonical`].
    ///
    /// S5: a host that is known but has no such path does not fall through to a wildcard or to rules without host, only to the
    /// default backend of an Ingress that names it, or of one without rules in the namespace that owns it (S8).
    #[inline]
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        let entry = self.entry(host);
        let found = entry.and_then(|entry| entry.find(path));
        found.or_else(|| self.general_of(entry))
    }

    /// The default backend without rules for what no rule of a host takes. Anybody may have the oldest: that one is for hosts that no
    /// Ingress names.
    fn general_of(&self, entry: Option<&VirtualHost>) -> Option<&Arc<Route>> {
        match entry.filter(|entry| !entry.name.is_empty()) {
            Some(entry) => self.defaults.get(&entry.host.namespace),
            None => self.default.as_ref(),
        }
    }

    /// Returns the entry of the table that a host falls under; for its owner and whether it has TLS.
    #[inline]
    pub fn host(&self, host: &str) -> Option<&Arc<Host>> {
        self.routed(host).map(|(host, _)| host)
    }

    /// The namespace that a host belongs to; `None` when no rule has it.
    #[inline]
    pub fn owner(&self, host: &str) -> Option<&str> {
        let host = self.host(host).filter(|host| !host.name.is_empty());
        host.map(|host| &*host.namespace)
    }

    /// The routes among which a request for this host finds its own.
    pub fn routes_of(&self, host: &str) -> impl Iterator<Item = &Arc<Route>> {
        let entry = self.entry(host);
        let routes = entry.into_iter().flat_map(VirtualHost::routes);
        routes.chain(self.general_of(entry))
    }

    /// The entry that a host falls under, with its routes.
    pub(crate) fn routed(&self, host: &str) -> Option<(&Arc<Host>, &Table)> {
        let entry = self.entry(host)?;
        entry.table.as_ref().map(|table| (&entry.host, table))
    }

    #[inline]
    pub(crate) fn entry(&self, host: &str) -> Option<&VirtualHost> {
        let routed = |entry: &&Arc<VirtualHost>| entry.is_routed();
        let wildcard = || match host.split_once('.') {
            Some((label, parent)) if !label.is_empty() => self.wildcards.get(parent).filter(routed),
            _ => None,
        };
        let precise = self.hosts.get(host).filter(routed);
        let found = precise
            .or_else(wildcard)
            .or_else(|| self.any_host.as_ref().filter(routed));
        found.map(|entry| &**entry)
    }

    fn entries(&self) -> impl Iterator<Item = &Arc<VirtualHost>> {
        let named = self.hosts.values().chain(self.wildcards.values());
        named.chain(&self.any_host)
    }

    fn all_routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.entries().flat_map(|entry| entry.routes())
    }

    /// Every route, by host and then in order of precedence; for people.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        let mut entries: Vec<_> = self.entries().collect();
        // Rules without a host come last.
        entries.sort_unstable_by_key(|entry| (entry.host.name.is_empty(), &entry.host.name));
        entries.into_iter().flat_map(|entry| entry.routes())
    }

    /// The route for hosts that no Ingress names.
    pub fn default_route(&self) -> Option<&Arc<Route>> {
        self.default.as_ref()
    }

    /// The routes of all default backends without rules, by namespace; [`RouteTable::default_route`] is one of them.
    pub fn default_routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.defaults.values()
    }

    /// All routes of all hosts.
    pub fn route_count(&self) -> usize {
        self.route_count
    }

    /// What a host has by its own name, or by a wildcard's. A wildcard's certificate is not for a host of another namespace below it.
    #[inline]
    pub fn held(&self, host: &str) -> Option<&Held> {
        let own = self.hosts.get(host).and_then(|entry| entry.held.as_deref());
        if own.is_some() {
            return own;
        }
        let (label, parent) = host.split_once('.')?;
        if label.is_empty() {
            return None;
        }
        let held = self.wildcards.get(parent)?.held.as_deref()?;
        let fits = self.owner(host).is_none_or(|owner| *owner == *held.namespace);
        fits.then_some(held)
    }

    /// The certificate for hosts that have none, if one was named.
    pub fn default_certificate(&self) -> Option<&Held> {
        self.default_certificate.as_deref()
    }

    /// Every host that has TLS by its own name, as in [`Host::name`], in no order.
    pub fn certificates(&self) -> impl Iterator<Item = (&str, &Held)> {
        self.entries()
            .filter_map(|entry| Some((&*entry.host.name, entry.held.as_deref()?)))
    }

    /// The certificate for a server name: the host's own, a wildcard's, or the one for hosts without; `None` when that is the
    /// self-signed one. The name is empty when the client sent none.
    #[inline]
    pub fn certificate(&self, server_name: &str) -> Option<&Arc<Certificate>> {
        let own = self.held(server_name).and_then(|held| held.certificate.as_ref());
        own.or_else(|| self.default_certificate()?.certificate.as_ref())
    }

    /// Whether two hosts have the same certificate.
    pub fn same_certificate(&self, one: &str, other: &str) -> bool {
        match (self.certificate(one), self.certificate(other)) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }

    /// Every address that some route leads to.
    pub fn endpoints(&self) -> BTreeSet<SocketAddr> {
        let backends = self.all_routes().chain(self.default_routes()).flat_map(|route| {
            let others = route.alternatives.iter().map(|a| &a.backend);
            let extra = [&route.fallback, &route.auth, &route.mirror].into_iter().flatten();
            std::iter::once(&route.backend).chain(others).chain(extra)
        });
        let all = backends.map(|backend| backend.endpoints());
        all.flat_map(|set| set.all().map(|e| e.address).collect::<Vec<_>>())
            .collect()
    }
}

/// How a table is made.
impl RouteTable {
    /// Puts a host in place of what there was of it, which is returned.
    pub fn put(&mut self, host: VirtualHost) -> Option<Arc<VirtualHost>> {
        self.route_count += host.route_count();
        let host = Arc::new(host);
        let before = match &*host.name {
            "" => self.any_host.replace(host),
            name if name.starts_with("*.") => self.wildcards.put(host),
            _ => self.hosts.put(host),
        };
        self.count_out(before.as_deref());
        before
    }

    /// Takes a host away.
    pub fn remove(&mut self, name: &str) -> Option<Arc<VirtualHost>> {
        let before = match name {
            "" => self.any_host.take(),
            _ if name.starts_with("*.") => self.wildcards.remove(key(name)),
            _ => self.hosts.remove(key(name)),
        };
        self.count_out(before.as_deref());
        before
    }

    fn count_out(&mut self, before: Option<&VirtualHost>) {
        self.route_count -= before.map_or(0, VirtualHost::route_count);
    }

    pub(crate) fn precise(&self, host: &str) -> Option<&Arc<VirtualHost>> {
        self.hosts.get(host)
    }

    pub(crate) fn any_host(&self) -> Option<&Arc<VirtualHost>> {
        self.any_host.as_ref()
    }

    /// Precise hosts, in no order.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<VirtualHost>> {
        self.hosts.values()
    }

    /// The wildcard of this domain.
    pub fn wildcard(&self, domain: &str) -> Option<&Arc<VirtualHost>> {
        self.wildcards.get(domain)
    }

    /// The default backends without rules, by namespace.
    pub fn defaults(&self) -> &Arc<BTreeMap<Arc<str>, Arc<Route>>> {
        &self.defaults
    }

    /// Sets the default backends without rules; `first` is one of them.
    pub fn set_defaults(&mut self, first: Option<Arc<Route>>, all: BTreeMap<Arc<str>, Arc<Route>>) {
        self.default = first;
        self.defaults = Arc::new(all);
    }

    /// Sets the certificate of hosts that have none.
    pub fn set_default_certificate(&mut self, held: Option<Held>) {
        self.default_certificate = held.map(Arc::new);
    }
}
