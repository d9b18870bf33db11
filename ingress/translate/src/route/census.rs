//! What all Ingresses of ours ask for together, so that a change of one need not look at the others.

use super::certificates::TlsRequest;
use super::index::Index;
use super::kept::{Kept, Served};
use super::topic::Topic;
use crate::options::Options;
use crate::secrets::{Name, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Names and numbers of all Ingresses of ours.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// Who has to do with what.
    pub(super) index: Index,
    /// Those of which an older version is served.
    pub(super) replaced: BTreeSet<Arc<str>>,
    /// Those with a default backend and without rules.
    pub(super) with_default: BTreeSet<Arc<str>>,
    /// Those with a certificate for hosts without.
    pub(super) with_certificate: BTreeSet<Arc<str>>,
    /// Hosts whose other name is to redirect to them.
    pub(super) redirected: usize,
    /// How many there are.
    pub(super) count: usize,
    /// How many name each Secret.
    secrets: BTreeMap<Name, usize>,
}

/// What a change of one Ingress touches beside its hosts.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) default: bool,
    pub(super) certificate: bool,
    /// Other Secrets are named than before.
    pub(super) wanted: bool,
}

impl Census {
    /// Counts an Ingress in.
    pub(super) fn add(&mut self, kept: &Arc<Kept>, options: &Options, touched: &mut Touched) {
        let Some(served) = &kept.served else { return };
        let label = &kept.newest.label;
        served.hosts(|host| self.index.add(&Topic::Host(host), kept));
        kept.topics(options, |topic| self.index.add(&topic, kept));
        kept.secrets(options, |named| {
            let Some(name) = named.wanted() else { return };
            let count = self.secrets.entry(name).or_insert(0);
            *count += 1;
            touched.wanted |= *count == 1;
        });
        if kept.is_replaced() {
            self.replaced.insert(Arc::clone(label));
        }
        if served.has_general_default() {
            touched.default |= self.with_default.insert(Arc::clone(label));
        }
        if tls_requests(served).next().is_some() {
            touched.certificate |= self.with_certificate.insert(Arc::clone(label));
        }
        self.redirected += served.redirected().count();
        self.count += 1;
    }

    /// Counts an Ingress out that was counted in just like this.
    pub(super) fn remove(&mut self, kept: &Arc<Kept>, options: &Options, touched: &mut Touched) {
        let Some(served) = &kept.served else { return };
        let label = &kept.newest.label;
        served.hosts(|host| self.index.remove(&Topic::Host(host), kept));
        kept.topics(options, |topic| self.index.remove(&topic, kept));
        kept.secrets(options, |named| {
            let Some(name) = named.wanted() else { return };
            let Some(count) = self.secrets.get_mut(&name) else {
                return;
            };
            *count -= 1;
            if *count == 0 {
                self.secrets.remove(&name);
                touched.wanted = true;
            }
        });
        self.replaced.remove(label);
        touched.default |= self.with_default.remove(label);
        touched.certificate |= self.with_certificate.remove(label);
        self.redirected -= served.redirected().count();
        self.count -= 1;
    }

    /// Every Secret that is named.
    pub(super) fn secrets(&self) -> Wanted {
        self.secrets.keys().cloned().collect()
    }
}

/// Its certificates for hosts without.
pub(super) fn tls_requests(served: &Served) -> impl Iterator<Item = TlsRequest<'_>> {
    let main = !served.is_canary();
    let items = served.version.tls.iter();
    let items = items.filter(move |item| main && item.hosts.is_empty());
    items.filter_map(|item| {
        Some(TlsRequest {
            host: "",
            ingress: &served.version,
            secret: Some(item.secret.as_deref()?),
        })
    })
}
