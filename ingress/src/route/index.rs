//! Which Ingresses have to do with a host, a Service or a Secret, there or not: so that what comes later is picked up, and a change of
//! one of them costs those Ingresses alone.
//!
//! Names are kept as hashes: two with one hash cost an unneeded look, never a missed one.

use std::collections::BTreeSet;
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

/// The index: hashes of topics with the labels of Ingresses.
#[derive(Debug)]
pub(super) struct Index {
    hasher: RandomState,
    who: BTreeSet<(u64, Arc<str>)>,
    /// Comes before every label.
    first: Arc<str>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            who: BTreeSet::new(),
            first: "".into(),
        }
    }
}

impl Index {
    /// An Ingress has to do with this; once, however often it is said.
    pub(super) fn add(&mut self, topic: &Topic<'_>, label: &Arc<str>) {
        self.who.insert((self.hasher.hash_one(topic), Arc::clone(label)));
    }

    pub(super) fn remove(&mut self, topic: &Topic<'_>, label: &Arc<str>) {
        self.who.remove(&(self.hasher.hash_one(topic), Arc::clone(label)));
    }

    /// The labels of all that have to do with this, in order; some may have not.
    pub(super) fn who<'a>(&'a self, topic: &Topic<'_>) -> impl Iterator<Item = &'a Arc<str>> + use<'a> {
        let hash = self.hasher.hash_one(topic);
        let from = self.who.range((hash, Arc::clone(&self.first))..);
        from.take_while(move |(other, _)| *other == hash)
            .map(|(_, label)| label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_is_found_by_what_it_has_to_do_with() {
        let mut index = Index::default();
        let (a, b): (Arc<str>, Arc<str>) = ("d/a".into(), "d/b".into());
        let host = Topic::Host("h");
        for label in [&b, &a, &b] {
            index.add(&host, label);
        }
        index.add(&Topic::Service("d", "h"), &a);
        let who = |index: &Index, topic: &Topic<'_>| index.who(topic).map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(who(&index, &host), ["d/a", "d/b"]);
        assert_eq!(who(&index, &Topic::Service("d", "h")), ["d/a"]);
        assert_eq!(who(&index, &Topic::Secret("d", "h")), [""; 0]);
        index.remove(&host, &a);
        assert_eq!(who(&index, &host), ["d/b"]);
    }
}
