//! Objects of the API to a table of routes, and requests to routes. Pure.
//!
//! The rules S1 to S12 are those of the comments in kubernetes/api networking/v1/types.go and discovery/v1/types.go.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend, IngressClass, IngressServiceBackend};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

/// `spec.controller` of classes that are ours.
pub const CONTROLLER: &str = "landfall.dev/ingress";
/// The annotation that named a class before `ingressClassName`; controllers should still honour it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Label that joins slices to their Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Everything a request needs; replaced as a whole.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Precise hosts, lower case, to routes in order of precedence.
    hosts: BTreeMap<String, Vec<Route>>,
    /// What stands behind `*.` to routes.
    wildcards: BTreeMap<String, Vec<Route>>,
    /// Routes of rules without a host.
    any_host: Vec<Route>,
    default: Option<Backend>,
    /// What lost against an older object, or could not be used; for people.
    pub remarks: Vec<String>,
    /// Namespace and name of every Ingress that is ours.
    pub ours: Vec<(String, String)>,
}

/// A path that leads somewhere.
#[derive(Debug)]
pub struct Route {
    /// Whole path only, or everything below too.
    pub exact: bool,
    /// The path as written.
    pub path: String,
    /// Where it leads.
    pub backend: Backend,
    /// `namespace/name` of the Ingress.
    pub ingress: String,
}

/// A Service with the addresses that are ready.
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
        (0..count).map(move |i| self.endpoints[(start.wrapping_add(i)) % count])
    }
}

/// Objects as the API has them.
#[derive(Debug, Default)]
pub struct Objects {
    /// All Ingresses.
    pub ingresses: Vec<Ingress>,
    /// All classes.
    pub classes: Vec<IngressClass>,
    /// All Services.
    pub services: Vec<Service>,
    /// All slices.
    pub slices: Vec<EndpointSlice>,
}

/// What a request's host and path lead to.
#[derive(Debug)]
pub enum Found<'a> {
    /// A backend; it may have no endpoint.
    Backend(&'a Backend),
    /// Nothing.
    Nothing,
}

impl Snapshot {
    /// Builds the table. Order among equal paths: oldest Ingress first, then namespace and name.
    pub fn build(objects: &Objects, class: &str) -> Self {
        let mut snapshot = Self::default();
        let classes: BTreeSet<&str> = objects
            .classes
            .iter()
            .filter(|c| c.spec.as_ref().and_then(|s| s.controller.as_deref()) == Some(CONTROLLER))
            .filter_map(|c| c.metadata.name.as_deref())
            .filter(|name| *name == class)
            .collect();
        let mut ours: Vec<&Ingress> = objects.ingresses.iter().filter(|i| is_ours(i, &classes)).collect();
        ours.sort_by_key(|i| {
            let meta = &i.metadata;
            (
                meta.creation_timestamp.clone(),
                meta.namespace.clone(),
                meta.name.clone(),
            )
        });
        let resolver = Resolver::new(objects);
        for ingress in ours {
            snapshot.add(ingress, &resolver);
        }
        let lists = snapshot.hosts.values_mut().chain(snapshot.wildcards.values_mut());
        for routes in lists.chain([&mut snapshot.any_host]) {
            // Stable, so that of equal paths the older Ingress stays first. `/foo` and `/foo/` match the same; the longer wins.
            routes.sort_by_key(|r| (std::cmp::Reverse(r.path.len()), !r.exact));
            let mut seen = BTreeSet::new();
            routes.retain(|r| {
                let first = seen.insert((r.path.clone(), r.exact));
                if !first {
                    snapshot
                        .remarks
                        .push(format!("{}: path {} belongs to an older Ingress", r.ingress, r.path));
                }
                first
            });
        }
        snapshot
    }

    fn add(&mut self, ingress: &Ingress, resolver: &Resolver<'_>) {
        let namespace = ingress.metadata.namespace.clone().unwrap_or_default();
        let name = ingress.metadata.name.clone().unwrap_or_default();
        let label = format!("{namespace}/{name}");
        self.ours.push((namespace.clone(), name));
        let Some(spec) = &ingress.spec else { return };
        if let Some(backend) = &spec.default_backend {
            if self.default.is_some() {
                self.remarks
                    .push(format!("{label}: an older Ingress has the default backend"));
            } else {
                self.default = Some(resolver.backend(&namespace, backend, &label, &mut self.remarks));
            }
        }
        for rule in spec.rules.iter().flatten() {
            let host = rule.host.as_deref().unwrap_or_default().to_ascii_lowercase();
            let routes = match host.strip_prefix("*.") {
                _ if host.is_empty() => &mut self.any_host,
                Some(parent) => self.wildcards.entry(parent.to_owned()).or_default(),
                None => self.hosts.entry(host).or_default(),
            };
            for path in rule.http.iter().flat_map(|http| &http.paths) {
                routes.push(Route {
                    exact: path.path_type == "Exact",
                    path: path
                        .path
                        .clone()
                        .filter(|p| !p.is_empty())
                        .unwrap_or_else(|| "/".to_owned()),
                    backend: resolver.backend(&namespace, &path.backend, &label, &mut self.remarks),
                    ingress: label.clone(),
                });
            }
        }
    }

    /// Finds the backend. `host` is normalised by [`host_of`]; `path` is the request's, without its query.
    ///
    /// A host that is known but has no such path does not fall through to a wildcard or to rules without host: only to the default.
    pub fn find(&self, host: &str, path: &str) -> Found<'_> {
        let wildcard = || self.wildcards.get(host.split_once('.')?.1);
        let routes = self.hosts.get(host).or_else(wildcard).unwrap_or(&self.any_host);
        let route = routes.iter().find(|r| matches(r, path));
        match route.map(|r| &r.backend).or(self.default.as_ref()) {
            Some(backend) => Found::Backend(backend),
            None => Found::Nothing,
        }
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
}

/// S1 to S3: `Exact` compares all; `Prefix` (and `ImplementationSpecific`, which is the same here) goes by elements.
fn matches(route: &Route, path: &str) -> bool {
    if route.exact {
        return route.path == path;
    }
    let prefix = route.path.trim_end_matches('/');
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// S6: the host without port and trailing dot, lower case. `None` when it is no host.
pub fn host_of(text: &str) -> Option<String> {
    let host = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let port_fine = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            return (port_fine && address.parse::<std::net::Ipv6Addr>().is_ok()).then(|| format!("[{address}]"));
        }
        None => match text.split_once(':') {
            Some((host, port)) => is_port(port).then_some(host)?,
            None => text,
        },
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    (!host.is_empty() && host.len() <= 253 && host.chars().all(fine)).then(|| host.to_ascii_lowercase())
}

fn is_port(text: &str) -> bool {
    text.is_empty() || (text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()))
}

fn is_ours(ingress: &Ingress, classes: &BTreeSet<&str>) -> bool {
    let named = ingress.spec.as_ref().and_then(|s| s.ingress_class_name.as_deref());
    let annotations = ingress.metadata.annotations.as_ref();
    let class = named.or_else(|| annotations?.get(CLASS_ANNOTATION).map(String::as_str));
    class.is_some_and(|class| classes.contains(class))
}

/// Looks up Services and their ready addresses.
struct Resolver<'a> {
    services: BTreeMap<(&'a str, &'a str), &'a Service>,
    slices: BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
}

impl<'a> Resolver<'a> {
    fn new(objects: &'a Objects) -> Self {
        let mut slices: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for slice in &objects.slices {
            let service = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_LABEL));
            if let (Some(namespace), Some(service)) = (slice.metadata.namespace.as_deref(), service) {
                slices.entry((namespace, service.as_str())).or_default().push(slice);
            }
        }
        let services = objects.services.iter().filter_map(|s| {
            let key = (s.metadata.namespace.as_deref()?, s.metadata.name.as_deref()?);
            Some((key, s))
        });
        Self {
            services: services.collect(),
            slices,
        }
    }

    fn backend(&self, namespace: &str, backend: &IngressBackend, ingress: &str, remarks: &mut Vec<String>) -> Backend {
        let Some(service) = &backend.service else {
            remarks.push(format!("{ingress}: backends that are no Service are not supported"));
            return Backend::default();
        };
        let port = service.port.as_ref();
        let wanted = port.and_then(|p| p.name.clone().or(p.number.map(|n| n.to_string())));
        let name = format!("{namespace}/{}:{}", service.name, wanted.unwrap_or_default());
        let endpoints = match self.endpoints(namespace, service) {
            Ok(endpoints) => endpoints,
            Err(text) => {
                remarks.push(format!("{ingress}: {name}: {text}"));
                vec![]
            }
        };
        Backend {
            name,
            endpoints,
            next: AtomicUsize::new(0),
        }
    }

    /// S10 to S12: the Service's port by number or name, then the slices' port by the Service port's name.
    fn endpoints(&self, namespace: &str, wanted: &IngressServiceBackend) -> Result<Vec<SocketAddr>, &'static str> {
        let service = self
            .services
            .get(&(namespace, wanted.name.as_str()))
            .ok_or("there is no such Service")?;
        let spec = service.spec.as_ref().ok_or("the Service is empty")?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return Err("Services of type ExternalName are not served");
        }
        let asked = wanted.port.as_ref();
        let port = spec.ports.iter().flatten().find(|p| {
            let by_name = asked.and_then(|a| a.name.as_deref());
            match by_name {
                Some(name) => p.name.as_deref() == Some(name),
                None => asked.and_then(|a| a.number) == Some(p.port),
            }
        });
        let port_name = port
            .ok_or("the Service has no such port")?
            .name
            .clone()
            .unwrap_or_default();
        let (mut ready, mut draining) = (BTreeSet::new(), BTreeSet::new());
        for slice in self
            .slices
            .get(&(namespace, wanted.name.as_str()))
            .into_iter()
            .flatten()
        {
            if slice.address_type == "FQDN" {
                continue;
            }
            let port = slice
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.clone().unwrap_or_default() == port_name)
                .and_then(|p| u16::try_from(p.port?).ok());
            let Some(port) = port else { continue };
            for endpoint in slice.endpoints.iter().flatten() {
                let address = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok());
                let Some(address) = address else { continue };
                let conditions = endpoint.conditions.as_ref();
                if conditions.and_then(|c| c.ready).unwrap_or(true) {
                    ready.insert(SocketAddr::new(address, port));
                } else if conditions.and_then(|c| c.serving).unwrap_or(true)
                    && conditions.and_then(|c| c.terminating).unwrap_or(false)
                {
                    draining.insert(SocketAddr::new(address, port));
                }
            }
        }
        // As kube-proxy does: endpoints that are going away but still serve are better than none (KEP-1669).
        let chosen = if ready.is_empty() { draining } else { ready };
        Ok(chosen.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
