//! Services and EndpointSlices in compact form, and the backends that routes got from them.
//!
//! An entry exists for every Service that is there *or* that some route asked for, so one that comes later is picked up. A change of a
//! Service or a slice is worked into the backends of that Service at once; no table is built for that.
//!
//! INVARIANT: the same Service and port give the same [`Backend`] for as long as anyone holds it.

mod entry;
mod written;

pub use entry::{Hint, Locality, SHARED_WITH, Service, ServicePort, Slice, SliceEndpoint, SlicePort};
pub use written::{ReadEndpoint, ReadSlicePort, SERVICE_LABEL, ServiceSpec};

use crate::object::PortKey;
use entry::Entry;
use landfall_ingress_balance::Backend;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Everything by namespace, so that lookups need no joined key.
type ByNamespace<V> = HashMap<Arc<str>, HashMap<Arc<str>, V>>;

/// The store. Every method is short; the lock is never held while anything waits.
#[derive(Debug, Default)]
pub struct Services(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Boxed, for a map has room for more than it holds.
    entries: ByNamespace<Box<Entry>>,
    /// Slice to the Service it belongs to: a slice may be handed over by a change of its label. Both names are kept once.
    slices: ByNamespace<Arc<str>>,
}

/// Whether a change can matter to the table itself, which remarks what a backend lacks and resolves some names itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Touched {
    /// Nothing, or endpoints only.
    Endpoints,
    /// Routes that name the Service have to be made anew.
    Table,
}

impl Touched {
    /// The one of both that matters more.
    pub fn either(self, other: Self) -> Self {
        if self == Self::Table { self } else { other }
    }
}

impl Services {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the backend of a Service's port; the Service need not exist yet. Beside it what the Service is a name for, when it is of
    /// type `ExternalName`.
    pub fn backend(&self, namespace: &str, service: &str, port: &PortKey) -> (Arc<Backend>, Option<Box<str>>) {
        let mut inner = self.inner();
        let asked = |entry: &mut Entry| {
            let external = entry.service().and_then(|service| service.external.clone());
            (entry.backend(namespace, service, port), external)
        };
        if let Some(entry) = find(&mut inner.entries, namespace, service) {
            return asked(entry);
        }
        let (_, entry) = entry(&mut inner.entries, namespace, service);
        asked(entry)
    }

    /// Takes a new or changed Service.
    pub fn put_service(&self, namespace: &str, name: &str, service: Service) -> Touched {
        let mut inner = self.inner();
        let (_, entry) = entry(&mut inner.entries, namespace, name);
        entry.set_service(Some(service))
    }

    /// Forgets a Service.
    pub fn remove_service(&self, namespace: &str, name: &str) -> Touched {
        let mut inner = self.inner();
        let touched = match find(&mut inner.entries, namespace, name) {
            Some(entry) => entry.set_service(None),
            None => Touched::Endpoints,
        };
        inner.tidy(namespace, name);
        touched
    }

    /// Takes a new or changed slice; `service` is what its label names.
    pub fn put_slice(&self, namespace: &str, name: &str, service: &str, slice: Slice) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let (service, entry) = entry(&mut inner.entries, namespace, service);
        let name = entry.put_slice(name, slice);
        let before = names(&mut inner.slices, namespace).insert(Arc::clone(&name), Arc::clone(&service));
        // A slice that is handed over is with its new Service before it is taken from the old one.
        if let Some(before) = before.filter(|before| *before != service) {
            inner.drop_slice(namespace, &before, &name);
        }
    }

    /// Forgets a slice.
    pub fn remove_slice(&self, namespace: &str, name: &str) {
        let mut inner = self.inner();
        let service = inner.slices.get_mut(namespace).and_then(|names| names.remove(name));
        if let Some(service) = service {
            inner.drop_slice(namespace, &service, name);
        }
    }

    /// Names of all Services, as namespace and name.
    pub fn service_names(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let inner = self.inner();
        let all = inner
            .entries
            .iter()
            .flat_map(|(ns, names)| names.iter().map(move |n| (ns, n)));
        all.filter(|(_, (_, entry))| entry.service().is_some())
            .map(|(namespace, (name, _))| (Arc::clone(namespace), Arc::clone(name)))
            .collect()
    }

    /// Names of all slices, as namespace and name.
    pub fn slice_names(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let inner = self.inner();
        let all = inner
            .slices
            .iter()
            .flat_map(|(ns, names)| names.keys().map(move |n| (ns, n)));
        all.map(|(namespace, name)| (Arc::clone(namespace), Arc::clone(name)))
            .collect()
    }

    /// Drops backends that no table and no request holds any more. Called after a new table is in place.
    pub fn sweep(&self) {
        let mut inner = self.inner();
        for names in inner.entries.values_mut() {
            names.retain(|_, entry| !entry.sweep());
        }
        inner.entries.retain(|_, names| !names.is_empty());
    }

    /// The number of a Service's first port.
    pub fn first_port(&self, namespace: &str, service: &str) -> Option<u16> {
        let mut inner = self.inner();
        let service = find(&mut inner.entries, namespace, service)?.service()?;
        service.ports.first().map(|port| port.number)
    }

    /// Whether a Service lets Ingresses of that other namespace name it. One that is not there does not.
    pub fn is_shared(&self, namespace: &str, service: &str, with: &str) -> bool {
        let mut inner = self.inner();
        let service = find(&mut inner.entries, namespace, service).and_then(|entry| entry.service());
        service.is_some_and(|service| service.is_shared_with(with))
    }

    /// The number of a Service's port of that name.
    pub fn port_number(&self, namespace: &str, service: &str, name: &str) -> Option<u16> {
        let mut inner = self.inner();
        let service = find(&mut inner.entries, namespace, service)?.service()?;
        let port = service.ports.iter().find(|port| *port.name == *name);
        port.map(|port| port.number)
    }
}

impl Inner {
    fn drop_slice(&mut self, namespace: &str, service: &str, slice: &str) {
        if let Some(entry) = find(&mut self.entries, namespace, service) {
            entry.remove_slice(slice);
        }
        self.tidy(namespace, service);
    }

    /// Removes what holds nothing any more.
    fn tidy(&mut self, namespace: &str, service: &str) {
        let Some(names) = self.entries.get_mut(namespace) else {
            return;
        };
        if names.get(service).is_some_and(|entry| entry.is_empty()) {
            names.remove(service);
        }
        if names.is_empty() {
            self.entries.remove(namespace);
        }
    }
}

fn find<'a, V>(all: &'a mut ByNamespace<V>, namespace: &str, name: &str) -> Option<&'a mut V> {
    all.get_mut(namespace)?.get_mut(name)
}

fn names<'a, V>(all: &'a mut ByNamespace<V>, namespace: &str) -> &'a mut HashMap<Arc<str>, V> {
    // Looked up first: the key is copied only when it is new.
    if !all.contains_key(namespace) {
        all.insert(namespace.into(), HashMap::new());
    }
    all.get_mut(namespace).expect("it was put there above")
}

/// The entry of a Service, and the one copy of its name.
fn entry<'a>(all: &'a mut ByNamespace<Box<Entry>>, namespace: &str, name: &str) -> (Arc<str>, &'a mut Entry) {
    let names = names(all, namespace);
    let key = match names.get_key_value(name) {
        Some((key, _)) => Arc::clone(key),
        None => {
            let key: Arc<str> = name.into();
            names.insert(Arc::clone(&key), Box::default());
            key
        }
    };
    let entry = names.get_mut(name).expect("it was put there above");
    (key, entry)
}

#[cfg(test)]
mod tests;
