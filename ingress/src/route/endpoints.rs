//! From an Ingress backend to addresses: Service port, then slices, then endpoints that may be used (S10 to S12). Pure.

use super::compile::Compiled;
use super::remark::{Reason, Remark, Severity};
use super::{Backend, Objects, Options};
use crate::policy::Protocol;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointSlice};
use k8s_openapi::api::networking::v1::{IngressBackend, ServiceBackendPort};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Label that joins slices to their Service.
pub(super) const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Looks up Services and their ready addresses; each Service port makes one backend, however many routes lead to it.
pub(super) struct Resolver<'a> {
    services: HashMap<(&'a str, &'a str), &'a Service>,
    slices: HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
    options: &'a Options,
    turn: usize,
    made: RefCell<HashMap<String, Made>>,
}

/// Addresses, and what the Service port's `appProtocol` asks for.
type Found = (Vec<SocketAddr>, Option<Protocol>);

/// A backend, and what is wrong with it.
type Made = (Arc<Backend>, Option<(Reason, &'static str)>);

impl<'a> Resolver<'a> {
    pub(super) fn new(objects: &'a Objects, options: &'a Options, turn: usize) -> Self {
        let mut slices: HashMap<_, Vec<_>> = HashMap::new();
        for slice in &objects.slices {
            let service = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_LABEL));
            if let (Some(namespace), Some(service)) = (slice.metadata.namespace.as_deref(), service) {
                slices.entry((namespace, service.as_str())).or_default().push(&**slice);
            }
        }
        let services = objects.services.iter().filter_map(|s| {
            let key = (s.metadata.namespace.as_deref()?, s.metadata.name.as_deref()?);
            Some((key, &**s))
        });
        Self {
            services: services.collect(),
            slices,
            options,
            turn,
            made: RefCell::default(),
        }
    }

    /// The backend of a path or of the default.
    pub(super) fn backend(
        &self,
        ingress: &Compiled,
        backend: &IngressBackend,
        remarks: &mut Vec<Remark>,
    ) -> Arc<Backend> {
        let Some(service) = &backend.service else {
            let resource = backend.resource.as_ref().map(|r| format!("{} {}", r.kind, r.name));
            let text = format!(
                "backend {}: backends that are no Service are not supported",
                resource.unwrap_or_default()
            );
            let (namespace, name) = (&ingress.namespace, &ingress.name);
            remarks.push(Remark::ingress(
                namespace,
                name,
                Severity::Refused,
                Reason::Resource,
                text,
            ));
            return Arc::new(Backend {
                name: "(no Service)".to_owned(),
                ..Backend::default()
            });
        };
        self.service(
            ingress,
            &ingress.namespace,
            &service.name,
            service.port.as_ref(),
            remarks,
        )
    }

    /// The backend of a Service's port by number.
    pub(super) fn numbered(
        &self,
        ingress: &Compiled,
        namespace: &str,
        name: &str,
        port: u16,
        remarks: &mut Vec<Remark>,
    ) -> Arc<Backend> {
        let port = ServiceBackendPort {
            number: Some(port.into()),
            name: None,
        };
        self.service(ingress, namespace, name, Some(&port), remarks)
    }

    /// The backend of a Service's first port.
    pub(super) fn first_port(&self, ingress: &Compiled, name: &str, remarks: &mut Vec<Remark>) -> Arc<Backend> {
        let service = self.services.get(&(&*ingress.namespace, name));
        let ports = service.and_then(|s| s.spec.as_ref()).and_then(|s| s.ports.as_ref());
        let number = ports.and_then(|ports| ports.first()).map(|port| port.port);
        let port = ServiceBackendPort { number, name: None };
        self.service(ingress, &ingress.namespace, name, Some(&port), remarks)
    }

    fn service(
        &self,
        ingress: &Compiled,
        namespace: &str,
        name: &str,
        port: Option<&ServiceBackendPort>,
        remarks: &mut Vec<Remark>,
    ) -> Arc<Backend> {
        let wanted = port.and_then(|p| p.name.clone().or(p.number.map(|n| n.to_string())));
        let full = format!("{namespace}/{name}:{}", wanted.unwrap_or_default());
        let mut made = self.made.borrow_mut();
        let (backend, problem) = made.entry(full).or_insert_with_key(|full| {
            let (found, problem) = match self.endpoints(namespace, name, port) {
                Ok(found) => (found, None),
                Err(problem) => ((vec![], None), Some(problem)),
            };
            let backend = Backend {
                name: full.clone(),
                endpoints: found.0,
                protocol: found.1,
                next: self.turn.into(),
            };
            (Arc::new(backend), problem)
        });
        if let Some((reason, text)) = problem {
            let text = format!("{}: {text}", backend.name);
            let (namespace, name) = (&ingress.namespace, &ingress.name);
            remarks.push(Remark::ingress(namespace, name, Severity::Refused, *reason, text));
        }
        Arc::clone(backend)
    }

    fn endpoints(
        &self,
        namespace: &str,
        name: &str,
        port: Option<&ServiceBackendPort>,
    ) -> Result<Found, (Reason, &'static str)> {
        let missing = |text| (Reason::NoService, text);
        let service = self
            .services
            .get(&(namespace, name))
            .ok_or(missing("there is no such Service"))?;
        let spec = service.spec.as_ref().ok_or(missing("the Service is empty"))?;
        if spec.type_.as_deref() == Some("ExternalName") {
            let address = self.external(spec, port).map_err(|text| (Reason::ExternalName, text))?;
            return Ok((vec![address], None));
        }
        let port = service_port(spec, port).ok_or(missing("the Service has no such port"))?;
        let port_name = port.name.as_deref().unwrap_or_default();
        let slices = self.slices.get(&(namespace, name));
        let (mut ready, mut draining) = (BTreeSet::new(), BTreeSet::new());
        for slice in slices.into_iter().flatten() {
            let Some(port) = port_number(slice, port_name) else {
                continue;
            };
            for endpoint in slice.endpoints.iter().flatten() {
                // Only the first address is to be used; FQDN slices fail to parse, as they should.
                let address = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok());
                let Some(address) = address else { continue };
                match Use::of(endpoint.conditions.as_ref()) {
                    Use::Ready => ready.insert(SocketAddr::new(address, port)),
                    Use::Draining => draining.insert(SocketAddr::new(address, port)),
                    Use::Not => false,
                };
            }
        }
        // As kube-proxy does: endpoints that are going away but still serve are better than none (KEP-1669).
        let chosen = if ready.is_empty() { draining } else { ready };
        Ok((chosen.into_iter().collect(), protocol_of(port)))
    }

    /// S13: off by default; on, the name must be an address, for names are not looked up here.
    fn external(&self, spec: &ServiceSpec, port: Option<&ServiceBackendPort>) -> Result<SocketAddr, &'static str> {
        if !self.options.allow_external_name {
            return Err("Services of type ExternalName are not served");
        }
        let name = spec.external_name.as_deref().unwrap_or_default();
        let address: IpAddr = name
            .parse()
            .map_err(|_| "the external name is no address, and names are not looked up")?;
        self.options.admits(address)?;
        // Such a Service may have no ports; a number is then taken as it is.
        let number = service_port(spec, port).map(|p| p.port).or(port.and_then(|p| p.number));
        let number = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0);
        Ok(SocketAddr::new(address, number.ok_or("the port must be a number")?))
    }
}

/// S26: what the port's `appProtocol` asks for.
fn protocol_of(port: &ServicePort) -> Option<Protocol> {
    match port.app_protocol.as_deref()? {
        "kubernetes.io/h2c" => Some(Protocol::H2c),
        // WebSocket is an upgrade within HTTP/1.1.
        "http" | "kubernetes.io/ws" => Some(Protocol::Http1),
        "https" | "kubernetes.io/wss" => Some(Protocol::Https),
        _ => None,
    }
}

/// The Service port that an Ingress asks for by name or number.
fn service_port<'a>(spec: &'a ServiceSpec, asked: Option<&ServiceBackendPort>) -> Option<&'a ServicePort> {
    let asked = asked?;
    let fits = |port: &&ServicePort| match &asked.name {
        Some(name) => port.name.as_ref() == Some(name),
        None => asked.number == Some(port.port),
    };
    spec.ports.iter().flatten().find(fits)
}

/// A slice's port of that name; slices may leave name and port out.
fn port_number(slice: &EndpointSlice, name: &str) -> Option<u16> {
    let ports = slice.ports.iter().flatten();
    let port = ports
        .into_iter()
        .find(|p| p.name.as_deref().unwrap_or_default() == name)?;
    u16::try_from(port.port?).ok().filter(|port| *port != 0)
}

/// What an endpoint is good for.
enum Use {
    Ready,
    Draining,
    Not,
}

impl Use {
    /// S12: without a word an endpoint is ready, serving and not terminating.
    fn of(conditions: Option<&EndpointConditions>) -> Self {
        let says =
            |pick: fn(&EndpointConditions) -> Option<bool>, otherwise| conditions.and_then(pick).unwrap_or(otherwise);
        if says(|c| c.ready, true) {
            Self::Ready
        } else if says(|c| c.serving, true) && says(|c| c.terminating, false) {
            Self::Draining
        } else {
            Self::Not
        }
    }
}
