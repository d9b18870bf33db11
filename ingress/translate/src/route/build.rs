//! Objects of the API to one [`Snapshot`] after another. Pure: the same objects give the same table, in whatever order they come.
//!
//! ```text
//! Changes ──> Ingresses judged anew ──> their hosts, old and new ──> each made by assemble.rs
//!    └─ Services, Secrets ──index.rs──> Ingresses that name them ──┘         └──> put among the others, which are shared
//! ```
//!
//! INVARIANT: a table that came by changes is the one that is made of the same objects at once (`kubernetes/src/watch/changes.rs`).

use super::Snapshot;
use super::assemble::Assembly;
use super::census::{Census, Touched, tls_requests};
use super::certificates;
use super::class::{Class, Classes};
use super::endpoints::{Elsewhere, Resolver};
use super::kept::{Kept, Served, other_name};
use super::last_good::LastGood;
use super::snapshot::HostRemarks;
use super::topic::Topic;
use crate::object::Ingress;
use crate::options::Options;
use crate::secrets::Name;
#[cfg(any(test, feature = "testing"))]
use crate::secrets::lookup::NoSecrets;
use crate::secrets::lookup::Secrets;
use crate::services::Services;
use landfall_ingress_routing::{Route, VirtualHost};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Objects as the API has them.
#[derive(Debug, Default)]
pub struct Objects {
    /// All Ingresses.
    pub ingresses: Vec<Arc<Ingress>>,
    /// All classes.
    pub classes: Vec<Arc<Class>>,
    /// All Services with their endpoints. They change beside the table, which only shares their backends.
    pub services: Arc<Services>,
}

/// What is different since the last table.
#[derive(Debug, Default)]
pub struct Changes {
    /// Ingresses by their label; `None` is gone.
    pub ingresses: HashMap<Arc<str>, Option<Arc<Ingress>>>,
    /// All classes, when one of them is different.
    pub classes: Option<Vec<Arc<Class>>>,
    /// Services whose ports or kind are different, by namespace and name.
    pub services: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Secrets that are different.
    pub secrets: BTreeSet<Name>,
}

#[cfg(feature = "testing")]
impl Changes {
    /// Nothing is different.
    pub fn is_empty(&self) -> bool {
        self.ingresses.is_empty() && self.classes.is_none() && self.services.is_empty() && self.secrets.is_empty()
    }
}

/// A table, and how it came about.
#[derive(Debug)]
pub struct Built {
    /// The table.
    pub snapshot: Snapshot,
    /// Every host was made anew.
    pub whole: bool,
}

/// Which general remarks are which.
const OF_CLASSES: usize = 0;
const OF_DEFAULT: usize = 1;
const OF_CERTIFICATE: usize = 2;

/// Makes one table after another.
#[derive(Debug, Default)]
pub struct Builder {
    options: Options,
    /// The operator's certificate for hosts without.
    default_certificate: Option<Name>,
    /// Good versions that another process kept, until the first table.
    inherited: BTreeMap<Arc<str>, Arc<Ingress>>,
    classes: Classes,
    services: Arc<Services>,
    elsewhere: RefCell<Elsewhere>,
    census: Census,
    /// The newest table.
    now: Snapshot,
    built: bool,
}

/// What has to be made anew.
#[derive(Debug, Default)]
struct Stale {
    /// All hosts and wildcards, in order: what stands below a wildcard needs to find it made.
    wide: BTreeSet<Arc<str>>,
    precise: HashSet<Arc<str>>,
    touched: Touched,
    /// Every host.
    whole: bool,
}

impl Builder {
    /// Starts with nothing.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// Starts with the good versions that another process kept.
    pub fn with_last_good(mut self, last: LastGood) -> Self {
        let versions = last.into_versions().into_iter();
        self.inherited = versions.map(|version| (Arc::clone(&version.label), version)).collect();
        self
    }

    /// Serves this certificate on hosts that have none.
    pub fn with_default_certificate(mut self, secret: Option<Name>) -> Self {
        self.default_certificate = secret;
        self
    }

    /// Returns good versions whose newest one is bad, for the next process.
    pub fn last_good(&self) -> LastGood {
        let replaced = self.census.replaced.iter();
        let kept = replaced.filter_map(|label| self.now.ingresses.get(label));
        LastGood::of(kept.filter_map(|kept| kept.good().cloned()).collect())
    }

    /// Builds the table of these objects, whatever they were before.
    pub fn build(&mut self, objects: &Objects, secrets: &dyn Secrets) -> Snapshot {
        let known = self.now.ingresses.values().map(|kept| Arc::clone(&kept.newest.label));
        let mut ingresses: HashMap<_, _> = known.map(|label| (label, None)).collect();
        let listed = objects.ingresses.iter();
        ingresses.extend(listed.map(|ingress| (Arc::clone(&ingress.label), Some(Arc::clone(ingress)))));
        let changes = Changes {
            ingresses,
            classes: Some(objects.classes.clone()),
            secrets: self.now.wanted.iter().cloned().collect(),
            ..Changes::default()
        };
        self.update(changes, &objects.services, secrets).snapshot
    }

    /// Builds the table that follows from the one before. `services` is the same store each time, or everything is made anew.
    pub fn update(&mut self, mut changes: Changes, services: &Arc<Services>, secrets: &dyn Secrets) -> Built {
        let mut stale = Stale::default();
        if !self.built {
            // That there are none is worth a remark.
            changes.classes.get_or_insert_default();
        }
        let whole = changes.classes.is_some() || !Arc::ptr_eq(&self.services, services);
        if whole {
            self.services = Arc::clone(services);
            stale.touched = Touched {
                default: true,
                certificate: true,
                wanted: true,
            };
            stale.whole = true;
        }
        if let Some(classes) = &changes.classes {
            let mut remarks = vec![];
            self.classes = Classes::find(classes, &self.options, &mut remarks);
            self.now.general_remarks[OF_CLASSES] = remarks.into();
        }
        let again = self.judged_again(&changes);
        if let Some(secret) = &self.default_certificate {
            stale.touched.certificate |= changes.secrets.contains(secret);
        }
        for (label, newest) in &changes.ingresses {
            self.settle(label, newest.as_ref(), secrets, &mut stale);
        }
        for newest in &again {
            self.settle(&newest.label, Some(newest), secrets, &mut stale);
        }
        if whole {
            self.now.ingresses.values().for_each(|kept| mark(kept, &mut stale));
        }
        for (namespace, name) in &changes.services {
            for kept in self.census.index.who(&Topic::Service(namespace, name)) {
                mark(kept, &mut stale);
                stale.touched.default |= self.census.with_default.contains(&kept.newest.label);
            }
        }
        self.make(stale, secrets);
        // What another process kept of Ingresses that are gone is of no use.
        self.inherited.clear();
        self.now.ours = self.census.count;
        self.built = true;
        Built {
            snapshot: self.now.clone(),
            whole,
        }
    }

    /// Ingresses that are the same but mean something else: they name a Secret that is different, or come under another class.
    fn judged_again(&self, changes: &Changes) -> Vec<Arc<Ingress>> {
        let secrets = changes.secrets.iter();
        let topics = secrets.map(|secret| Topic::Secret(secret.namespace(), secret.name()));
        let naming = topics.flat_map(|topic| self.census.index.who(&topic));
        let all = self.now.ingresses.values().filter(|_| changes.classes.is_some());
        let moved = all.filter(|kept| kept.served.is_some() != self.classes.have(&kept.newest));
        let same = |newest: &&Arc<Ingress>| !changes.ingresses.contains_key(&newest.label);
        let again = naming.chain(moved).map(|kept| &kept.newest).filter(same);
        again.cloned().collect()
    }

    /// Takes in a version of an Ingress, or its end.
    fn settle(&mut self, label: &Arc<str>, newest: Option<&Arc<Ingress>>, secrets: &dyn Secrets, stale: &mut Stale) {
        let kept = newest.map(|newest| Arc::new(self.judge(newest, secrets)));
        let before = match &kept {
            Some(kept) => self.now.ingresses.put(Arc::clone(kept)),
            None => self.now.ingresses.remove(label),
        };
        if let Some(before) = &before {
            mark(before, stale);
            self.census.remove(before, &self.options, &mut stale.touched);
        }
        if let Some(kept) = &kept {
            // In the end all are marked.
            if !stale.whole {
                mark(kept, stale);
            }
            self.census.add(kept, &self.options, &mut stale.touched);
        }
    }

    fn judge(&self, newest: &Arc<Ingress>, secrets: &dyn Secrets) -> Kept {
        let newest = Arc::clone(newest);
        if !self.classes.have(&newest) {
            return Kept::foreign(newest);
        }
        let label = Arc::clone(&newest.label);
        let known = || self.now.ingresses.get(&label)?.good().cloned();
        let good = || known().or_else(|| self.inherited.get(&label).cloned());
        Kept::judge(newest, good, secrets, &self.options)
    }

    /// Makes what is stale.
    fn make(&mut self, mut stale: Stale, secrets: &dyn Secrets) {
        if stale.touched.wanted {
            let mut wanted = self.census.secrets();
            wanted.extend(self.default_certificate.clone());
            self.now.wanted = Arc::new(wanted);
        }
        if stale.touched.certificate {
            self.make_default_certificate(secrets);
        }
        if stale.touched.default {
            let before = Arc::clone(self.now.table.defaults());
            self.make_default(secrets);
            let backends = |defaults: &BTreeMap<Arc<str>, Arc<Route>>| {
                let backends = defaults.iter();
                let backends = backends.map(|(of, route)| (Arc::clone(of), Arc::as_ptr(&route.backend)));
                backends.collect::<Vec<_>>()
            };
            if backends(&before) != backends(self.now.table.defaults()) {
                self.mark_replaced_answers(&mut stale);
            }
        }
        if self.census.redirected > 0 {
            let others = stale.precise.iter().filter_map(|host| Some(other_name(host)?.into()));
            let others: Vec<Arc<str>> = others.collect();
            stale.precise.extend(others);
        }
        for host in std::mem::take(&mut stale.wide) {
            let before = self.make_host(&host, secrets);
            let Some(parent) = host.strip_prefix("*.") else {
                continue;
            };
            if standing(before.as_ref()) != standing(self.now.table.wildcard(parent)) {
                let below = |host: &&Arc<str>| host.split_once('.').is_some_and(|(_, of)| of == parent);
                // Of some hosts there are only remarks, which depend on the wildcard too.
                let said = self.now.host_remarks.values().map(|entry| &entry.host);
                let hosts = self.now.table.hosts().map(|entry| &entry.name).chain(said);
                stale.precise.extend(hosts.filter(below).cloned());
            }
        }
        for host in stale.precise {
            self.make_host(&host, secrets);
        }
        self.elsewhere
            .get_mut()
            .retain(|_, (_, backend)| backend.strong_count() > 0);
    }

    fn assembly<'a>(&'a self, secrets: &'a dyn Secrets) -> Assembly<'a> {
        Assembly {
            resolver: Resolver {
                services: &self.services,
                options: &self.options,
                elsewhere: &self.elsewhere,
            },
            secrets,
            index: &self.census.index,
            table: &self.now.table,
        }
    }

    /// Makes a host anew, or takes it away. Returns what was there.
    fn make_host(&mut self, name: &Arc<str>, secrets: &dyn Secrets) -> Option<Arc<VirtualHost>> {
        let (made, remarks) = self.assembly(secrets).host(name);
        match remarks.is_empty() {
            true => drop(self.now.host_remarks.remove(name)),
            false => {
                let host = Arc::clone(name);
                let remarks = remarks.into();
                self.now.host_remarks.put(Arc::new(HostRemarks { host, remarks }));
            }
        }
        let table = Arc::make_mut(&mut self.now.table);
        match made {
            Some(made) => table.put(made),
            None => table.remove(name),
        }
    }

    /// These Ingresses, oldest first.
    fn by_age<'a>(&'a self, labels: &'a BTreeSet<Arc<str>>) -> Vec<&'a Served> {
        let kept = labels.iter().filter_map(|label| self.now.ingresses.get(label));
        let mut all: Vec<_> = kept.filter_map(|kept| kept.served.as_ref()).collect();
        all.sort_by(|a, b| a.version.age().cmp(&b.version.age()));
        all
    }

    /// S8: the oldest without rules has the default backend of hosts that no Ingress names, and that of each namespace the one of its hosts.
    fn make_default(&mut self, secrets: &dyn Secrets) {
        let mut remarks = vec![];
        let (mut first, mut defaults) = (None, BTreeMap::new());
        for served in self.by_age(&self.census.with_default) {
            if defaults.contains_key(served.namespace()) {
                continue;
            }
            let made = self.assembly(secrets).default_route(served, &mut remarks).map(Arc::new);
            let Some(route) = made else { continue };
            first.get_or_insert_with(|| Arc::clone(&route));
            defaults.insert(Arc::clone(served.namespace()), route);
        }
        Arc::make_mut(&mut self.now.table).set_defaults(first, defaults);
        self.now.general_remarks[OF_DEFAULT] = remarks.into();
    }

    fn make_default_certificate(&mut self, secrets: &dyn Secrets) {
        let mut remarks = vec![];
        let held = match &self.default_certificate {
            Some(secret) => Some(certificates::operators(secret, secrets, &mut remarks)),
            None => {
                let all = self
                    .by_age(&self.census.with_certificate)
                    .into_iter()
                    .flat_map(tls_requests);
                certificates::claim_default(all, secrets, &mut remarks)
            }
        };
        Arc::make_mut(&mut self.now.table).set_default_certificate(held);
        self.now.general_remarks[OF_CERTIFICATE] = remarks.into();
    }

    /// Routes whose answers that backend replaces.
    fn mark_replaced_answers(&self, stale: &mut Stale) {
        for kept in self.now.ingresses.values() {
            let asks = |served: &Served| {
                let asked = &served.asked;
                asked.fallback.is_none() && !asked.policy.replaced_statuses.is_empty()
            };
            if kept.served.as_ref().is_some_and(asks) {
                mark(kept, stale);
            }
        }
    }
}

/// Its hosts have to be made anew.
fn mark(kept: &Kept, stale: &mut Stale) {
    let Some(served) = &kept.served else { return };
    served.hosts(|host| {
        let host = Arc::clone(host);
        match host.is_empty() || host.starts_with("*.") {
            true => stale.wide.insert(host),
            false => stale.precise.insert(host),
        };
    });
}

/// Whose a wildcard is, and its certificate.
fn standing(entry: Option<&Arc<VirtualHost>>) -> (Option<Arc<str>>, Option<Arc<str>>) {
    let owner = entry.filter(|entry| entry.is_routed());
    let held = entry.and_then(|entry| entry.held.as_ref());
    (
        owner.map(|entry| Arc::clone(&entry.host.namespace)),
        held.map(|held| Arc::clone(&held.namespace)),
    )
}

#[cfg(any(test, feature = "testing"))]
impl Snapshot {
    /// Builds one table of classes of this name, without memory of earlier ones and without Secrets.
    pub fn build(objects: &Objects, class: &str) -> Self {
        let options = Options {
            class: Some(class.to_owned()),
            ..Options::default()
        };
        Builder::new(options).build(objects, &NoSecrets)
    }
}
