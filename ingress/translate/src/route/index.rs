//! Which Ingresses have to do with a host, a Service or a Secret, there or not: so that what comes later is picked up, and a change of
//! one of them costs those Ingresses alone.
//!
//! Names are kept as hashes: two with one hash cost an unneeded look, never a missed one.

use super::kept::Kept;
use super::topic::Topic;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

/// The index: those that have to do with a topic, by its hash.
#[derive(Debug, Default)]
pub(super) struct Index {
    hasher: RandomState,
    who: HashMap<u64, Few, BuildHasherDefault<Hashed>>,
}

/// Nearly every topic has one Ingress, which needs no list.
#[derive(Debug)]
enum Few {
    One(Arc<Kept>),
    /// By place in memory, for a host may have thousands.
    #[expect(clippy::box_collection, reason = "the many of one need no room for a list")]
    Many(Box<BTreeMap<usize, Arc<Kept>>>),
}

/// What is a hash already is not hashed again.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    /// Not asked for: keys are numbers.
    fn write(&mut self, bytes: &[u8]) {
        let fold = |hash: u64, byte: &u8| hash.rotate_left(8) ^ u64::from(*byte);
        self.0 = bytes.iter().fold(self.0, fold);
    }
}

fn place(kept: &Arc<Kept>) -> usize {
    Arc::as_ptr(kept).addr()
}

impl Index {
    /// An Ingress has to do with this; once, however often it is said.
    pub(super) fn add(&mut self, topic: &Topic<'_>, kept: &Arc<Kept>) {
        match self.who.entry(self.hasher.hash_one(topic)) {
            Entry::Vacant(vacant) => {
                vacant.insert(Few::One(Arc::clone(kept)));
            }
            Entry::Occupied(mut occupied) => match occupied.get_mut() {
                Few::One(one) if Arc::ptr_eq(one, kept) => {}
                Few::One(one) => {
                    let both = [&*one, kept].map(|kept| (place(kept), Arc::clone(kept)));
                    occupied.insert(Few::Many(Box::new(both.into())));
                }
                Few::Many(many) => {
                    many.insert(place(kept), Arc::clone(kept));
                }
            },
        }
    }

    /// The opposite, for the very same.
    pub(super) fn remove(&mut self, topic: &Topic<'_>, kept: &Arc<Kept>) {
        let Entry::Occupied(mut occupied) = self.who.entry(self.hasher.hash_one(topic)) else {
            return;
        };
        let is_last = match occupied.get_mut() {
            Few::One(one) => Arc::ptr_eq(one, kept),
            Few::Many(many) => many.remove(&place(kept)).is_some() && many.is_empty(),
        };
        if is_last {
            occupied.remove();
        }
    }

    /// All that have to do with this, in no order; some may have not.
    pub(super) fn who<'a>(&'a self, topic: &Topic<'_>) -> impl Iterator<Item = &'a Arc<Kept>> + use<'a> {
        let few = self.who.get(&self.hasher.hash_one(topic));
        let (one, many) = match few {
            None => (None, None),
            Some(Few::One(one)) => (Some(one), None),
            Some(Few::Many(many)) => (None, Some(many.values())),
        };
        one.into_iter().chain(many.into_iter().flatten())
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
        index.remove(&host, &a);
        index.remove(&host, &b);
        assert_eq!(index.who.len(), 1);
    }
}
