//! Which Ingresses have to do with a host, a Service or a Secret, there or not: so that what comes later is picked up, and a change of
//! one of them costs those Ingresses alone.
//!
//! Names are kept as hashes: two with one hash cost an unneeded look, never a missed one.

use super::kept::Kept;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// What an Ingress can have to do with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Topic<'a> {
    /// A host, as in [`super::Host::name`].
    Host(&'a str),
    /// Namespace and name of a Service.
    Service(&'a str, &'a str),
    /// Namespace and name of a Secret or ConfigMap: one of the other kind costs an unneeded look.
    Secret(&'a str, &'a str),
}

/// The index: hashes of topics, with the places in memory of those that have to do with them.
#[derive(Debug, Default)]
pub(super) struct Index {
    hasher: RandomState,
    who: BTreeMap<(u64, usize), Arc<Kept>>,
}

impl Index {
    fn key(&self, topic: &Topic<'_>, kept: &Arc<Kept>) -> (u64, usize) {
        (self.hasher.hash_one(topic), Arc::as_ptr(kept).addr())
    }

    /// An Ingress has to do with this; once, however often it is said.
    pub(super) fn add(&mut self, topic: &Topic<'_>, kept: &Arc<Kept>) {
        self.who.insert(self.key(topic, kept), Arc::clone(kept));
    }

    /// The opposite, for the very same.
    pub(super) fn remove(&mut self, topic: &Topic<'_>, kept: &Arc<Kept>) {
        self.who.remove(&self.key(topic, kept));
    }

    /// All that have to do with this, in no order; some may have not.
    pub(super) fn who<'a>(&'a self, topic: &Topic<'_>) -> impl Iterator<Item = &'a Arc<Kept>> + use<'a> {
        let hash = self.hasher.hash_one(topic);
        self.who.range((hash, 0)..=(hash, usize::MAX)).map(|(_, kept)| kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everyone_is_found_by_what_it_has_to_do_with() {
        let mut index = Index::default();
        let [a, b] = ["a", "b"].map(|name| {
            let ingress = json!({ "metadata": { "namespace": "d", "name": name } });
            Arc::new(Kept::foreign(Arc::new(serde_json::from_value(ingress).unwrap())))
        });
        let host = Topic::Host("h");
        for kept in [&b, &a, &b] {
            index.add(&host, kept);
        }
        index.add(&Topic::Service("d", "h"), &a);
        let who = |index: &Index, topic: &Topic<'_>| {
            let mut labels: Vec<_> = index.who(topic).map(|kept| kept.newest.label.to_string()).collect();
            labels.sort();
            labels
        };
        assert_eq!(who(&index, &host), ["d/a", "d/b"]);
        assert_eq!(who(&index, &Topic::Service("d", "h")), ["d/a"]);
        assert_eq!(who(&index, &Topic::Secret("d", "h")), [""; 0]);
        index.remove(&host, &a);
        assert_eq!(who(&index, &host), ["d/b"]);
    }
}
