//! The objects as the API has them, kept current event by event. No I/O: the same events give the same world.

use super::feed::{Feed, Step};
use super::kinds::{ClassObject, IngressObject, NamespaceObject, ServiceObject, SliceObject};
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use landfall_ingress_translate::object::{Addresses, Ingress, Words};
use landfall_ingress_translate::route::{Changes, Class};
use landfall_ingress_translate::services::{Locality, Service, Services, Slice, Touched};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

/// An event of one of the five kinds.
#[derive(Debug, Clone)]
pub enum Change {
    /// Of an Ingress.
    Ingress(Event<IngressObject>),
    /// Of a class.
    Class(Event<ClassObject>),
    /// Of a namespace.
    Namespace(Event<NamespaceObject>),
    /// Of a Service.
    Service(Event<ServiceObject>),
    /// Of an EndpointSlice.
    Slice(Event<SliceObject>),
}

/// Namespace and name.
type Key = (Arc<str>, Arc<str>);

/// All objects. Services and slices are shared: their changes reach requests without another word.
#[derive(Debug)]
pub struct World {
    here: Locality,
    services: Arc<Services>,
    /// All of them, also those of namespaces that are being deleted, which no table has.
    ingresses: HashMap<Arc<str>, Arc<Ingress>>,
    /// Namespaces that are being deleted. Their Ingresses own nothing any more, although some are still there for a while.
    ending: HashSet<Box<str>>,
    classes: BTreeMap<Box<str>, Arc<Class>>,
    /// What no table knows yet.
    changes: Changes,
    /// There is a table: before that no Service is another than it knew.
    asked: bool,
    words: Words,
    /// Nearly all Ingresses have the same addresses in their status: each set is kept once.
    addresses: BTreeSet<Arc<Addresses>>,
    ingress_feed: Feed<Arc<str>, (Ingress, Addresses)>,
    class_feed: Feed<Box<str>, Class>,
    /// Whether each is being deleted.
    namespace_feed: Feed<Box<str>, bool>,
    service_feed: Feed<Key, Service>,
    slice_feed: Feed<Key, (Box<str>, Slice)>,
}

impl World {
    /// An empty world seen from `here`.
    pub fn new(here: Locality) -> Self {
        Self {
            here,
            services: Arc::default(),
            ingresses: HashMap::new(),
            ending: HashSet::new(),
            classes: BTreeMap::new(),
            changes: Changes::default(),
            asked: false,
            words: Words::default(),
            addresses: BTreeSet::new(),
            ingress_feed: Feed::default(),
            class_feed: Feed::default(),
            namespace_feed: Feed::default(),
            service_feed: Feed::default(),
            slice_feed: Feed::default(),
        }
    }

    /// All five lists were read whole at least once, or that of namespaces was refused.
    pub fn whole(&self) -> bool {
        self.ingress_feed.whole()
            && self.class_feed.whole()
            && self.namespace_feed.whole()
            && self.service_feed.whole()
            && self.slice_feed.whole()
    }

    /// All Services with their endpoints.
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// What is different since this was asked last, for the next table.
    pub fn take_changes(&mut self) -> Changes {
        self.asked = true;
        std::mem::take(&mut self.changes)
    }

    /// Works an event in. Endpoints are in force when this returns; says whether a table has to be built.
    pub fn apply(&mut self, change: Change) -> Touched {
        match change {
            Change::Ingress(event) => {
                let Some(event) = without_ending(event) else {
                    return Touched::Endpoints;
                };
                let words = &mut self.words;
                let step = self.ingress_feed.take(map(event, |object: IngressObject| {
                    let (ingress, addresses) = object.split(words);
                    (Arc::clone(&ingress.label), (ingress, addresses))
                }));
                self.ingress(step)
            }
            Change::Class(event) => {
                let step = self.class_feed.take(map(event, |object: ClassObject| {
                    let class = object.compact();
                    (class.name.clone(), class)
                }));
                self.class(step)
            }
            Change::Namespace(event) => {
                let step = self.namespace_feed.take(map(event, |object: NamespaceObject| {
                    (object.name_any().into(), is_ending(&object))
                }));
                self.namespace(step)
            }
            Change::Service(event) => {
                let words = &mut self.words;
                let event = map(event, |object: ServiceObject| (key(&object), object.compact(words)));
                let step = self.service_feed.take(event);
                self.service(step)
            }
            Change::Slice(event) => {
                let (here, words) = (&self.here, &mut self.words);
                let event = map(event, |object: SliceObject| {
                    let service = object.service().unwrap_or_default().into();
                    (key(&object), (service, object.compact(here, words)))
                });
                let step = self.slice_feed.take(event);
                self.slice(step);
                Touched::Endpoints
            }
        }
    }

    fn ingress(&mut self, step: Step<Arc<str>, (Ingress, Addresses)>) -> Touched {
        match step {
            Step::Wait => Touched::Endpoints,
            Step::Put(_, (ingress, addresses)) => self.put_ingress(ingress, addresses),
            Step::Remove(label) => self.remove_ingress(&label),
            Step::Replace(all) => {
                let gone = missing(self.ingresses.keys(), &all);
                let gone = most(gone.iter().map(|label| self.remove_ingress(label)));
                let new = all.into_iter();
                most(new.map(|(_, (ingress, addresses))| self.put_ingress(ingress, addresses))).either(gone)
            }
        }
    }

    /// Status is kept apart, so that our own writing of it is no change of the Ingress.
    fn put_ingress(&mut self, ingress: Ingress, addresses: Addresses) -> Touched {
        let addresses = self.shared(addresses);
        if let Some(known) = self.ingresses.get(&ingress.label)
            && **known == ingress
        {
            known.publish(addresses);
            return Touched::Endpoints;
        }
        ingress.publish(addresses);
        let ingress = Arc::new(ingress);
        let label = Arc::clone(&ingress.label);
        let kept = self.ending.contains(&*ingress.namespace);
        if !kept {
            self.changes
                .ingresses
                .insert(Arc::clone(&label), Some(Arc::clone(&ingress)));
        }
        self.ingresses.insert(label, ingress);
        if kept { Touched::Endpoints } else { Touched::Table }
    }

    fn remove_ingress(&mut self, label: &Arc<str>) -> Touched {
        if self.ingresses.remove(label).is_none() {
            return Touched::Endpoints;
        }
        self.changes.ingresses.insert(Arc::clone(label), None);
        Touched::Table
    }

    fn namespace(&mut self, step: Step<Box<str>, bool>) -> Touched {
        match step {
            Step::Wait => Touched::Endpoints,
            Step::Put(name, ending) => self.put_namespace(&name, ending),
            // One that is gone may come again, and is another one then.
            Step::Remove(name) => self.put_namespace(&name, false),
            Step::Replace(all) => {
                let gone = missing(self.ending.iter(), &all);
                let gone = most(gone.iter().map(|name| self.put_namespace(name, false)));
                most(all.iter().map(|(name, ending)| self.put_namespace(name, *ending))).either(gone)
            }
        }
    }

    /// Notes whether a namespace is being deleted; its Ingresses leave the table with it.
    fn put_namespace(&mut self, name: &str, ending: bool) -> Touched {
        let different = match ending {
            true => self.ending.insert(name.into()),
            false => self.ending.remove(name),
        };
        if !different {
            return Touched::Endpoints;
        }
        let mut touched = Touched::Endpoints;
        for (label, ingress) in self.ingresses.iter().filter(|(_, ingress)| *ingress.namespace == *name) {
            let served = (!ending).then(|| Arc::clone(ingress));
            self.changes.ingresses.insert(Arc::clone(label), served);
            touched = Touched::Table;
        }
        touched
    }

    /// The one copy of this set; `None` when it is empty.
    fn shared(&mut self, addresses: Addresses) -> Option<Arc<Addresses>> {
        if addresses.is_empty() {
            return None;
        }
        if let Some(known) = self.addresses.get(&addresses) {
            return Some(Arc::clone(known));
        }
        // Sets come and go with nodes; those nobody has are dropped when another comes.
        self.addresses.retain(|known| Arc::strong_count(known) > 1);
        let new = Arc::new(addresses);
        self.addresses.insert(Arc::clone(&new));
        Some(new)
    }

    fn class(&mut self, step: Step<Box<str>, Class>) -> Touched {
        let different = match step {
            Step::Wait => false,
            Step::Put(name, class) => self.put_class(name, class),
            Step::Remove(name) => self.classes.remove(&name).is_some(),
            Step::Replace(all) => {
                let gone = missing(self.classes.keys(), &all);
                self.classes.retain(|name, _| !gone.contains(name));
                let put = all.into_iter().map(|(name, class)| self.put_class(name, class));
                put.fold(!gone.is_empty(), |before, different| before | different)
            }
        };
        if !different {
            return Touched::Endpoints;
        }
        self.changes.classes = Some(self.classes.values().map(Arc::clone).collect());
        Touched::Table
    }

    fn put_class(&mut self, name: Box<str>, class: Class) -> bool {
        let different = self.classes.get(&name).is_none_or(|known| **known != class);
        if different {
            self.classes.insert(name, Arc::new(class));
        }
        different
    }

    fn service(&mut self, step: Step<Key, Service>) -> Touched {
        match step {
            Step::Wait => Touched::Endpoints,
            Step::Put(key, service) => self.put_service(key, Some(service)),
            Step::Remove(key) => self.put_service(key, None),
            Step::Replace(all) => {
                let gone = missing(self.services.service_names().iter(), &all);
                let gone = most(gone.into_iter().map(|key| self.put_service(key, None)));
                let new = all
                    .into_iter()
                    .map(|(key, service)| self.put_service(key, Some(service)));
                most(new).either(gone)
            }
        }
    }

    fn put_service(&mut self, key: Key, service: Option<Service>) -> Touched {
        let touched = match service {
            Some(service) => self.services.put_service(&key.0, &key.1, service),
            None => self.services.remove_service(&key.0, &key.1),
        };
        if touched == Touched::Table && self.asked {
            self.changes.services.insert(key);
        }
        touched
    }

    fn slice(&self, step: Step<Key, (Box<str>, Slice)>) {
        let services = &self.services;
        match step {
            Step::Wait => {}
            Step::Put(key, (service, slice)) => services.put_slice(&key.0, &key.1, &service, slice),
            Step::Remove(key) => services.remove_slice(&key.0, &key.1),
            Step::Replace(all) => {
                // New ones first: a Service whose slices all got other names is never without.
                let gone = missing(services.slice_names().iter(), &all);
                for (key, (service, slice)) in all {
                    services.put_slice(&key.0, &key.1, &service, slice);
                }
                gone.iter().for_each(|key| services.remove_slice(&key.0, &key.1));
            }
        }
    }
}

/// Goes through all, whatever the first ones say.
fn most(all: impl Iterator<Item = Touched>) -> Touched {
    all.fold(Touched::Endpoints, Touched::either)
}

/// What is known and not listed any more.
fn missing<'a, K: Clone + Eq + Hash + 'a, V>(known: impl Iterator<Item = &'a K>, listed: &[(K, V)]) -> Vec<K> {
    let listed: HashSet<&K> = listed.iter().map(|(key, _)| key).collect();
    known.filter(|key| !listed.contains(key)).cloned().collect()
}

fn key(object: &impl kube::Resource) -> Key {
    (object.namespace().unwrap_or_default().into(), object.name_any().into())
}

/// Whether the API is about to delete it, and only waits for what must end before.
fn is_ending(object: &impl kube::Resource) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// The event, where an Ingress that is being deleted counts as deleted.
fn without_ending(event: Event<IngressObject>) -> Option<Event<IngressObject>> {
    match event {
        Event::InitApply(object) if is_ending(&object) => None,
        Event::Apply(object) if is_ending(&object) => Some(Event::Delete(object)),
        other => Some(other),
    }
}

/// The event with its object made compact, and its key.
fn map<K, T>(event: Event<K>, mut compact: impl FnMut(K) -> T) -> Event<T> {
    match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(compact(object)),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(compact(object)),
        Event::Delete(object) => Event::Delete(compact(object)),
    }
}

#[cfg(test)]
mod tests;
