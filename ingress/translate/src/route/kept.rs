//! What is kept of each Ingress between two tables: its newest version, the one that is served of it, and what that asks for.
//!
//! A version that cannot be used leaves the last good one in service. What protects always comes from the newest.

use super::compile::{IngressSettings, judge};
use super::topic::Topic;
use crate::annotations::{Use, named_secrets};
use crate::object::{Destination, Ingress, Rule};
use crate::options::Options;
use crate::remark::{Reason, Remark, Severity};
use crate::secrets::lookup::Secrets;
use landfall_ingress_routing::shared::Keyed;
use landfall_ingress_routing::target::Place;
use std::sync::Arc;

/// An Ingress.
#[derive(Debug)]
pub(super) struct Kept {
    /// As the API has it.
    pub(super) newest: Arc<Ingress>,
    /// What is served of it; `None` when it is of no class of ours.
    pub(super) served: Option<Served>,
}

/// What is served of an Ingress.
#[derive(Debug)]
pub(super) struct Served {
    /// The version whose hosts and paths count.
    pub(super) version: Arc<Ingress>,
    pub(super) asked: Arc<IngressSettings>,
    /// What is to be said of it alone.
    pub(super) remarks: Box<[Remark]>,
    /// Can be used as it is.
    good: bool,
}

impl Keyed for Kept {
    fn key(&self) -> &str {
        &self.newest.label
    }
}

impl Kept {
    /// One that is left alone.
    pub(super) fn foreign(newest: Arc<Ingress>) -> Self {
        Self { newest, served: None }
    }

    /// Judges the newest version. `good` looks up the last good one that is known.
    pub(super) fn judge(
        newest: Arc<Ingress>,
        good: impl FnOnce() -> Option<Arc<Ingress>>,
        secrets: &dyn Secrets,
        options: &Options,
    ) -> Self {
        let judged = judge(&newest, secrets, options);
        let good = judged.bad.then(good).flatten();
        // One that was deleted and made again has nothing to do with the old one.
        let served = match good.filter(|good| good.uid == newest.uid) {
            Some(good) => {
                let asked = judge(&good, secrets, options)
                    .asked
                    .protected_like(&judged.asked.policy);
                let mut remarks = judged.remarks;
                remarks.push(Remark::ingress(
                    &newest.namespace,
                    newest.name(),
                    Severity::Refused,
                    Reason::LastGoodKept,
                    "its newest version cannot be used; the last good one is served, with the newest one's protection",
                ));
                Served {
                    version: good,
                    asked: Arc::new(asked),
                    remarks: remarks.into(),
                    good: true,
                }
            }
            None => Served {
                version: Arc::clone(&newest),
                asked: judged.asked,
                remarks: judged.remarks.into(),
                good: !judged.bad,
            },
        };
        Self {
            newest,
            served: Some(served),
        }
    }

    /// The last version that could be used.
    pub(super) fn good(&self) -> Option<&Arc<Ingress>> {
        self.served
            .as_ref()
            .filter(|served| served.good)
            .map(|served| &served.version)
    }

    /// Whether an older version is served.
    pub(super) fn is_replaced(&self) -> bool {
        let served = self.served.as_ref();
        served.is_some_and(|served| !Arc::ptr_eq(&served.version, &self.newest))
    }

    /// Every Secret and ConfigMap that it names and may name; some twice.
    pub(super) fn secrets(&self, options: &Options, mut tell: impl FnMut(&Use)) {
        let Some(served) = &self.served else { return };
        let older = Some(&served.version).filter(|_| self.is_replaced());
        for version in std::iter::once(&self.newest).chain(older) {
            for named in named_secrets(version, options) {
                tell(&named);
            }
        }
    }

    /// Everything that it has to do with, hosts apart; some twice.
    pub(super) fn topics(&self, options: &Options, mut tell: impl FnMut(Topic<'_>)) {
        let Some(served) = &self.served else { return };
        let namespace = &*served.version.namespace;
        let paths = served.version.rules.iter().flat_map(|rule| &rule.paths);
        let destinations = paths.map(|path| &path.to).chain(served.version.default.as_deref());
        for destination in destinations {
            if let Destination::Service { name, .. } = destination {
                tell(Topic::Service(namespace, name));
            }
        }
        if let Some(name) = &served.asked.fallback {
            tell(Topic::Service(namespace, name));
        }
        let policy = &served.asked.policy;
        let asked = policy.external_auth.as_ref().map(|auth| &auth.target.place);
        let copied = policy.mirror.as_ref().map(|mirror| &mirror.place.place);
        for place in asked.into_iter().chain(copied) {
            if let Place::Service { namespace, name, .. } = place {
                tell(Topic::Service(namespace, name));
            }
        }
        self.secrets(options, |named| tell(Topic::Secret(&named.namespace, &named.name)));
    }
}

impl Served {
    pub(super) fn namespace(&self) -> &Arc<str> {
        &self.version.namespace
    }

    /// Offers alternatives to the routes of others, and has no hosts of its own.
    pub(super) fn is_canary(&self) -> bool {
        self.asked.canary.is_some()
    }

    /// It has a default backend for hosts that no Ingress names: one with rules has its own for their hosts.
    pub(super) fn has_general_default(&self) -> bool {
        !self.is_canary() && self.version.default.is_some() && self.version.rules.is_empty()
    }

    /// Its rules for a host, as written. The name is mostly the very same text, which is then not read.
    pub(super) fn rules<'a>(&'a self, host: &Arc<str>) -> impl Iterator<Item = &'a Rule> {
        let rules = self.version.rules.iter();
        rules.filter(move |rule| rule.host.valid && rule.host.name == *host)
    }

    /// Whether it has another name for its hosts.
    pub(super) fn has_alias(&self, host: &str) -> bool {
        self.asked.aliases.iter().any(|alias| **alias == *host)
    }

    /// Hosts of its rules whose other name is to redirect to them.
    pub(super) fn redirected(&self) -> impl Iterator<Item = &Arc<str>> {
        let wanted = self.asked.policy.redirects.www && !self.is_canary();
        let hosts = self.version.rules.iter().map(|rule| &rule.host);
        hosts.filter(move |host| wanted && host.valid).map(|host| &host.name)
    }

    /// Every host that it has to do with; some twice.
    pub(super) fn hosts(&self, mut tell: impl FnMut(&Arc<str>)) {
        let rules = self.version.rules.iter().map(|rule| &rule.host);
        let named = rules.chain(self.version.tls.iter().flat_map(|item| &item.hosts));
        for host in named.filter(|host| host.valid) {
            tell(&host.name);
        }
        self.asked.aliases.iter().for_each(&mut tell);
        for other in self.redirected().filter_map(|host| other_name(host)) {
            tell(&other.into());
        }
    }
}

/// The name with `www.` in front, or without.
pub(super) fn other_name(host: &str) -> Option<String> {
    if host.is_empty() || host.starts_with("*.") {
        return None;
    }
    let bare = host.strip_prefix("www.");
    Some(bare.map_or_else(|| format!("www.{host}"), str::to_owned))
}
