//! Counts by route: found by a lock once, then without.

use crate::traffic::{Moment, Numbers, RouteStats};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Routes that are counted on their own: more than the 10,000 hosts that the table is made for, and 1.3 KB each once they are asked.
const MOST: usize = 16_384;

/// How every host is shown.
pub const EVERY_HOST: &str = "*";

/// What makes a route the same from table to table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    /// `namespace/name` of its Ingress.
    pub ingress: Arc<str>,
    /// Host as written; `*` is every host.
    pub host: Arc<str>,
    /// Path as written.
    pub path: Arc<str>,
    /// Only this path.
    pub exact: bool,
}

/// Where a route of a table keeps its counts once they were found.
#[derive(Debug, Default)]
pub struct Slot(OnceLock<RouteStats>);

/// All routes that were asked.
#[derive(Debug)]
pub struct Routes {
    known: Mutex<Known>,
    exported: usize,
    others: RouteStats,
}

#[derive(Debug, Default)]
struct Known {
    stats: HashMap<RouteKey, Entry>,
    exported: usize,
}

#[derive(Debug)]
struct Entry {
    stats: RouteStats,
    /// It has series of its own. It keeps them for its life, so that they never jump.
    exported: bool,
}

impl Routes {
    /// What routes beyond the cap are called in `/metrics`.
    pub const OTHERS: &'static str = "(others)";

    pub(super) fn new(exported: usize) -> Self {
        Self {
            known: Mutex::default(),
            exported,
            others: RouteStats::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts of the route that this slot belongs to.
    pub fn find<'a>(&self, slot: &'a Slot, key: impl FnOnce() -> RouteKey) -> &'a RouteStats {
        slot.0.get_or_init(|| self.find_or_add(key()))
    }

    fn find_or_add(&self, key: RouteKey) -> RouteStats {
        let mut known = self.known();
        if let Some(entry) = known.stats.get(&key) {
            return Arc::clone(&entry.stats);
        }
        if known.stats.len() >= MOST {
            // Of routes that no table has any more nobody else holds the counts.
            let Known { stats, exported } = &mut *known;
            stats.retain(|_, entry| {
                let alive = Arc::strong_count(&entry.stats) > 1;
                if !alive && entry.exported {
                    *exported -= 1;
                } else if !alive {
                    // Counters never go down.
                    self.others.absorb(&entry.stats);
                }
                alive
            });
            if known.stats.len() >= MOST {
                return Arc::clone(&self.others);
            }
        }
        let exported = known.exported < self.exported;
        known.exported += usize::from(exported);
        let stats = RouteStats::default();
        let entry = Entry {
            stats: Arc::clone(&stats),
            exported,
        };
        known.stats.insert(key, entry);
        stats
    }

    /// Numbers of a route; `None` when it was never asked.
    pub fn numbers(&self, key: &RouteKey, now: Moment) -> Option<Numbers> {
        let stats = Arc::clone(&self.known().stats.get(key)?.stats);
        Some(stats.numbers(now))
    }

    /// Routes that were asked within this time.
    pub(super) fn asked_within(&self, now: Moment, time: Duration) -> Vec<(RouteKey, RouteStats)> {
        let known = self.known();
        let asked = known
            .stats
            .iter()
            .filter(|(_, entry)| entry.stats.answered_within(now, time));
        asked
            .map(|(key, entry)| (key.clone(), Arc::clone(&entry.stats)))
            .collect()
    }

    /// Routes with series of their own, in order, and all others.
    pub(super) fn series(&self) -> (Vec<(RouteKey, RouteStats)>, Vec<RouteStats>) {
        let known = self.known();
        let mut own = vec![];
        let mut others = vec![Arc::clone(&self.others)];
        for (key, entry) in &known.stats {
            match entry.exported {
                true => own.push((key.clone(), Arc::clone(&entry.stats))),
                false => others.push(Arc::clone(&entry.stats)),
            }
        }
        drop(known);
        own.sort_by(|a, b| a.0.cmp(&b.0));
        (own, others)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A route of one Ingress.
    pub fn key(path: &str) -> RouteKey {
        RouteKey {
            ingress: "d/i".into(),
            host: "h".into(),
            path: path.into(),
            exact: false,
        }
    }

    #[test]
    fn counts_survive_the_table_that_they_were_found_through() {
        let routes = Routes::new(10);
        let (old, new) = (Slot::default(), Slot::default());
        let first = Arc::clone(routes.find(&old, || key("/")));
        drop(old);
        assert!(Arc::ptr_eq(&first, routes.find(&new, || key("/"))));
        assert!(!Arc::ptr_eq(&first, routes.find(&Slot::default(), || key("/x"))));
        assert!(routes.numbers(&key("/"), Moment { second: 0, millis: 0 }).is_some());
        assert!(
            routes
                .numbers(&key("/never"), Moment { second: 0, millis: 0 })
                .is_none()
        );
    }

    #[test]
    fn routes_beyond_the_cap_share_one_count_until_others_are_gone() {
        let routes = Routes::new(2);
        let slots: Vec<Slot> = (0..MOST).map(|_| Slot::default()).collect();
        for (i, slot) in slots.iter().enumerate() {
            routes.find(slot, || key(&format!("/{i}")));
        }
        let late = Slot::default();
        assert!(Arc::ptr_eq(routes.find(&late, || key("/late")), &routes.others));
        assert_eq!(routes.series().0.len(), 2);
        drop(slots);
        let later = Slot::default();
        assert!(!Arc::ptr_eq(routes.find(&later, || key("/later")), &routes.others));
        assert_eq!(routes.known().stats.len(), 1);
        assert_eq!(routes.series().0[0].0, key("/later"));
    }
}
