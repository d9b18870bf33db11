//! A map of which one table and the next have nearly everything in common.
//!
//! Entries lie in shards by the hash of their key. A copy copies pointers to the shards; a change of one entry then copies its shard
//! alone, a 256th of the map. So a new table costs what is different in it, and a reader of an old one never notices.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// With 10,000 entries a shard has 40: as much to copy for a change as there are shards to point to.
const SHARDS: usize = 256;

/// What has its own key.
pub trait Keyed {
    /// Its key.
    fn key(&self) -> &str;
}

/// Entries with part of their hash, in its order.
type Shard<V> = Vec<(u32, Arc<V>)>;

/// The map. Who writes to it decides what is in order; readers only look up.
#[derive(Debug)]
pub struct Shared<V> {
    hasher: RandomState,
    shards: Box<[Arc<Shard<V>>]>,
    len: usize,
}

impl<V> Default for Shared<V> {
    fn default() -> Self {
        let empty = Arc::new(Vec::new());
        Self {
            hasher: RandomState::new(),
            shards: vec![empty; SHARDS].into(),
            len: 0,
        }
    }
}

impl<V> Clone for Shared<V> {
    fn clone(&self) -> Self {
        Self {
            hasher: self.hasher.clone(),
            shards: self.shards.clone(),
            len: self.len,
        }
    }
}

impl<V: Keyed> Shared<V> {
    /// The shard of a key, and the part of its hash that counts within.
    fn place(&self, key: &str) -> (usize, u32) {
        let hash = self.hasher.hash_one(key);
        // Two parts that have no bit in common; both are cut off on purpose.
        ((hash >> 32) as usize % SHARDS, hash as u32)
    }

    /// The entry of a key.
    #[inline]
    pub fn get(&self, key: &str) -> Option<&Arc<V>> {
        // Most clusters have no wildcards.
        if self.len == 0 {
            return None;
        }
        let (shard, hash) = self.place(key);
        let shard = &self.shards[shard];
        find(shard, hash, key).ok().map(|at| &shard[at].1)
    }

    /// Puts an entry in place of the one of the same key, which is returned.
    pub fn put(&mut self, value: Arc<V>) -> Option<Arc<V>> {
        let (shard, hash) = self.place(value.key());
        let shard = Arc::make_mut(&mut self.shards[shard]);
        match find(shard, hash, value.key()) {
            Ok(at) => Some(std::mem::replace(&mut shard[at].1, value)),
            Err(at) => {
                shard.insert(at, (hash, value));
                self.len += 1;
                None
            }
        }
    }

    /// Takes an entry away, which is returned.
    pub fn remove(&mut self, key: &str) -> Option<Arc<V>> {
        let (shard, hash) = self.place(key);
        let at = find(&self.shards[shard], hash, key).ok()?;
        self.len -= 1;
        Some(Arc::make_mut(&mut self.shards[shard]).remove(at).1)
    }
}

impl<V> Shared<V> {
    /// All entries, in no order.
    pub fn values(&self) -> impl Iterator<Item = &Arc<V>> {
        self.shards
            .iter()
            .flat_map(|shard| shard.iter().map(|(_, value)| value))
    }
}

/// Where a key is, or where it would be.
fn find<V: Keyed>(shard: &Shard<V>, hash: u32, key: &str) -> Result<usize, usize> {
    let first = shard.partition_point(|(other, _)| *other < hash);
    let alike = shard[first..].iter().take_while(|(other, _)| *other == hash);
    let found = alike.enumerate().find(|(_, (_, value))| value.key() == key);
    found.map(|(i, _)| first + i).ok_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Debug)]
    struct Named(String, u32);

    impl Keyed for Named {
        /// Its key.
        fn key(&self) -> &str {
            &self.0
        }
    }

    fn all(map: &Shared<Named>) -> BTreeMap<String, u32> {
        map.values().map(|named| (named.0.clone(), named.1)).collect()
    }

    #[test]
    fn it_holds_what_an_ordinary_map_holds_and_copies_stay_as_they_were() {
        let (mut map, mut plain) = (Shared::default(), BTreeMap::new());
        let mut copies = Vec::new();
        let mut number = 1_u32;
        for round in 0..4000_u32 {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = format!("k{}", (number >> 16) % 700);
            let before = match number % 3 {
                0 => (map.remove(&key), plain.remove(&key)),
                _ => (
                    map.put(Arc::new(Named(key.clone(), round))),
                    plain.insert(key.clone(), round),
                ),
            };
            assert_eq!(before.0.map(|named| named.1), before.1);
            assert_eq!(map.get(&key).map(|named| named.1), plain.get(&key).copied());
            if round % 500 == 0 {
                copies.push((map.clone(), plain.clone()));
            }
        }
        copies.push((map, plain));
        for (map, plain) in &copies {
            assert_eq!((&all(map), map.len), (plain, plain.len()));
        }
    }

    #[test]
    fn a_change_copies_one_shard() {
        let mut map = Shared::default();
        for i in 0..5000 {
            map.put(Arc::new(Named(format!("k{i}"), i)));
        }
        let before = map.clone();
        map.put(Arc::new(Named("k7".to_owned(), 0)));
        let pairs = before.shards.iter().zip(&map.shards);
        assert_eq!(pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
    }

    #[test]
    fn keys_of_one_hash_are_told_apart() {
        let shard: Shard<Named> = ["a", "b", "c"]
            .map(|key| (7, Arc::new(Named(key.to_owned(), 0))))
            .into();
        assert_eq!((find(&shard, 7, "c"), find(&shard, 7, "d")), (Ok(2), Err(0)));
        assert_eq!((find(&shard, 6, "a"), find(&shard, 8, "a")), (Err(0), Err(3)));
    }
}
