//! The cluster's life, and its API: every change becomes an event that reaches the proxy later, in order; now and then the API is away,
//! forgets, and everything is listed again, sometimes with the connection breaking within the list.

use super::pods::{Life, Pods, ip};
use super::{LENGTH_MS, Stage};
use crate::watch::Change;
use crate::watch::kinds::{ClassObject, IngressObject, ServiceObject, SliceObject};
use kube::runtime::watcher::Event;
use landfall_ingress_balance::chance::Chance;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Services, each with a host of its own; the first of them is never without an Ingress.
pub(super) const SERVICES: usize = 4;
/// Pods that a Service has at most.
const MOST_PODS: usize = 6;

pub(super) struct Cluster {
    pub(super) pods: Pods,
    kills: bool,
    now: u64,
    /// Services whose route is there, and since when the API has been saying so.
    routes: BTreeMap<usize, u64>,
    /// Services whose route was told to the proxy, and when.
    pub(super) told_routes: BTreeMap<usize, u64>,
    /// Slices that the API shows: Service to pods with readiness.
    shown: BTreeMap<usize, BTreeMap<u16, bool>>,
    version: u64,
    /// What the proxy has not been told yet, in order.
    pending: Vec<PendingEvent>,
}

/// What an event tells.
#[derive(Clone)]
enum PendingEvent {
    Slice(usize, BTreeMap<u16, bool>),
    Route(usize, bool),
}

impl Cluster {
    pub(super) fn new(chance: &Chance, kills: bool) -> Self {
        let mut cluster = Self {
            pods: Pods::default(),
            kills,
            now: 0,
            routes: BTreeMap::new(),
            told_routes: BTreeMap::new(),
            shown: BTreeMap::new(),
            version: 1,
            pending: Vec::new(),
        };
        for service in 0..SERVICES {
            for _ in 0..=chance.below(3) {
                let pod = cluster.pods.start(service);
                cluster.become_ready(pod);
            }
            cluster.routes.insert(service, 0);
        }
        cluster.pending.clear();
        cluster
    }

    fn become_ready(&mut self, id: u16) {
        let Some(pod) = self.pods.all.get_mut(&id) else { return };
        pod.life = Life::Ready;
        pod.ready_since = Some(self.now);
        let service = pod.service;
        self.show(service);
    }

    /// The endpoint controller writes the slice anew.
    fn show(&mut self, service: usize) {
        let of = |life, ready| self.pods.of(service, life).into_iter().map(move |id| (id, ready));
        let slice: BTreeMap<u16, bool> = of(Life::Ready, true).chain(of(Life::Ending, false)).collect();
        self.version += 1;
        self.shown.insert(service, slice.clone());
        self.pending.push(PendingEvent::Slice(service, slice));
    }

    fn begin_end(&mut self, id: u16) {
        let Some(pod) = self.pods.all.get_mut(&id) else { return };
        pod.life = Life::Ending;
        pod.ready_since = None;
        let service = pod.service;
        self.show(service);
    }

    fn remove(&mut self, id: u16) {
        if let Some(pod) = self.pods.all.remove(&id) {
            self.show(pod.service);
        }
    }

    fn toggle_route(&mut self, service: usize) {
        let there = self.routes.remove(&service).is_none();
        if there {
            self.routes.insert(service, self.now);
        }
        self.version += 1;
        self.pending.push(PendingEvent::Route(service, there));
    }

    /// Something happens. Returns what follows by itself after a while.
    fn happen(&mut self, chance: &Chance) -> Option<(u64, Follows)> {
        let service = usize::try_from(chance.below(SERVICES as u64)).unwrap();
        let ready = self.pods.of(service, Life::Ready);
        let any = |pods: &[u16]| {
            pods.get(usize::try_from(chance.below(64)).unwrap() % pods.len().max(1))
                .copied()
        };
        match chance.below(10) {
            0..=3 if ready.len() < MOST_PODS => {
                let pod = self.pods.start(service);
                Some((chance.between(10, 2000), Follows::Ready(pod)))
            }
            4..=7 => {
                let pod = any(&ready)?;
                self.begin_end(pod);
                // Pods that are told to end wait some seconds before they do, as everyone is advised.
                Some((chance.between(3000, 8000), Follows::Gone(pod)))
            }
            8 if self.kills => {
                let pod = any(&ready)?;
                self.remove(pod);
                None
            }
            9 if service != 0 => {
                self.toggle_route(service);
                None
            }
            _ => None,
        }
    }

    fn follow(&mut self, follows: Follows) {
        match follows {
            Follows::Ready(pod) => self.become_ready(pod),
            Follows::Gone(pod) => self.remove(pod),
        }
    }

    /// The proxy is about to take this: what it takes away counts from now on.
    fn deliver(&mut self, told: &PendingEvent) {
        let now = self.now;
        match told {
            PendingEvent::Slice(service, slice) => {
                for (id, pod) in self.pods.all.iter_mut().filter(|(_, pod)| pod.service == *service) {
                    match slice.get(id) {
                        Some(true) => pod.told = pod.told.or(Some(now)),
                        _ => pod.told = None,
                    }
                }
            }
            PendingEvent::Route(service, true) => {
                self.told_routes.entry(*service).or_insert(now);
            }
            PendingEvent::Route(service, false) => {
                self.told_routes.remove(service);
            }
        }
    }

    /// Everything as the API shows it now.
    fn all(&self) -> Vec<PendingEvent> {
        let slices = self
            .shown
            .iter()
            .map(|(service, slice)| PendingEvent::Slice(*service, slice.clone()));
        let routes = (0..SERVICES).map(|service| PendingEvent::Route(service, self.routes.contains_key(&service)));
        slices.chain(routes).collect()
    }

    fn change(&self, told: &PendingEvent) -> Change {
        match told {
            PendingEvent::Slice(service, slice) => Change::Slice(Event::Apply(self.slice(*service, slice))),
            PendingEvent::Route(service, true) => Change::Ingress(Event::Apply(self.ingress(*service))),
            PendingEvent::Route(service, false) => Change::Ingress(Event::Delete(self.ingress(*service))),
        }
    }

    fn meta(&self, name: &str) -> Value {
        json!({ "name": name, "namespace": "d", "resourceVersion": self.version.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z" })
    }

    fn slice(&self, service: usize, slice: &BTreeMap<u16, bool>) -> SliceObject {
        let mut meta = self.meta(&format!("s{service}-x"));
        meta["labels"] = json!({ "kubernetes.io/service-name": format!("s{service}") });
        let endpoint = |(id, ready): (&u16, &bool)| json!({ "addresses": [ip(*id)], "conditions": { "ready": ready, "serving": true, "terminating": !ready } });
        let endpoints: Vec<_> = slice.iter().map(endpoint).collect();
        object(json!({ "metadata": meta, "ports": [{ "name": "", "port": 80 }], "endpoints": endpoints }))
    }

    fn ingress(&self, service: usize) -> IngressObject {
        let name = format!("s{service}");
        let backend = json!({ "service": { "name": name, "port": { "number": 80 } } });
        let path = json!({ "path": "/", "pathType": "Prefix", "backend": backend });
        object(
            json!({ "metadata": self.meta(&name), "spec": { "ingressClassName": "landfall",
            "rules": [{ "host": name, "http": { "paths": [path] } }] } }),
        )
    }

    /// A whole list, with a break in the middle of it now and then. The second value is what it tells once it is whole.
    fn list(&self, chance: &Chance) -> (Vec<Change>, Vec<PendingEvent>) {
        let all = self.all();
        let service = |s: usize| -> ServiceObject {
            object(json!({ "metadata": self.meta(&format!("s{s}")), "spec": { "ports": [{ "port": 80 }] } }))
        };
        let class: ClassObject = object(json!({ "metadata": { "name": "landfall", "resourceVersion": "1" },
            "spec": { "controller": "landfall.dev/ingress" } }));
        let mut changes = vec![
            Change::Class(Event::Init),
            Change::Class(Event::InitApply(class)),
            Change::Class(Event::InitDone),
            Change::Namespace(Event::Init),
            Change::Namespace(Event::InitDone),
            Change::Service(Event::Init),
        ];
        changes.extend((0..SERVICES).map(|s| Change::Service(Event::InitApply(service(s)))));
        changes.extend([
            Change::Service(Event::InitDone),
            Change::Ingress(Event::Init),
            Change::Slice(Event::Init),
        ]);
        let mut listed: Vec<Change> = Vec::new();
        for told in &all {
            match told {
                PendingEvent::Slice(service, slice) => {
                    listed.push(Change::Slice(Event::InitApply(self.slice(*service, slice))))
                }
                PendingEvent::Route(service, true) => {
                    listed.push(Change::Ingress(Event::InitApply(self.ingress(*service))))
                }
                PendingEvent::Route(_, false) => {}
            }
        }
        if chance.percent(50) {
            let broken = usize::try_from(chance.below(listed.len() as u64)).unwrap();
            changes.extend(listed.iter().take(broken).cloned());
            changes.extend([Change::Ingress(Event::Init), Change::Slice(Event::Init)]);
        }
        changes.extend(listed);
        changes.extend([Change::Ingress(Event::InitDone), Change::Slice(Event::InitDone)]);
        (changes, all)
    }
}

/// What follows by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Follows {
    Ready(u16),
    Gone(u16),
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Lets the cluster live.
pub(super) async fn happen(stage: Rc<Stage>) {
    let mut later: BTreeSet<(u64, Follows)> = BTreeSet::new();
    let mut next = 0;
    while stage.clock.now() < LENGTH_MS {
        let first = later.first().map_or(next, |(at, _)| next.min(*at));
        stage.clock.sleep(first.saturating_sub(stage.clock.now())).await;
        let now = stage.clock.now();
        let mut cluster = stage.cluster.borrow_mut();
        cluster.now = now;
        if let Some((at, follows)) = later.first().copied()
            && at <= now
        {
            later.pop_first();
            cluster.follow(follows);
            continue;
        }
        if let Some((after, follows)) = cluster.happen(&stage.chance) {
            later.insert((now + after, follows));
        }
        next = now + stage.chance.between(5, 400);
    }
}

/// Sends events in order, each a while after its change; or nothing for long, and then a list.
pub(super) async fn tell(stage: Rc<Stage>) {
    relist(&stage).await;
    while stage.clock.now() < LENGTH_MS {
        stage.clock.sleep(stage.chance.between(1, 30)).await;
        if stage.chance.below(2000) == 0 {
            // The API server is away, and what happened meanwhile is forgotten.
            stage.clock.sleep(stage.chance.between(1000, 15_000)).await;
            relist(&stage).await;
            continue;
        }
        let next = {
            let mut cluster = stage.cluster.borrow_mut();
            (!cluster.pending.is_empty()).then(|| cluster.pending.remove(0))
        };
        if let Some(told) = next {
            let change = stage.cluster.borrow().change(&told);
            stage.tell_of(&[told]);
            stage.tell(change);
        }
    }
}

async fn relist(stage: &Rc<Stage>) {
    let (list, told) = stage.cluster.borrow().list(&stage.chance);
    // What the API said when the list began; what changed since follows as events.
    stage.cluster.borrow_mut().pending.clear();
    // The lists of Ingresses and slices are whole with the last two events; what they take away counts from before that.
    let last = list.len() - 2;
    for (i, change) in list.into_iter().enumerate() {
        if stage.chance.percent(30) {
            stage.clock.sleep(stage.chance.between(1, 200)).await;
        }
        if i == last {
            stage.tell_of(&told);
        }
        stage.tell(change);
    }
}

impl Stage {
    fn tell_of(&self, told: &[PendingEvent]) {
        let mut cluster = self.cluster.borrow_mut();
        cluster.now = self.clock.now();
        told.iter().for_each(|told| cluster.deliver(told));
    }
}
