//! The routes of one host. Pure.
//!
//! S4 orders them once, when the table is made: longest path, then `Exact`, then plain before regular expression. A search finds the
//! one `Exact` and the one `Prefix` that fit by binary search and takes whichever comes first in that order; regular expressions are
//! tried only while they come before it. So a search costs the logarithm of the number of plain paths, whatever a client sends.
//!
//! Prefixes stand in the order of a walk through the tree of their elements. What lies between a prefix and a path below it in this
//! order is below that prefix too: so the entry before the path's place, or one of its ancestors, is the longest prefix of the path.

use crate::prefix::{is_below, stem};
use crate::route::Route;
use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

/// No ancestor.
const ROOT: u32 = u32::MAX;

/// Routes of one host, ready to be searched.
#[derive(Debug)]
pub struct Table {
    /// In order of precedence.
    routes: Box<[Arc<Route>]>,
    /// Places of `Exact` routes, by path.
    exacts: Box<[u32]>,
    prefixes: Box<[Prefix]>,
    /// Places of regular expressions, in order of precedence.
    patterns: Box<[u32]>,
}

#[derive(Debug, Clone, Copy)]
struct Prefix {
    route: u32,
    /// Place among the prefixes of the longest prefix of this one.
    parent: u32,
}

/// Sorts by precedence. Stable: what was first among equals stays first.
pub fn order(routes: &mut [Arc<Route>]) {
    routes.sort_by_key(|r| (Reverse(r.path.len()), !r.exact, r.pattern.is_some()));
}

impl Table {
    /// Its routes in order of precedence.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The same, to be changed before anybody else has them; `None` for those that somebody has. Their paths stay as they are.
    pub fn routes_mut(&mut self) -> impl Iterator<Item = Option<&mut Route>> {
        self.routes.iter_mut().map(Arc::get_mut)
    }

    /// Makes a table of routes in order of precedence, without doubles.
    pub fn new(routes: Vec<Arc<Route>>) -> Self {
        // Most hosts have one route, which is looked at without any search.
        if routes.len() == 1 {
            return Self {
                routes: routes.into(),
                exacts: [].into(),
                prefixes: [].into(),
                patterns: [].into(),
            };
        }
        let place = |i: usize| u32::try_from(i).expect("objects of 2^32 paths do not fit an API server");
        let places = |fits: fn(&Route) -> bool| {
            let all = routes.iter().enumerate().filter(move |(_, r)| fits(r));
            all.map(|(i, _)| place(i)).collect::<Vec<_>>()
        };
        let path = |i: u32| &*routes[i as usize].path;
        let mut exacts = places(|r| r.exact);
        exacts.sort_by(|a, b| path(*a).cmp(path(*b)));
        let patterns = places(|r| r.pattern.is_some());
        let mut plain = places(|r| !r.exact && r.pattern.is_none());
        // `/foo` and `/foo/` ask for the same; the longer, which comes first here, wins (S2).
        plain.sort_by(|a, b| by_elements(stem(path(*a)), stem(path(*b))));
        plain.dedup_by(|b, a| stem(path(*a)) == stem(path(*b)));
        let mut prefixes: Vec<Prefix> = Vec::with_capacity(plain.len());
        for route in plain {
            let mut parent = prefixes.len().checked_sub(1).map_or(ROOT, place);
            while parent != ROOT && !is_below(path(route), stem(path(prefixes[parent as usize].route))) {
                parent = prefixes[parent as usize].parent;
            }
            prefixes.push(Prefix { route, parent });
        }
        Self {
            exacts: exacts.into(),
            prefixes: prefixes.into(),
            patterns: patterns.into(),
            routes: routes.into(),
        }
    }

    /// The route that takes this canonical path.
    #[inline]
    pub fn find(&self, path: &str) -> Option<&Arc<Route>> {
        if let [only] = &*self.routes {
            return Some(only).filter(|only| only.matches(path));
        }
        let best = match (self.exact(path), self.prefix(path)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if let Some(best) = best
            && self.routes[best as usize].exact
        {
            return self.routes.get(best as usize);
        }
        let before = |i: &&u32| best.is_none_or(|best| **i < best);
        let mut patterns = self.patterns.iter().take_while(before);
        let found = patterns.find(|i| self.routes[**i as usize].matches(path)).copied();
        self.routes.get(found.or(best)? as usize)
    }

    fn exact(&self, path: &str) -> Option<u32> {
        let found = self
            .exacts
            .binary_search_by(|i| (*self.routes[*i as usize].path).cmp(path));
        found.ok().map(|i| self.exacts[i])
    }

    fn prefix(&self, path: &str) -> Option<u32> {
        let stem = |at: usize| stem(&self.routes[self.prefixes[at].route as usize].path);
        let after = self.prefixes.partition_point(|p| {
            let prefix = crate::prefix::stem(&self.routes[p.route as usize].path);
            by_elements(prefix, path) != Ordering::Greater
        });
        let mut at = after.checked_sub(1)?;
        loop {
            if is_below(path, stem(at)) {
                return Some(self.prefixes[at].route);
            }
            match self.prefixes[at].parent {
                ROOT => return None,
                parent => at = parent as usize,
            }
        }
    }
}

/// Orders paths so that all below one follow it at once: the slash comes before every other character.
fn by_elements(a: &str, b: &str) -> Ordering {
    let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
    a.bytes().map(rank).cmp(b.bytes().map(rank))
}
