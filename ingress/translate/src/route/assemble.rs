//! One host from all Ingresses that have to do with it. Pure: a host depends on them, on the Services and Secrets that they name, on who
//! owns the wildcard above it and on the cluster's default backend, and on nothing else.
//!
//! Oldest first the host finds its owner, routes find their place, and alternatives their routes.

use super::certificates::{self, TlsRequest};
use super::endpoints::{Resolver, remark};
use super::index::Index;
use super::kept::{Served, other_name};
use super::topic::Topic;
use crate::object::{Path, Rule};
use crate::remark::{Reason, Remark, Severity};
use crate::secrets::lookup::Secrets;
use http::StatusCode;
use landfall_ingress_balance::Backend;
use landfall_ingress_http::path::canonical;
use landfall_ingress_routing::policy::{Policy, Redirect};
use landfall_ingress_routing::target::Place;
use landfall_ingress_routing::{Alternative, Held, Host, Route, RouteTable, Table, VirtualHost, order};
use landfall_ingress_telemetry::traffic::Slot;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a host is made from.
pub(super) struct Assembly<'a> {
    pub(super) resolver: Resolver<'a>,
    pub(super) secrets: &'a dyn Secrets,
    pub(super) index: &'a Index,
    /// The table so far: wildcards above the host, and default backends.
    pub(super) table: &'a RouteTable,
}

/// Why somebody has a host.
#[derive(Clone, Copy)]
enum Owner<'a> {
    /// The oldest whose rules name it.
    Named(&'a Served),
    /// No rule names it; the oldest that has it as another name.
    Alias(&'a Served),
    /// Nobody names it; it redirects to this host of theirs.
    Redirect(&'a Served, &'a Arc<str>),
}

impl<'a> Owner<'a> {
    fn namespace(self) -> &'a Arc<str> {
        match self {
            Self::Named(of) | Self::Alias(of) | Self::Redirect(of, _) => of.namespace(),
        }
    }
}

/// A route that may yet lose against another.
type Draft<'a> = (Route, &'a Served);

impl<'a> Assembly<'a> {
    /// Makes a host, `None` when it has neither routes nor a certificate, and says what is to be said of it.
    pub(super) fn host(&self, name: &Arc<str>) -> (Option<VirtualHost>, Vec<Remark>) {
        let all = self.who(name);
        let owner = self.owner(name, &all);
        let mut remarks = vec![];
        let held = self.certificate(name, &all, owner, &mut remarks);
        let host = Arc::new(Host {
            name: Arc::clone(name),
            namespace: owner.map_or_else(|| "".into(), |owner| Arc::clone(owner.namespace())),
            tls: !name.is_empty() && (held.is_some() || self.is_covered(name, owner)),
        });
        let mut drafts = match owner {
            Some(owner) => self.drafts(&host, &all, owner, &mut remarks),
            None => vec![],
        };
        self.attach(&host, &all, &mut drafts, &mut remarks);
        let mut default = owner.and_then(|owner| self.default_of(&host, &all, owner, &mut remarks));
        for (route, served) in &mut drafts {
            // Replaced answers come from a default backend when the Ingress names none, as in ingress-nginx; never from another namespace's.
            if route.fallback.is_none() && !route.policy.replaced_statuses.is_empty() {
                let namespace = served.namespace();
                let own = default.as_ref().filter(|default| namespace_of(default) == &**namespace);
                let own = own.or_else(|| self.table.defaults().get(namespace).map(|route| &**route));
                route.fallback = own.map(|default| Arc::clone(&default.backend));
            }
        }
        let mut table = owner.map(|_| Table::new(distinct(drafts, &mut remarks)));
        if let Some(table) = &mut table {
            close_unanswered(table, default.as_mut(), &mut remarks);
        }
        let made = VirtualHost {
            table,
            default: default.map(Arc::new),
            held: held.map(Box::new),
            name: Arc::clone(name),
            host,
        };
        ((!made.is_void()).then_some(made), remarks)
    }

    /// All that have to do with a host, oldest first.
    fn who(&self, host: &str) -> Vec<&'a Served> {
        let kept = self.index.who(&Topic::Host(host));
        let mut all: Vec<_> = kept.filter_map(|kept| kept.served.as_ref()).collect();
        all.sort_by(|a, b| a.version.age().cmp(&b.version.age()));
        all
    }

    fn owner(&self, name: &Arc<str>, all: &[&'a Served]) -> Option<Owner<'a>> {
        let main = || main(all);
        let named = namer(name, all).map(Owner::Named);
        let alias = || main().find(|served| served.has_alias(name)).map(Owner::Alias);
        let redirect = || {
            main().find_map(|served| {
                let mut hosts = served.redirected();
                let to = hosts.find(|host| {
                    // Only whoever may have the one host may have the other.
                    other_name(host).as_deref() == Some(&**name) && self.may_have(served, namer(host, &self.who(host)))
                })?;
                Some(Owner::Redirect(served, to))
            })
        };
        named.or_else(alias).or_else(redirect)
    }

    /// Whether an Ingress may have routes for a host with this owner.
    fn may_have(&self, served: &Served, owner: Option<&Served>) -> bool {
        self.resolver.options.merge_hosts || owner.is_none_or(|owner| owner.namespace() == served.namespace())
    }

    /// The routes that ask for the host.
    fn drafts(
        &self,
        host: &Arc<Host>,
        all: &[&'a Served],
        owner: Owner<'a>,
        remarks: &mut Vec<Remark>,
    ) -> Vec<Draft<'a>> {
        let name = &host.name;
        let mut drafts = vec![];
        for served in main(all) {
            let mut draft = |rule: &'a Rule, remarks: &mut Vec<Remark>| {
                let made = rule
                    .paths
                    .iter()
                    .filter_map(|path| self.route(host, served, path, remarks));
                drafts.extend(made.map(|route| (route, served)));
            };
            let mut rules = served.rules(name).peekable();
            match owner {
                _ if rules.peek().is_none() => {}
                Owner::Named(owner) if !self.may_have(served, Some(owner)) => {
                    let text = format!(
                        "host {} belongs to namespace {}, which named it first",
                        shown(name),
                        owner.namespace()
                    );
                    refuse(served, Reason::HostTaken, name, text, remarks);
                }
                _ => rules.for_each(|rule| draft(rule, remarks)),
            }
            if !served.has_alias(name) {
                continue;
            }
            match owner {
                Owner::Alias(owner) if owner.namespace() == served.namespace() => {
                    let valid = served.version.rules.iter().filter(|rule| rule.host.valid);
                    valid.for_each(|rule| draft(rule, remarks));
                }
                _ => {
                    let text = format!("server-alias: host {name} is named by another Ingress");
                    refuse(served, Reason::HostTaken, name, text, remarks);
                }
            }
        }
        if let Owner::Redirect(served, to) = owner {
            drafts.push((redirect(host, served, to), served));
        }
        drafts
    }

    fn route(&self, host: &Arc<Host>, served: &Served, path: &Path, remarks: &mut Vec<Remark>) -> Option<Route> {
        let place = served.asked.path(path)?;
        let backend = self.resolver.backend(&served.version, &path.to, remarks);
        let bare = Route {
            exact: path.exact,
            pattern: place.pattern,
            path: place.path,
            host: Arc::clone(host),
            backend,
            ingress: Arc::clone(&served.version.label),
            policy: place.policy,
            alternatives: vec![],
            fallback: None,
            auth: None,
            mirror: None,
            traffic: Slot::default(),
        };
        Some(self.with_others(bare, served, remarks))
    }

    /// S8: for paths of the host that no rule has, the default backend of the oldest Ingress that names it and may have routes for it.
    fn default_of(
        &self,
        host: &Arc<Host>,
        all: &[&'a Served],
        owner: Owner<'a>,
        remarks: &mut Vec<Remark>,
    ) -> Option<Route> {
        let has_host = |served: &&Served| match owner {
            Owner::Named(of) => served.rules(&host.name).next().is_some() && self.may_have(served, Some(of)),
            Owner::Alias(of) => served.has_alias(&host.name) && served.namespace() == of.namespace(),
            Owner::Redirect(..) => false,
        };
        let mut all = main(all)
            .filter(|served| served.version.default.is_some())
            .filter(has_host);
        let first = all.next()?;
        for other in all {
            let text = format!(
                "an older Ingress, {}, has the default backend of this host",
                first.version.label
            );
            refuse(other, Reason::DefaultTaken, &host.name, text, remarks);
        }
        let mut route = self.default_route(first, remarks)?;
        route.host = Arc::clone(host);
        Some(route)
    }

    /// The default backend of an Ingress as a route.
    pub(super) fn default_route(&self, served: &Served, remarks: &mut Vec<Remark>) -> Option<Route> {
        let to = served.version.default.as_ref()?;
        let bare = Route {
            backend: self.resolver.backend(&served.version, to, remarks),
            ingress: Arc::clone(&served.version.label),
            policy: Arc::clone(&served.asked.policy),
            ..Route::default()
        };
        Some(self.with_others(bare, served, remarks))
    }

    /// Adds the other backends that all routes of an Ingress have.
    fn with_others(&self, mut route: Route, served: &Served, remarks: &mut Vec<Remark>) -> Route {
        let version = &served.version;
        let fallback = served.asked.fallback.as_deref();
        route.fallback = fallback.map(|name| self.resolver.first_port(version, name, remarks));
        let policy = Arc::clone(&route.policy);
        if let Some(auth) = &policy.external_auth {
            match self.resolver.admits(version, &auth.target.place) {
                Ok(()) => route.auth = self.resolver.place(version, &auth.target.place, remarks),
                Err(why) => {
                    let why = format!("auth-url: {why}");
                    remark(version, Reason::Closed, why.clone(), remarks);
                    Arc::make_mut(&mut route.policy).closed.get_or_insert(why);
                }
            }
        }
        if let Some(mirror) = &policy.mirror {
            match self.resolver.admits(version, &mirror.place.place) {
                Ok(()) => route.mirror = self.resolver.place(version, &mirror.place.place, remarks),
                // Nothing is mirrored then: a copy to a Service needs that Service's backend.
                Err(why) => remark(version, Reason::BadAnnotation, format!("mirror-target: {why}"), remarks),
            }
        }
        route
    }

    /// Gives alternatives to the routes of the same host, path and namespace.
    fn attach(&self, host: &Host, all: &[&'a Served], drafts: &mut [Draft<'a>], remarks: &mut Vec<Remark>) {
        for served in all {
            let Some(canary) = &served.asked.canary else { continue };
            for path in served.rules(&host.name).flat_map(|rule| &rule.paths) {
                let backend = self.resolver.backend(&served.version, &path.to, remarks);
                // What the path means is the other's word, as is all else that annotations say but for the choice.
                let alike = drafts.iter_mut().find(|(route, of)| {
                    let same = route.exact == path.exact && of.asked.means(path, route);
                    same && of.namespace() == served.namespace()
                });
                // The first is the oldest, which is the one that stays.
                match alike {
                    Some((route, _)) => route.alternatives.push(Alternative {
                        ingress: Arc::clone(&served.version.label),
                        backend,
                        canary: Arc::clone(canary),
                    }),
                    None => {
                        let text = format!("canary: no other Ingress has path {} of this host", path.path);
                        refuse(served, Reason::CanaryAlone, &host.name, text, remarks);
                    }
                }
            }
        }
    }

    /// The certificate that the host has by its own name.
    fn certificate(
        &self,
        name: &Arc<str>,
        all: &[&'a Served],
        owner: Option<Owner<'a>>,
        remarks: &mut Vec<Remark>,
    ) -> Option<Held> {
        if name.is_empty() {
            return None;
        }
        let mut tls_requests = vec![];
        for served in main(all).filter(|served| !served.version.tls.is_empty()) {
            let named = served.rules(name).next().is_some();
            for item in &served.version.tls {
                let secret = item.secret.as_deref();
                // S18: the default certificate is for the hosts of its own Ingress first.
                let meant = match item.hosts.is_empty() {
                    true => named,
                    false => item.hosts.iter().any(|host| host.valid && host.name == *name),
                };
                if !meant {
                    continue;
                }
                let merge = self.resolver.options.merge_hosts;
                if merge || owner.is_none_or(|owner| owner.namespace() == served.namespace()) {
                    tls_requests.push(TlsRequest {
                        host: name,
                        ingress: &served.version,
                        secret,
                    });
                } else if !named {
                    let text = format!("tls: host {} belongs to another namespace", shown(name));
                    refuse(served, Reason::HostTaken, name, text, remarks);
                }
            }
        }
        let above = || self.wildcard_of(name).filter(|above| above.table.is_some());
        let namespace = match owner {
            Some(owner) => Some(&**owner.namespace()),
            None => above().map(|above| &*above.host.namespace),
        };
        certificates::claim(&tls_requests, namespace, self.secrets, remarks)
    }

    /// Whether a wildcard's certificate is for this host too: it is not for hosts of another namespace.
    fn is_covered(&self, name: &str, owner: Option<Owner<'a>>) -> bool {
        let held = self.wildcard_of(name).and_then(|above| above.held.as_ref());
        held.is_some_and(|held| owner.is_none_or(|owner| *owner.namespace() == held.namespace))
    }

    /// The wildcard that a precise host stands below.
    fn wildcard_of(&self, name: &str) -> Option<&'a VirtualHost> {
        let (label, parent) = name.split_once('.')?;
        let precise = label != "*" && !label.is_empty();
        self.table.wildcard(parent).filter(|_| precise).map(|above| &**above)
    }
}

/// Those that have hosts of their own.
fn main<'s, 'a>(all: &'s [&'a Served]) -> impl Iterator<Item = &'a Served> + use<'s, 'a> {
    all.iter().copied().filter(|served| !served.is_canary())
}

/// The oldest whose rules name a host.
fn namer<'a>(host: &Arc<str>, all: &[&'a Served]) -> Option<&'a Served> {
    main(all).find(|served| served.rules(host).next().is_some())
}

fn namespace_of(route: &Route) -> &str {
    route.ingress.split('/').next().unwrap_or_default()
}

/// Closes routes whose `auth-url` leads back to their host, and there to themselves or to one that asks too: the application that is to be
/// protected would be asked about itself. What a variable leads to shows with each request (`proxy/src/policy/place.rs`).
fn close_unanswered(table: &mut Table, default: Option<&mut Route>, remarks: &mut Vec<Remark>) {
    let back = |route: &Route, default: Option<&Route>| {
        // Where everything is sent elsewhere, nobody is asked.
        let auth = route
            .policy
            .external_auth
            .as_ref()
            .filter(|_| route.policy.redirects.to.is_none())?;
        let path = auth.target.path.split('?').next()?;
        if !matches!(auth.target.place, Place::OwnHost) || path.contains('$') {
            return None;
        }
        let path = canonical(path).ok()?;
        let found = table.find(&path).map(|found| &**found).or(default)?;
        (!found.answers_for(route)).then(|| {
            format!(
                "auth-url: path {path} of the same host leads to a route that asks itself; the service needs a path of its own, in an Ingress without auth-url"
            )
        })
    };
    let whys: Vec<_> = table
        .routes()
        .iter()
        .map(|route| back(route, default.as_deref()))
        .collect();
    let why_default = default.as_deref().and_then(|route| back(route, Some(route)));
    // Nobody else has these routes yet.
    let routes = table.routes_mut().zip(whys);
    for (route, why) in routes.chain([(default, why_default)]) {
        let (Some(route), Some(why)) = (route, why) else {
            continue;
        };
        let (namespace, name) = route.ingress.split_once('/').unwrap_or_default();
        let text = format!("{why}; its routes answer 503");
        remarks.push(Remark::ingress(namespace, name, Severity::Refused, Reason::Closed, text).on(&route.host.name));
        Arc::make_mut(&mut route.policy).closed.get_or_insert(why);
    }
}

/// A route that sends everything to the other host.
fn redirect(host: &Arc<Host>, served: &Served, to: &str) -> Route {
    let mut policy = Policy::clone(&served.asked.policy);
    // The redirect is the answer: there is nothing that could be replaced.
    policy.replaced_statuses.clear();
    policy.redirects.to = Some(Redirect {
        status: StatusCode::PERMANENT_REDIRECT,
        location: format!("$scheme://{to}$request_uri"),
    });
    Route {
        path: "/".into(),
        host: Arc::clone(host),
        backend: Arc::new(Backend::new(format!("(redirect to {to})"))),
        ingress: Arc::clone(&served.version.label),
        policy: Arc::new(policy),
        ..Route::default()
    }
}

/// S4: in order of precedence; of equal paths the oldest Ingress keeps the one it named first.
fn distinct(drafts: Vec<Draft<'_>>, remarks: &mut Vec<Remark>) -> Vec<Arc<Route>> {
    // Most hosts have one route.
    if drafts.len() < 2 {
        return drafts.into_iter().map(|(route, _)| Arc::new(route)).collect();
    }
    let mut seen: BTreeMap<(Arc<str>, bool, bool), Arc<str>> = BTreeMap::new();
    let mut routes = Vec::with_capacity(drafts.len());
    for (route, served) in drafts {
        let key = (Arc::clone(&route.path), route.exact, route.pattern.is_some());
        if let Some(owner) = seen.get(&key) {
            let text = match *owner == route.ingress {
                true => format!("path {} stands twice for one host; the first counts", route.path),
                false => format!("path {} belongs to an older Ingress, {owner}", route.path),
            };
            refuse(served, Reason::PathTaken, &route.host.name, text, remarks);
            continue;
        }
        seen.insert(key, Arc::clone(&route.ingress));
        routes.push(Arc::new(route));
    }
    order(&mut routes);
    routes
}

fn refuse(served: &Served, reason: Reason, host: &str, text: String, remarks: &mut Vec<Remark>) {
    let version = &served.version;
    let remark = Remark::ingress(&version.namespace, version.name(), Severity::Refused, reason, text);
    remarks.push(remark.on(host));
}

fn shown(host: &str) -> &str {
    if host.is_empty() { "(all)" } else { host }
}
