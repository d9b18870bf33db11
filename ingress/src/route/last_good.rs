//! The last version of each Ingress that could be used. It is served when a newer one cannot be, and travels to the next process.

use super::Options;
use super::compile::Compiled;
use super::remark::{Reason, Remark, Severity};
use crate::annotations::{Secrets, named_secrets};
use k8s_openapi::api::networking::v1::Ingress;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Good versions of Ingresses whose newest version is bad; all others can be read from the API again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LastGood {
    /// Version of this form.
    version: u32,
    ingresses: Vec<Ingress>,
}

/// Goes up when the form changes; a state of another version is left out.
const VERSION: u32 = 1;

/// What is kept of each Ingress between two tables.
#[derive(Debug, Default)]
pub(super) struct Versions(BTreeMap<(String, String), Kept>);

#[derive(Debug)]
struct Kept {
    newest: Option<Arc<Ingress>>,
    good: Option<Arc<Ingress>>,
    /// Secrets that `compiled` saw.
    secrets: Vec<String>,
    compiled: Option<Arc<Compiled>>,
}

fn key(ingress: &Ingress) -> (String, String) {
    let meta = &ingress.metadata;
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

impl Versions {
    /// Begins with what another process kept.
    pub(super) fn with(last: LastGood) -> Self {
        let ingresses = if last.version == VERSION {
            last.ingresses
        } else {
            vec![]
        };
        let kept = ingresses.into_iter().map(|ingress| {
            let kept = Kept {
                newest: None,
                good: Some(Arc::new(ingress.clone())),
                secrets: vec![],
                compiled: None,
            };
            (key(&ingress), kept)
        });
        Self(kept.collect())
    }

    /// What the next process needs.
    pub(super) fn last_good(&self) -> LastGood {
        let replaced = self.0.values().filter_map(|kept| {
            let good = kept.good.as_ref()?;
            let newest = kept.newest.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, good));
            (!newest).then(|| Ingress::clone(good))
        });
        LastGood {
            version: VERSION,
            ingresses: replaced.collect(),
        }
    }

    /// Forgets Ingresses that are gone.
    pub(super) fn keep(&mut self, ours: &[&Arc<Ingress>]) {
        let there: BTreeSet<_> = ours.iter().map(|ingress| key(ingress)).collect();
        self.0.retain(|key, _| there.contains(key));
    }

    /// Compiles an Ingress, or takes what was compiled of the same before.
    pub(super) fn compile(
        &mut self,
        ingress: &Arc<Ingress>,
        secrets: &dyn Secrets,
        options: &Options,
    ) -> Arc<Compiled> {
        let seen: Vec<String> = named_secrets(ingress, options)
            .iter()
            .filter(|named| named.by != "tls")
            .map(|named| secrets.version(&named.namespace, &named.name))
            .collect();
        let kept = self.0.entry(key(ingress)).or_insert_with(|| Kept {
            newest: None,
            good: None,
            secrets: vec![],
            compiled: None,
        });
        let same = kept.newest.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, ingress)) && kept.secrets == seen;
        if let Some(compiled) = kept.compiled.as_ref().filter(|_| same) {
            return Arc::clone(compiled);
        }
        // One that was deleted and made again has nothing to do with the old one.
        if kept
            .good
            .as_ref()
            .is_some_and(|good| good.metadata.uid != ingress.metadata.uid)
        {
            kept.good = None;
        }
        let newest = Compiled::of(ingress, secrets, options);
        let compiled = match &kept.good {
            _ if !newest.bad => {
                kept.good = Some(Arc::clone(ingress));
                newest
            }
            Some(good) => instead(Compiled::of(good, secrets, options), newest),
            None => newest,
        };
        let compiled = Arc::new(compiled);
        kept.newest = Some(Arc::clone(ingress));
        kept.secrets = seen;
        kept.compiled = Some(Arc::clone(&compiled));
        compiled
    }
}

/// The old version with what the newest says about protection, and what is wrong with the newest.
fn instead(mut old: Compiled, newest: Compiled) -> Compiled {
    old.protect_like(&newest.policy);
    old.remarks = newest.remarks;
    old.remarks.push(Remark::ingress(
        &old.namespace,
        &old.name,
        Severity::Refused,
        Reason::LastGoodKept,
        "its newest version cannot be used; the last good one is served, with the newest one's protection",
    ));
    old
}
