//! From an Ingress backend to the backend that all routes to that Service port share (S10 to S14, S26). How a port becomes endpoints is in
//! [`crate::services`].

use crate::object::PortKey;
use crate::object::{Destination, Ingress};
use crate::options::Options;
use crate::remark::{Reason, Remark, Severity};
use crate::services::{SHARED_WITH, Services};
use landfall_ingress_balance::{Backend, Found, Resolved};
use landfall_ingress_routing::target::Place;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

/// Backends of Services that are names for addresses elsewhere, which have no endpoints to follow; by name, as long as a route has them.
pub(super) type Elsewhere = BTreeMap<Box<str>, (SocketAddr, Weak<Backend>)>;

/// Looks up Services; each Service port makes one backend, however many routes lead to it.
pub(super) struct Resolver<'a> {
    pub(super) services: &'a Services,
    pub(super) options: &'a Options,
    pub(super) elsewhere: &'a RefCell<Elsewhere>,
}

impl Resolver<'_> {
    /// The backend of a path or of the default.
    pub(super) fn backend(&self, ingress: &Ingress, to: &Destination, remarks: &mut Vec<Remark>) -> Arc<Backend> {
        match to {
            Destination::Service { name, port } => self.service(ingress, &ingress.namespace, name, port, remarks),
            Destination::Resource { kind, name } => {
                let what = format!("{kind} {name}");
                let text = format!(
                    "backend {}: backends that are no Service are not supported",
                    what.trim()
                );
                remark(ingress, Reason::Resource, text, remarks);
                Arc::new(Backend::refused(
                    "(no Service)",
                    "backends that are no Service are not supported",
                ))
            }
        }
    }

    /// Whether an annotation of this Ingress may name the place: a Service of its own namespace, or one of another that says so.
    pub(super) fn admits(&self, ingress: &Ingress, place: &Place) -> Result<(), String> {
        let Place::Service { namespace, name, .. } = place else {
            return Ok(());
        };
        let own = *namespace == *ingress.namespace || self.options.allow_cross_namespace;
        // The same whether it is there or not: who may not use it learns nothing of it.
        if own || self.services.is_shared(namespace, name, &ingress.namespace) {
            return Ok(());
        }
        Err(format!(
            "Service {namespace}/{name} of another namespace does not let this one use it: its annotation {SHARED_WITH} must name {}",
            ingress.namespace
        ))
    }

    /// The backend of a place that an annotation names; none for an address.
    pub(super) fn place(&self, ingress: &Ingress, place: &Place, remarks: &mut Vec<Remark>) -> Option<Arc<Backend>> {
        match place {
            Place::Service { namespace, name, port } => {
                let port = PortKey::Number((*port).into());
                Some(self.service(ingress, namespace, name, &port, remarks))
            }
            Place::Address(_) | Place::Name { .. } | Place::OwnHost => None,
        }
    }

    /// The backend of a Service's first port.
    pub(super) fn first_port(&self, ingress: &Ingress, name: &str, remarks: &mut Vec<Remark>) -> Arc<Backend> {
        let number = self.services.first_port(&ingress.namespace, name);
        let port = number.map_or(PortKey::Unnamed, |number| PortKey::Number(number.into()));
        self.service(ingress, &ingress.namespace, name, &port, remarks)
    }

    fn service(
        &self,
        ingress: &Ingress,
        namespace: &str,
        name: &str,
        port: &PortKey,
        remarks: &mut Vec<Remark>,
    ) -> Arc<Backend> {
        // Also asked for when the Service is a name: so its routes are built anew when it turns into another.
        let (mut backend, external) = self.services.backend(namespace, name, port);
        let mut problem = backend.endpoints().problem.map(|text| (Reason::NoService, text));
        if let Some(external) = external {
            problem = Some((Reason::ExternalName, "Services of type ExternalName are not served"));
            if self.options.allow_external_name {
                match self.external(&external, (namespace, name), port) {
                    Ok(address) => {
                        problem = None;
                        backend = self.found_elsewhere(&backend.name, address);
                    }
                    Err(text) => problem = Some((Reason::ExternalName, text)),
                }
            }
        }
        if let Some((reason, text)) = problem {
            let text = format!("{}: {text}", backend.name);
            remark(ingress, reason, text, remarks);
        }
        backend
    }

    fn found_elsewhere(&self, name: &str, address: SocketAddr) -> Arc<Backend> {
        let mut known = self.elsewhere.borrow_mut();
        let found = known.get(name).filter(|(at, _)| *at == address);
        if let Some(backend) = found.and_then(|(_, backend)| backend.upgrade()) {
            return backend;
        }
        let backend = Backend::new(name.to_owned());
        let found = Found {
            address,
            ready: true,
            near: false,
        };
        backend.set(&Resolved {
            found: vec![found],
            ..Resolved::default()
        });
        let backend = Arc::new(backend);
        known.insert(name.into(), (address, Arc::downgrade(&backend)));
        backend
    }

    /// S13: off by default; on, the name must be an address, for names are not looked up here.
    fn external(&self, name: &str, at: (&str, &str), port: &PortKey) -> Result<SocketAddr, &'static str> {
        let address: IpAddr = name
            .parse()
            .map_err(|_| "the external name is no address, and names are not looked up")?;
        self.options.admits(address)?;
        // Such a Service may have no ports; a number is then taken as it is.
        let number = match port {
            PortKey::Number(number) => u16::try_from(*number).ok().filter(|n| *n != 0),
            PortKey::Name(name) => self.services.port_number(at.0, at.1, name),
            PortKey::Unnamed => None,
        };
        Ok(SocketAddr::new(address, number.ok_or("the port must be a number")?))
    }
}

pub(super) fn remark(ingress: &Ingress, reason: Reason, text: String, remarks: &mut Vec<Remark>) {
    let (namespace, name) = (&ingress.namespace, ingress.name());
    remarks.push(Remark::ingress(namespace, name, Severity::Refused, reason, text));
}
