//! Objects of the API to a [`Snapshot`]. Pure: the same objects give the same table, in whatever order they come.
//!
//! First each Ingress is compiled alone; then, oldest first, hosts find their owners, routes their hosts, and alternatives their routes.

use super::class::Classes;
use super::compile::{Compiled, Path};
use super::endpoints::Resolver;
use super::last_good::{LastGood, Versions};
use super::remark::{Reason, Remark, Severity};
use super::table::{Table, order};
use super::{Alternative, CertificateUse, Host, Options, Ours, Route, Snapshot};
#[cfg(test)]
use crate::annotations::NoSecrets;
use crate::annotations::{Secrets, named_secrets, target};
use crate::balance::Backend;
use crate::policy::{Policy, Redirect};
use crate::services::Services;
use hyper::StatusCode;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Objects as the API has them.
#[derive(Debug, Default)]
pub struct Objects {
    /// All Ingresses.
    pub ingresses: Vec<Arc<Ingress>>,
    /// All classes.
    pub classes: Vec<Arc<IngressClass>>,
    /// All Services with their endpoints. They change beside the table, which only shares their backends.
    pub services: Arc<Services>,
}

/// Makes one table after another; keeps what was compiled, and the last good version of each Ingress.
#[derive(Debug, Default)]
pub struct Builder {
    options: Options,
    versions: Versions,
}

impl Builder {
    /// Starts with nothing.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            versions: Versions::default(),
        }
    }

    /// Starts with the good versions that another process kept.
    pub fn with_last_good(mut self, last: LastGood) -> Self {
        self.versions = Versions::with(last);
        self
    }

    /// Returns good versions whose newest one is bad, for the next process.
    pub fn last_good(&self) -> LastGood {
        self.versions.last_good()
    }

    /// Builds the table. Order among equal paths (S4): oldest Ingress first, then namespace and name.
    pub fn build(&mut self, objects: &Objects, secrets: &dyn Secrets) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let classes = Classes::find(&objects.classes, &self.options, &mut snapshot.remarks);
        let mut ours: Vec<&Arc<Ingress>> = objects.ingresses.iter().filter(|i| classes.have(i)).collect();
        ours.sort_by(|a, b| age(a).cmp(&age(b)));
        self.versions.keep(&ours);
        let compiled: Vec<Arc<Compiled>> = ours
            .iter()
            .map(|ingress| self.versions.compile(ingress, secrets, &self.options))
            .collect();
        for ingress in &ours {
            snapshot.ours.push(Ours::of(ingress));
            let named = named_secrets(ingress, &self.options);
            snapshot.wanted.extend(named.into_iter().map(|s| (s.namespace, s.name)));
        }
        let mut assembly = Assembly {
            resolver: Resolver::new(&objects.services, &self.options),
            options: &self.options,
            owners: BTreeMap::new(),
            named: BTreeSet::new(),
            routes: BTreeMap::new(),
            snapshot,
        };
        assembly.own(&compiled);
        for ingress in &compiled {
            assembly.add(ingress);
        }
        for ingress in &compiled {
            assembly.attach(ingress);
        }
        for ingress in &compiled {
            assembly.redirect_www(ingress);
        }
        assembly.finish()
    }
}

#[cfg(test)]
impl Snapshot {
    /// Builds one table of classes of this name, without memory of earlier ones and without Secrets.
    pub fn build(objects: &Objects, class: &str) -> Self {
        let options = Options {
            class: Some(class.to_owned()),
            ..Options::default()
        };
        Builder::new(options).build(objects, &NoSecrets)
    }
}

/// Orders Ingresses by age, then by namespace and name.
fn age(ingress: &Ingress) -> impl Ord + '_ {
    let meta = &ingress.metadata;
    (
        meta.creation_timestamp.as_ref(),
        meta.namespace.as_deref(),
        meta.name.as_deref(),
    )
}

impl Ours {
    fn of(ingress: &Ingress) -> Self {
        Self {
            namespace: ingress.metadata.namespace.clone().unwrap_or_default(),
            name: ingress.metadata.name.clone().unwrap_or_default(),
            uid: ingress.metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// A route before its host is known to have TLS.
type Draft = (Route, Arc<Compiled>);

struct Assembly<'a> {
    resolver: Resolver<'a>,
    options: &'a Options,
    /// Host to the namespace that owns it.
    owners: BTreeMap<String, Arc<str>>,
    /// Hosts that a rule names; aliases do not get them.
    named: BTreeSet<String>,
    routes: BTreeMap<String, Vec<Draft>>,
    snapshot: Snapshot,
}

impl Assembly<'_> {
    /// Gives each host to the namespace of the oldest Ingress that names it in a rule; aliases take what is left.
    fn own(&mut self, all: &[Arc<Compiled>]) {
        let main = || all.iter().filter(|ingress| ingress.canary.is_none());
        for ingress in main() {
            for rule in &ingress.rules {
                let owner = || Arc::clone(&ingress.namespace);
                self.owners.entry(rule.host.clone()).or_insert_with(owner);
            }
        }
        self.named = self.owners.keys().cloned().collect();
        for ingress in main() {
            for alias in ingress.aliases.iter().filter(|alias| !self.named.contains(*alias)) {
                let owner = || Arc::clone(&ingress.namespace);
                self.owners.entry(alias.clone()).or_insert_with(owner);
            }
        }
    }

    /// Whether an Ingress may have routes for a host.
    fn may_have(&self, ingress: &Compiled, host: &str) -> bool {
        let owner = self.owners.get(host);
        self.options.merge_hosts || owner.is_none_or(|owner| *owner == ingress.namespace)
    }

    fn remark(&mut self, ingress: &Compiled, severity: Severity, reason: Reason, host: &str, text: String) {
        let remark = Remark::ingress(&ingress.namespace, &ingress.name, severity, reason, text);
        self.snapshot.remarks.push(remark.on(host));
    }

    fn add(&mut self, ingress: &Arc<Compiled>) {
        self.snapshot.remarks.extend(ingress.remarks.iter().cloned());
        if ingress.canary.is_some() {
            return;
        }
        self.set_default(ingress);
        let mut lost = BTreeSet::new();
        for rule in &ingress.rules {
            let host = &rule.host;
            if !self.may_have(ingress, host) {
                lost.insert(host.clone());
                continue;
            }
            // A rule without paths still claims its host: its requests go to the default backend (S7).
            self.routes.entry(host.clone()).or_default();
            for path in &rule.paths {
                self.add_path(ingress, host, path);
            }
        }
        for alias in &ingress.aliases {
            self.add_alias(ingress, alias);
        }
        for host in lost {
            let owner = self.owners.get(&host).map(ToString::to_string).unwrap_or_default();
            let text = format!(
                "host {} belongs to namespace {owner}, which named it first",
                shown(&host)
            );
            self.remark(ingress, Severity::Refused, Reason::HostTaken, &host, text);
        }
        for (host, secret) in &ingress.tls {
            if self.may_have(ingress, host) {
                self.snapshot.certificates.push(CertificateUse {
                    host: host.clone(),
                    namespace: ingress.namespace.to_string(),
                    secret: secret.clone(),
                    ingress: ingress.name.to_string(),
                });
            } else if !ingress.rules.iter().any(|rule| rule.host == *host) {
                let text = format!("tls: host {} belongs to another namespace", shown(host));
                self.remark(ingress, Severity::Refused, Reason::HostTaken, host, text);
            }
        }
    }

    fn add_path(&mut self, ingress: &Arc<Compiled>, host: &str, path: &Path) {
        let backend = self
            .resolver
            .backend(ingress, &path.backend, &mut self.snapshot.remarks);
        let policy = Arc::clone(&path.policy);
        let route = Route {
            exact: path.exact,
            pattern: path.pattern.clone(),
            path: path.path.clone(),
            ..self.route(ingress, backend, policy)
        };
        self.routes
            .entry(host.to_owned())
            .or_default()
            .push((route, Arc::clone(ingress)));
    }

    /// Repeats the rules of an Ingress for another host that nobody names.
    fn add_alias(&mut self, ingress: &Arc<Compiled>, alias: &str) {
        let owner = self.owners.get(alias);
        if self.named.contains(alias) || owner.is_none_or(|owner| *owner != ingress.namespace) {
            let text = format!("server-alias: host {alias} is named by another Ingress");
            self.remark(ingress, Severity::Refused, Reason::HostTaken, alias, text);
            return;
        }
        for path in ingress.rules.iter().flat_map(|rule| &rule.paths) {
            self.add_path(ingress, alias, path);
        }
    }

    fn set_default(&mut self, ingress: &Arc<Compiled>) {
        let Some(backend) = &ingress.default else { return };
        if self.snapshot.default.is_some() {
            let text = "an older Ingress has the default backend".to_owned();
            let (namespace, name) = (&ingress.namespace, &ingress.name);
            let remark = Remark::ingress(namespace, name, Severity::Refused, Reason::DefaultTaken, text);
            self.snapshot.remarks.push(remark);
            return;
        }
        let backend = self.resolver.backend(ingress, backend, &mut self.snapshot.remarks);
        let route = self.route(ingress, backend, Arc::clone(&ingress.policy));
        self.snapshot.default = Some(Arc::new(route));
    }

    /// What all routes of an Ingress have alike.
    fn route(&mut self, ingress: &Arc<Compiled>, backend: Arc<Backend>, policy: Arc<Policy>) -> Route {
        let remarks = &mut self.snapshot.remarks;
        let fallback = ingress
            .fallback
            .as_ref()
            .map(|name| self.resolver.first_port(ingress, name, remarks));
        let auth = policy.external_auth.as_ref().map(|auth| &auth.target.place);
        let auth = auth.and_then(|place| self.resolver.place(ingress, place, remarks));
        let mirror = policy.mirror.as_ref().map(|mirror| &mirror.place.place);
        let mirror = mirror.and_then(|place| self.resolver.place(ingress, place, remarks));
        Route {
            backend,
            ingress: Arc::clone(&ingress.label),
            policy,
            fallback,
            auth,
            mirror,
            ..Route::default()
        }
    }

    /// Gives alternatives to the routes of the same host, path and namespace.
    fn attach(&mut self, ingress: &Arc<Compiled>) {
        let Some(canary) = &ingress.canary else { return };
        for rule in &ingress.rules {
            for path in &rule.paths {
                let backend = self
                    .resolver
                    .backend(ingress, &path.backend, &mut self.snapshot.remarks);
                let routes = self.routes.get_mut(&rule.host).into_iter().flatten();
                let mut alike = routes.filter(|(route, of)| {
                    let same = route.exact == path.exact && route.path == path.path;
                    same && of.namespace == ingress.namespace
                });
                // The first is the oldest, which is the one that stays.
                match alike.next() {
                    Some((route, _)) => route.alternatives.push(Alternative {
                        ingress: Arc::clone(&ingress.label),
                        backend,
                        canary: Arc::clone(canary),
                    }),
                    None => {
                        let text = format!("canary: no other Ingress has path {} of this host", path.path);
                        self.remark(ingress, Severity::Refused, Reason::CanaryAlone, &rule.host, text);
                    }
                }
            }
        }
    }

    /// Makes a host of the other name, with one route that redirects, when nobody has that host.
    fn redirect_www(&mut self, ingress: &Arc<Compiled>) {
        if !ingress.policy.redirects.www || ingress.canary.is_some() {
            return;
        }
        for rule in ingress
            .rules
            .iter()
            .filter(|rule| !rule.host.is_empty() && !rule.host.starts_with("*."))
        {
            let host = &rule.host;
            let other = host
                .strip_prefix("www.")
                .map_or_else(|| format!("www.{host}"), str::to_owned);
            if !self.may_have(ingress, host) || self.owners.contains_key(&other) {
                continue;
            }
            self.owners.insert(other.clone(), Arc::clone(&ingress.namespace));
            let mut policy = Policy::clone(&ingress.policy);
            policy.redirects.to = Some(Redirect {
                status: StatusCode::PERMANENT_REDIRECT,
                location: format!("$scheme://{host}$request_uri"),
            });
            let backend = Arc::new(Backend::new(format!("(redirect to {host})")));
            let route = Route {
                path: "/".to_owned(),
                backend,
                ingress: Arc::clone(&ingress.label),
                policy: Arc::new(policy),
                ..Route::default()
            };
            self.routes.entry(other).or_default().push((route, Arc::clone(ingress)));
        }
    }

    fn finish(mut self) -> Snapshot {
        let general = self.snapshot.default.as_ref().map(|route| Arc::clone(&route.backend));
        let uses = self.snapshot.certificates.iter();
        let certain: BTreeMap<String, String> = uses.map(|c| (c.host.clone(), c.namespace.clone())).collect();
        for (name, mut drafts) in std::mem::take(&mut self.routes) {
            let parent = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
            // A wildcard's certificate is not for a host of another namespace below it.
            let owner = self.owners.get(&name);
            let covered = || {
                certain
                    .get(parent.as_ref()?)
                    .filter(|of| owner.is_none_or(|owner| **owner == **of))
            };
            let host = Arc::new(Host {
                name: name.as_str().into(),
                namespace: self.owners.get(&name).map(|owner| &**owner).unwrap_or_default().into(),
                tls: !name.is_empty() && (certain.contains_key(&name) || covered().is_some()),
            });
            for (route, _) in &mut drafts {
                // Replaced answers come from the cluster's default backend when the Ingress names none, as in ingress-nginx.
                if route.fallback.is_none() && !route.policy.replaced_statuses.is_empty() {
                    route.fallback.clone_from(&general);
                }
            }
            let routes = self.distinct(&host, drafts);
            let table = Table::new(host, routes);
            match name.strip_prefix("*.") {
                _ if name.is_empty() => self.snapshot.any_host = Some(table),
                Some(parent) => drop(self.snapshot.wildcards.insert(parent.into(), table)),
                None => drop(self.snapshot.hosts.insert(name.into(), table)),
            }
        }
        self.snapshot
    }

    /// S4: in order of precedence; of equal paths the oldest Ingress keeps the one it named first.
    fn distinct(&mut self, host: &Arc<Host>, drafts: Vec<Draft>) -> Vec<Arc<Route>> {
        let mut seen: BTreeMap<(String, bool, bool), Arc<str>> = BTreeMap::new();
        let mut routes = Vec::with_capacity(drafts.len());
        for (mut route, ingress) in drafts {
            let key = (route.path.clone(), route.exact, route.pattern.is_some());
            if let Some(owner) = seen.get(&key) {
                let text = match **owner == *ingress.label {
                    true => format!("path {} stands twice for one host; the first counts", route.path),
                    false => format!("path {} belongs to an older Ingress, {owner}", route.path),
                };
                self.remark(&ingress, Severity::Refused, Reason::PathTaken, &host.name, text);
                continue;
            }
            seen.insert(key, Arc::clone(&ingress.label));
            route.host = Arc::clone(host);
            routes.push(Arc::new(route));
        }
        order(&mut routes);
        routes
    }
}

fn shown(host: &str) -> &str {
    if host.is_empty() { "(all)" } else { host }
}

impl Resolver<'_> {
    /// The Service of a place that an annotation names; none for an address.
    fn place(&self, ingress: &Compiled, place: &target::Place, remarks: &mut Vec<Remark>) -> Option<Arc<Backend>> {
        match place {
            target::Place::Service { namespace, name, port } => {
                Some(self.numbered(ingress, namespace, name, *port, remarks))
            }
            target::Place::Address(_) | target::Place::OwnHost => None,
        }
    }
}
