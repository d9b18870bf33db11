//! From an Ingress backend to the backend that all routes to that Service port share (S10 to S14, S26). How a port becomes endpoints is in
//! [`crate::services`].

use super::Options;
use super::compile::Compiled;
use super::remark::{Reason, Remark, Severity};
use crate::balance::{Backend, Found, Resolved};
use crate::services::{PortKey, Services};
use k8s_openapi::api::networking::v1::{IngressBackend, ServiceBackendPort};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Looks up Services; each Service port makes one backend, however many routes lead to it.
pub(super) struct Resolver<'a> {
    services: &'a Services,
    options: &'a Options,
    /// Backends of Services that are names for addresses elsewhere, which have no endpoints to follow.
    external: RefCell<HashMap<String, Arc<Backend>>>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(services: &'a Services, options: &'a Options) -> Self {
        Self {
            services,
            options,
            external: RefCell::default(),
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
            return Arc::new(Backend::refused(
                "(no Service)",
                "backends that are no Service are not supported",
            ));
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
        let number = self.services.first_port(&ingress.namespace, name).map(i32::from);
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
        let key = port_key(port);
        // Also asked for when the Service is a name: so this table is built anew when it turns into another.
        let mut backend = self.services.backend(namespace, name, &key);
        let mut problem = backend.endpoints().problem.map(|text| (Reason::NoService, text));
        if let Some(external) = self.services.external_name(namespace, name) {
            problem = Some((Reason::ExternalName, "Services of type ExternalName are not served"));
            if self.options.allow_external_name {
                match self.external(&external, (namespace, name), &key) {
                    Ok(address) => {
                        problem = None;
                        backend = self.elsewhere(&backend.name, address);
                    }
                    Err(text) => problem = Some((Reason::ExternalName, text)),
                }
            }
        }
        if let Some((reason, text)) = problem {
            let text = format!("{}: {text}", backend.name);
            let (namespace, name) = (&ingress.namespace, &ingress.name);
            remarks.push(Remark::ingress(namespace, name, Severity::Refused, reason, text));
        }
        backend
    }

    fn elsewhere(&self, name: &str, address: SocketAddr) -> Arc<Backend> {
        let mut external = self.external.borrow_mut();
        let made = external.entry(name.to_owned()).or_insert_with(|| {
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
            Arc::new(backend)
        });
        Arc::clone(made)
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

/// S10: by name or by number.
fn port_key(port: Option<&ServiceBackendPort>) -> PortKey {
    match port.map(|port| (&port.name, port.number)) {
        Some((Some(name), _)) => PortKey::Name(name.as_str().into()),
        Some((None, Some(number))) => PortKey::Number(number),
        _ => PortKey::Unnamed,
    }
}
