//! The objects as the API has them, kept current event by event. No I/O: the same events give the same world.

use super::feed::{Feed, Key, Step};
use super::kinds::{Addresses, ClassObject, IngressObject, ServiceObject, SliceObject};
use crate::route::Objects;
use crate::services::{Locality, Service, Services, Slice, Touched};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// An event of one of the four kinds.
#[derive(Debug, Clone)]
pub enum Change {
    /// Of an Ingress.
    Ingress(Event<IngressObject>),
    /// Of a class.
    Class(Event<ClassObject>),
    /// Of a Service.
    Service(Event<ServiceObject>),
    /// Of an EndpointSlice.
    Slice(Event<SliceObject>),
}

/// All objects. Services and slices are shared: their changes reach requests without another word.
#[derive(Debug)]
pub struct World {
    here: Locality,
    services: Arc<Services>,
    published: Arc<Published>,
    ingresses: BTreeMap<Key, Arc<Ingress>>,
    classes: BTreeMap<Key, Arc<IngressClass>>,
    ingress_feed: Feed<(Ingress, Addresses)>,
    class_feed: Feed<IngressClass>,
    service_feed: Feed<Service>,
    slice_feed: Feed<(Box<str>, Slice)>,
}

impl World {
    /// An empty world seen from `here`.
    pub fn new(here: Locality, published: Arc<Published>) -> Self {
        Self {
            here,
            services: Arc::default(),
            published,
            ingresses: BTreeMap::new(),
            classes: BTreeMap::new(),
            ingress_feed: Feed::default(),
            class_feed: Feed::default(),
            service_feed: Feed::default(),
            slice_feed: Feed::default(),
        }
    }

    /// All four lists were read whole at least once.
    pub fn whole(&self) -> bool {
        self.ingress_feed.whole() && self.class_feed.whole() && self.service_feed.whole() && self.slice_feed.whole()
    }

    /// The objects of now, for a table. Cheap: pointers are copied.
    pub fn objects(&self) -> Objects {
        Objects {
            ingresses: self.ingresses.values().map(Arc::clone).collect(),
            classes: self.classes.values().map(Arc::clone).collect(),
            services: Arc::clone(&self.services),
        }
    }

    /// Works an event in. Endpoints are in force when this returns; says whether the table has to be built anew.
    pub fn apply(&mut self, change: Change) -> Touched {
        match change {
            Change::Ingress(event) => {
                let event = map(event, IngressObject::split);
                let step = self.ingress_feed.take(event);
                self.ingress(step)
            }
            Change::Class(event) => {
                let step = self.class_feed.take(map(event, ClassObject::into_class));
                replace(&mut self.classes, step)
            }
            Change::Service(event) => {
                let step = self.service_feed.take(map(event, ServiceObject::compact));
                self.service(step)
            }
            Change::Slice(event) => {
                let here = &self.here;
                let event = map(event, |slice: SliceObject| {
                    let service = slice.service().unwrap_or_default().into();
                    (service, slice.compact(here))
                });
                let step = self.slice_feed.take(event);
                self.slice(step)
            }
        }
    }

    /// Status is kept apart, so that our own writing of it is no change of the Ingress.
    fn ingress(&mut self, step: Step<(Ingress, Addresses)>) -> Touched {
        let step = match step {
            Step::Wait => Step::Wait,
            Step::Put(key, (ingress, addresses)) => {
                self.published.put(&key, addresses);
                Step::Put(key, ingress)
            }
            Step::Remove(key) => {
                self.published.remove(&key);
                Step::Remove(key)
            }
            Step::Replace(all) => {
                let mut kept = Vec::with_capacity(all.len());
                let mut published = Vec::with_capacity(all.len());
                for (key, (ingress, addresses)) in all {
                    published.push((key.clone(), addresses));
                    kept.push((key, ingress));
                }
                self.published.replace(published);
                Step::Replace(kept)
            }
        };
        replace(&mut self.ingresses, step)
    }

    fn service(&self, step: Step<Service>) -> Touched {
        let services = &self.services;
        match step {
            Step::Wait => Touched::Endpoints,
            Step::Put(key, service) => services.put_service(&key.0, &key.1, service),
            Step::Remove(key) => services.remove_service(&key.0, &key.1),
            Step::Replace(all) => {
                let gone = missing(services.service_names(), &all);
                let gone = gone.iter().map(|key| services.remove_service(&key.0, &key.1));
                let touched = most(gone);
                let new = all.into_iter().map(|(key, s)| services.put_service(&key.0, &key.1, s));
                most(new).either(touched)
            }
        }
    }

    fn slice(&self, step: Step<(Box<str>, Slice)>) -> Touched {
        let services = &self.services;
        match step {
            Step::Wait => Touched::Endpoints,
            Step::Put(key, (service, slice)) => services.put_slice(&key.0, &key.1, &service, slice),
            Step::Remove(key) => services.remove_slice(&key.0, &key.1),
            Step::Replace(all) => {
                // New ones first: a Service whose slices all got other names is never without.
                let gone = missing(services.slice_names(), &all);
                let new = all.into_iter();
                let touched =
                    most(new.map(|(key, (service, slice))| services.put_slice(&key.0, &key.1, &service, slice)));
                most(gone.iter().map(|key| services.remove_slice(&key.0, &key.1))).either(touched)
            }
        }
    }
}

/// Goes through all, whatever the first ones say.
fn most(all: impl Iterator<Item = Touched>) -> Touched {
    all.fold(Touched::Endpoints, Touched::either)
}

/// What is known and not listed any more.
fn missing<V>(known: Vec<Key>, listed: &[(Key, V)]) -> Vec<Key> {
    let listed: HashSet<&Key> = listed.iter().map(|(key, _)| key).collect();
    known.into_iter().filter(|key| !listed.contains(key)).collect()
}

/// Works a step into a map; the table is touched only when something is really different.
fn replace<V: PartialEq>(map: &mut BTreeMap<Key, Arc<V>>, step: Step<V>) -> Touched {
    let touched = |different| if different { Touched::Table } else { Touched::Endpoints };
    match step {
        Step::Wait => Touched::Endpoints,
        Step::Put(key, value) => {
            let same = map.get(&key).is_some_and(|known| **known == value);
            if !same {
                map.insert(key, Arc::new(value));
            }
            touched(!same)
        }
        Step::Remove(key) => touched(map.remove(&key).is_some()),
        Step::Replace(all) => {
            let known: Vec<Key> = map.keys().cloned().collect();
            let gone = missing(known, &all);
            for key in &gone {
                map.remove(key);
            }
            let put = all.into_iter().map(|(key, value)| replace(map, Step::Put(key, value)));
            most(put).either(touched(!gone.is_empty()))
        }
    }
}

/// The event with its key, and its object made compact.
fn map<K: kube::Resource, V>(event: Event<K>, mut compact: impl FnMut(K) -> V) -> Event<(Key, V)> {
    let mut keyed = |object: K| {
        let key = (object.namespace().unwrap_or_default().into(), object.name_any().into());
        (key, compact(object))
    };
    match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(keyed(object)),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(keyed(object)),
        Event::Delete(object) => Event::Delete(keyed(object)),
    }
}

/// The addresses in the status of every Ingress, as the watch shows them.
#[derive(Debug, Default)]
pub struct Published(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_ingress: BTreeMap<Key, Arc<Addresses>>,
    /// Nearly all Ingresses have the same addresses: each set is kept once.
    sets: BTreeSet<Arc<Addresses>>,
}

impl Published {
    fn known<T>(&self, f: impl FnOnce(&mut Known) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The addresses of an Ingress; empty when it has none or is not there.
    pub fn of(&self, namespace: &str, name: &str) -> Arc<Addresses> {
        let key = (namespace.into(), name.into());
        self.known(|known| known.by_ingress.get(&key).map(Arc::clone))
            .unwrap_or_default()
    }

    fn put(&self, key: &Key, addresses: Addresses) {
        self.known(|known| known.put(key.clone(), addresses));
    }

    fn remove(&self, key: &Key) {
        self.known(|known| {
            known.by_ingress.remove(key);
            known.sets.retain(|set| Arc::strong_count(set) > 1);
        });
    }

    fn replace(&self, all: Vec<(Key, Addresses)>) {
        self.known(|known| {
            *known = Known::default();
            for (key, addresses) in all {
                known.put(key, addresses);
            }
        });
    }
}

impl Known {
    fn put(&mut self, key: Key, addresses: Addresses) {
        if addresses.is_empty() {
            self.by_ingress.remove(&key);
            return;
        }
        let set = match self.sets.get(&addresses) {
            Some(set) => Arc::clone(set),
            None => {
                // Sets come and go with nodes; those nobody has are dropped when another comes.
                self.sets.retain(|set| Arc::strong_count(set) > 1);
                let set = Arc::new(addresses);
                self.sets.insert(Arc::clone(&set));
                set
            }
        };
        self.by_ingress.insert(key, set);
    }
}

#[cfg(test)]
mod tests;
