//! From an Ingress backend to addresses: Service port, then slices, then endpoints that may be used (S10 to S12). Pure.

use super::{Backend, Objects};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointSlice};
use k8s_openapi::api::networking::v1::{IngressBackend, IngressServiceBackend, ServiceBackendPort};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Label that joins slices to their Service.
pub(super) const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Looks up Services and their ready addresses.
pub(super) struct Resolver<'a> {
    services: BTreeMap<(&'a str, &'a str), &'a Service>,
    slices: BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
    turn: usize,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(objects: &'a Objects, turn: usize) -> Self {
        let mut slices: BTreeMap<_, Vec<_>> = BTreeMap::new();
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
            turn,
        }
    }

    pub(super) fn backend(
        &self,
        namespace: &str,
        backend: &IngressBackend,
        ingress: &str,
        remarks: &mut Vec<String>,
    ) -> Backend {
        let Some(service) = &backend.service else {
            remarks.push(format!("{ingress}: backends that are no Service are not supported"));
            return Backend {
                name: "(no Service)".to_owned(),
                ..Backend::default()
            };
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
            next: self.turn.into(),
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
        let port_name = port_name(spec, wanted.port.as_ref()).ok_or("the Service has no such port")?;
        let slices = self.slices.get(&(namespace, wanted.name.as_str()));
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
        Ok(chosen.into_iter().collect())
    }
}

/// Name of the Service port that an Ingress asks for by name or number, `""` when it has none.
fn port_name<'a>(spec: &'a ServiceSpec, asked: Option<&ServiceBackendPort>) -> Option<&'a str> {
    let asked = asked?;
    let fits = |port: &&ServicePort| match &asked.name {
        Some(name) => port.name.as_ref() == Some(name),
        None => asked.number == Some(port.port),
    };
    let port = spec.ports.iter().flatten().find(fits)?;
    Some(port.name.as_deref().unwrap_or_default())
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
