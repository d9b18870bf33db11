//! One Service with its slices and backends, and how a port becomes endpoints (S10 to S13, S26).

use super::Touched;
use crate::object::PortKey;
use landfall_ingress_balance::{Backend, Found, Resolved};
use landfall_ingress_http::protocol::Protocol;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What is kept of a Service.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its ports.
    pub ports: Box<[ServicePort]>,
    /// Its own address; headless Services have none.
    pub address: Option<IpAddr>,
    /// What it is a name for, when it is of type `ExternalName`.
    pub external: Option<Box<str>>,
    /// The value of its annotation [`SHARED_WITH`].
    pub shared_with: Option<Box<str>>,
}

/// Annotation of a Service: the namespaces, comma-separated, whose Ingresses may name it in `auth-url` and `mirror-target`; `*` is all.
pub const SHARED_WITH: &str = "ingress.landfall.dev/allow-namespaces";

impl Service {
    /// Whether Ingresses of that other namespace may name it.
    pub fn is_shared_with(&self, namespace: &str) -> bool {
        let names = self.shared_with.as_deref().unwrap_or_default().split(',');
        names.map(str::trim).any(|name| name == "*" || name == namespace)
    }
}

/// What is kept of a Service's port.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, empty when it has none.
    pub name: Arc<str>,
    /// Its number.
    pub number: u16,
    /// What its `appProtocol` means to us.
    pub protocol: Option<Protocol>,
}

/// What is kept of an EndpointSlice.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Its ports; what has no number, or one that is no port, is left out.
    pub ports: Box<[SlicePort]>,
    /// Its endpoints that can be used at all.
    pub endpoints: Box<[SliceEndpoint]>,
}

/// A port of all endpoints of a slice.
#[derive(Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service's port that it serves.
    pub name: Arc<str>,
    /// Where the endpoints listen.
    pub number: u16,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// Ready, or only serving while it ends.
    pub ready: bool,
    /// What its hints say of our node and zone.
    pub node_hint: Hint,
    /// See `node_hint`.
    pub zone_hint: Hint,
}

/// A hint of an endpoint, seen from here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hint {
    /// The endpoint has no such hint.
    #[default]
    None,
    /// It is meant for here.
    Here,
    /// It is meant for others.
    Elsewhere,
}

/// Where this proxy runs, for hints.
#[derive(Debug, Clone, Default)]
pub struct Locality {
    /// Name of the node.
    pub node: String,
    /// Its zone; empty when it is not known.
    pub zone: String,
}

impl Locality {
    /// What a list of names says about `here`.
    pub fn hint<'a>(here: &str, mut named: impl Iterator<Item = &'a str>) -> Hint {
        let mut any = false;
        let found = named.any(|name| {
            any = true;
            !here.is_empty() && name == here
        });
        match (any, found) {
            (_, true) => Hint::Here,
            (true, false) => Hint::Elsewhere,
            (false, false) => Hint::None,
        }
    }
}

/// A Service, what is known of its endpoints, and the backends that were asked for.
#[derive(Debug, Default)]
pub(super) struct Entry {
    service: Option<Service>,
    slices: Vec<(Arc<str>, Slice)>,
    backends: Vec<(PortKey, Arc<Backend>)>,
}

impl Entry {
    pub(super) fn service(&self) -> Option<&Service> {
        self.service.as_ref()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.service.is_none() && self.slices.is_empty() && self.backends.is_empty()
    }

    /// Drops backends that nobody else holds; says whether nothing is left.
    pub(super) fn sweep(&mut self) -> bool {
        self.backends.retain(|(_, backend)| Arc::strong_count(backend) > 1);
        self.backends.shrink_to_fit();
        self.is_empty()
    }

    pub(super) fn backend(&mut self, namespace: &str, service: &str, port: &PortKey) -> Arc<Backend> {
        if let Some((_, backend)) = self.backends.iter().find(|(key, _)| key == port) {
            return Arc::clone(backend);
        }
        // Joined rather than formatted: no byte more than needed.
        let name = [namespace, "/", service, ":", &port.to_string()].concat();
        let backend = Arc::new(Backend::new(name));
        backend.set(&self.resolve(port));
        self.backends.reserve_exact(1);
        self.backends.push((port.clone(), Arc::clone(&backend)));
        backend
    }

    pub(super) fn set_service(&mut self, service: Option<Service>) -> Touched {
        if self.service == service {
            return Touched::Endpoints;
        }
        let before = std::mem::replace(&mut self.service, service);
        self.refresh();
        // All that makers of routes look at: what is missing is remarked, the first port may be meant, names are resolved by them, and
        // Ingresses of other namespaces need its word.
        let seen = |service: Option<&'_ Service>| {
            let ports = |service: &Service| {
                service
                    .ports
                    .iter()
                    .map(|port| (port.number, port.name.clone()))
                    .collect::<Vec<_>>()
            };
            service.map(|service| (ports(service), service.external.clone(), service.shared_with.clone()))
        };
        match seen(before.as_ref()) == seen(self.service.as_ref()) {
            true => Touched::Endpoints,
            false => Touched::Table,
        }
    }

    /// Takes a new or changed slice; returns the one copy of its name.
    pub(super) fn put_slice(&mut self, name: &str, slice: Slice) -> Arc<str> {
        let known = match self.slices.iter_mut().find(|(known, _)| **known == *name) {
            Some((name, known)) if *known == slice => return Arc::clone(name),
            Some((name, known)) => {
                *known = slice;
                Arc::clone(name)
            }
            None => {
                let name: Arc<str> = name.into();
                // Nearly every Service has one or two; doubling would waste half.
                self.slices.reserve_exact(1);
                self.slices.push((Arc::clone(&name), slice));
                name
            }
        };
        self.refresh();
        known
    }

    pub(super) fn remove_slice(&mut self, name: &str) {
        let before = self.slices.len();
        self.slices.retain(|(known, _)| **known != *name);
        if self.slices.len() < before {
            self.refresh();
        }
    }

    /// Works the change into all backends.
    fn refresh(&self) {
        for (port, backend) in &self.backends {
            backend.set(&self.resolve(port));
        }
    }

    /// S10: the Service's port by number or name, then the slices' port by the Service port's name.
    fn resolve(&self, wanted: &PortKey) -> Resolved {
        let refused = |problem| Resolved {
            problem: Some(problem),
            ..Resolved::default()
        };
        let Some(service) = &self.service else {
            return refused("there is no such Service");
        };
        if service.external.is_some() {
            return refused("Services of type ExternalName are not served");
        }
        let fits = |port: &&ServicePort| match wanted {
            PortKey::Name(name) => !port.name.is_empty() && *port.name == **name,
            PortKey::Number(number) => i32::from(port.number) == *number,
            PortKey::Unnamed => false,
        };
        let Some(port) = service.ports.iter().find(fits) else {
            return refused("the Service has no such port");
        };
        let mut found = self.found(&port.name);
        follow_hints(&mut found);
        Resolved {
            found: found.into_iter().map(|(found, _)| found).collect(),
            service: service.address.map(|address| SocketAddr::new(address, port.number)),
            protocol: port.protocol,
            problem: None,
        }
    }

    /// S11: endpoints of all slices.
    fn found(&self, port_name: &str) -> Vec<(Found, SliceEndpoint)> {
        let mut all = Vec::new();
        for (_, slice) in &self.slices {
            let Some(port) = slice.ports.iter().find(|p| *p.name == *port_name) else {
                continue;
            };
            all.extend(slice.endpoints.iter().map(|endpoint| {
                let found = Found {
                    address: SocketAddr::new(endpoint.address, port.number),
                    ready: endpoint.ready,
                    near: false,
                };
                (found, *endpoint)
            }));
        }
        all
    }
}

/// Hints count as in kube-proxy: only when every ready endpoint has one and some are meant for here; node before zone. A hint is given
/// only to Services that asked for it (`trafficDistribution`), so without one no endpoint is preferred, not even on this node.
fn follow_hints(found: &mut [(Found, SliceEndpoint)]) {
    for hint in [|e: &SliceEndpoint| e.node_hint, |e: &SliceEndpoint| e.zone_hint] {
        let ready = || found.iter().filter(|(f, _)| f.ready).map(|(_, e)| hint(e));
        if ready().all(|h| h != Hint::None) && ready().any(|h| h == Hint::Here) {
            for (found, endpoint) in found {
                found.near = hint(endpoint) == Hint::Here;
            }
            return;
        }
    }
}
