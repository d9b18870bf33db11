//! The table of one moment. What one and the next have in common they share; see [`super::shared`].

use super::kept::{Kept, Served};
use super::shared::Shared;
use super::table::Table;
use super::virtual_host::VirtualHost;
use super::{Host, Ingress, Reason, Remark, Route, Severity};
use crate::events::Note;
use crate::secrets::{Name, Wanted};
use crate::tls::Held;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// Everything a request needs; replaced as a whole.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    pub(super) hosts: Shared<VirtualHost>,
    /// By what stands behind `*.`.
    pub(super) wildcards: Shared<VirtualHost>,
    /// Rules without a host.
    pub(super) any_host: Option<Arc<VirtualHost>>,
    /// The default backend of hosts that no Ingress names: of the oldest Ingress without rules.
    pub(super) default: Option<Arc<Route>>,
    /// The same of each namespace, for its own hosts.
    pub(super) defaults: Arc<BTreeMap<Arc<str>, Arc<Route>>>,
    /// The certificate of hosts that have none, when one was named.
    pub(super) default_certificate: Option<Arc<Held>>,
    pub(super) ingresses: Shared<Kept>,
    pub(super) ours: usize,
    pub(super) route_count: usize,
    /// What is to be said of classes, of the default backend and of the default certificate.
    pub(super) general_remarks: [Arc<[Remark]>; 3],
    /// Every Secret that an Ingress of ours, or the operator, names and may name.
    pub wanted: Arc<Wanted>,
}

impl Snapshot {
    /// Returns the route of a request; its backend may have no endpoint. `host` is normalised by [`super::host_of`] and empty when the
    /// request has none; `path` is in the form of [`landfall_ingress_http::path::canonical`].
    ///
    /// S5: a host that is known but has no such path does not fall through to a wildcard or to rules without host, only to the
    /// default backend of an Ingress that names it, or of one without rules in the namespace that owns it (S8).
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
    pub fn host(&self, host: &str) -> Option<&Arc<Host>> {
        self.routed(host).map(|(host, _)| host)
    }

    /// The namespace that a host belongs to; `None` when no rule has it.
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
    pub(super) fn routed(&self, host: &str) -> Option<(&Arc<Host>, &Table)> {
        let entry = self.entry(host)?;
        entry.table.as_ref().map(|table| (&entry.host, table))
    }

    pub(super) fn entry(&self, host: &str) -> Option<&VirtualHost> {
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

    /// The routes of all default backends without rules, by namespace; [`Snapshot::default_route`] is one of them.
    pub fn default_routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.defaults.values()
    }

    /// All routes of all hosts.
    pub fn route_count(&self) -> usize {
        self.route_count
    }

    /// Every Ingress that is ours, in no order.
    pub fn ours(&self) -> impl Iterator<Item = &Arc<Ingress>> {
        let ours = self.ingresses.values().filter(|kept| kept.served.is_some());
        ours.map(|kept| &kept.newest)
    }

    /// How many these are.
    pub fn ours_count(&self) -> usize {
        self.ours
    }

    /// What a host has by its own name, or by a wildcard's. A wildcard's certificate is not for a host of another namespace below it.
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

    /// What lost against an older object, or could not be used; for people: by object, each remark once.
    pub fn remarks(&self) -> Vec<Cow<'_, Remark>> {
        let general = self.general_remarks.iter().flat_map(|remarks| remarks.iter());
        let served = self.ingresses.values().filter_map(|kept| kept.served.as_ref());
        let own = served.flat_map(|served| &served.remarks);
        let hosts = self.entries().flat_map(|entry| &entry.remarks);
        let written = general.chain(own).chain(hosts).map(Cow::Borrowed);
        let mut all: Vec<_> = written.chain(self.overtaken().map(Cow::Owned)).collect();
        all.sort_unstable_by(|a, b| {
            let object = (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name));
            object.then_with(|| a.cmp(b))
        });
        all.dedup();
        all
    }

    /// Younger Ingresses with what the whole proxy has once. Worked out when asked for: who is first says it of all others.
    fn overtaken(&self) -> impl Iterator<Item = Remark> {
        let first = self.default.as_ref().map(|route| &route.ingress);
        let held = self
            .default_certificate
            .as_deref()
            .filter(|held| held.certificate.is_some());
        let holder = held.and_then(|held| Some((held, self.served(&held.ingress)?)));
        let served = self.ingresses.values().filter_map(|kept| kept.served.as_ref());
        let main = served.filter(|served| !served.is_canary());
        main.flat_map(move |served| {
            let version = &served.version;
            let said = |severity, reason, text: String| {
                Remark::ingress(&version.namespace, version.name(), severity, reason, text)
            };
            let mut all = vec![];
            if served.has_general_default() && first != Some(&version.label) {
                let of_namespace = self.defaults.get(&version.namespace);
                let taken = of_namespace.is_none_or(|route| route.ingress != version.label);
                let (severity, text) = match taken {
                    true => (Severity::Refused, "an older Ingress has the default backend"),
                    false => (
                        Severity::Approximated,
                        "an older Ingress has the default backend of hosts that no Ingress names; this one is for hosts of its namespace alone",
                    ),
                };
                all.push(said(severity, Reason::DefaultTaken, text.to_owned()));
            }
            let later = holder.filter(|(_, holder)| holder.version.age() < version.age());
            let other = |held: &Held| {
                let mut names = version
                    .tls
                    .iter()
                    .filter(|item| item.hosts.is_empty())
                    .filter_map(|item| item.secret.as_deref());
                names.any(|name| Name::new(&version.namespace, name) != held.secret)
            };
            if let Some((held, _)) = later.filter(|(held, _)| other(held)) {
                let text = format!("{}, which is older, has the default certificate", held.ingress);
                all.push(said(Severity::Note, Reason::Certificate, text));
            }
            all
        })
    }

    fn served(&self, label: &str) -> Option<&Served> {
        self.ingresses.get(label)?.served.as_ref()
    }

    /// What is to be said of one host.
    pub(super) fn remarks_on(&self, host: &str) -> Vec<Remark> {
        let all = self.remarks().into_iter();
        let about = all.filter(|remark| remark.host.as_deref() == Some(host));
        about.map(Cow::into_owned).collect()
    }

    /// What people should know of their objects, for Events.
    pub fn notes(&self) -> impl Iterator<Item = Note> {
        self.remarks().into_iter().map(|remark| {
            let label = format!("{}/{}", remark.namespace, remark.name);
            let about = self.ingresses.get(&label).filter(|_| remark.kind == "Ingress");
            let remark = remark.into_owned();
            Note {
                uid: about.map(|kept| kept.newest.uid.to_string()).unwrap_or_default(),
                kind: remark.kind,
                namespace: remark.namespace,
                name: remark.name,
                reason: format!("{:?}", remark.reason),
                text: remark.text,
                warning: remark.severity != Severity::Note,
            }
        })
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
