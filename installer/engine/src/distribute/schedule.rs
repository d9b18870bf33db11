//! Who sends which blob to which node next: the operator sends one copy, and nodes that have a blob, or receive it just now, feed the others.

use landfall_core::name::{Digest, NodeName};
use std::collections::{BTreeMap, BTreeSet};

/// Transfers that a node feeds at the same time. Two, so that a chain of nodes forms when all need the same: each passes on as much as it gets.
const FEEDS: usize = 2;
/// Transfers of the operator: to two nodes at a time, because one connection is encrypted by one core. More would divide a slow line among all nodes,
/// and need more memory.
const OPERATOR_FEEDS: usize = 2 * super::PARALLEL_TRANSFERS;
/// A node that so many others could not feed is sent everything by the operator, and a node that could not feed so many feeds nobody.
const FAULTS: usize = 2;

/// Who sends a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// This machine.
    Operator,
    /// Another node.
    Node(NodeName),
}

/// What a node does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It takes this blob from there.
    Transfer(Digest, Source),
    /// It waits until another transfer has ended.
    Wait,
    /// It needs nothing more.
    Done,
}

#[derive(Debug, Default)]
struct NodeState {
    /// Not begun yet, in the order in which steps need them.
    missing: Vec<Digest>,
    has: BTreeSet<Digest>,
    receives: BTreeMap<Digest, Source>,
    can_feed: bool,
    feeds: usize,
    /// Nodes that could not feed it.
    faults: BTreeSet<NodeName>,
    /// How many it could not feed.
    refusals: usize,
}

impl NodeState {
    fn may_be_fed(&self) -> bool {
        self.faults.len() < FAULTS
    }
}

/// All transfers of a push.
#[derive(Debug, Default)]
pub struct Schedule {
    nodes: BTreeMap<NodeName, NodeState>,
    /// Transfers of the operator.
    operator_feeds: usize,
}

impl Schedule {
    /// Adds a node: what it has, what it lacks in the order in which its steps need it, and whether it can feed others.
    pub fn add(&mut self, node: NodeName, has: BTreeSet<Digest>, missing: Vec<Digest>, can_feed: bool) {
        let state = NodeState {
            missing,
            has,
            can_feed,
            ..NodeState::default()
        };
        self.nodes.insert(node, state);
    }

    /// Chooses the next transfer to a node, and counts it as begun.
    pub fn next(&mut self, node: &NodeName) -> Next {
        let Some(state) = self.nodes.get(node) else {
            return Next::Done;
        };
        if state.missing.is_empty() {
            return Next::Done;
        }
        let found = state.missing.iter().enumerate().find_map(|(at, digest)| {
            let source = self.source_for(node, digest)?;
            Some((at, source))
        });
        let Some((at, source)) = found else {
            return Next::Wait;
        };
        match &source {
            Source::Operator => self.operator_feeds += 1,
            Source::Node(name) => self.feeds_of(name, 1),
        }
        let state = self.nodes.entry(node.clone()).or_default();
        let digest = state.missing.remove(at);
        state.receives.insert(digest, source.clone());
        Next::Transfer(digest, source)
    }

    fn source_for(&self, node: &NodeName, digest: &Digest) -> Option<Source> {
        let state = &self.nodes[node];
        let holders = self.nodes.iter().filter(|(name, other)| {
            state.may_be_fed()
                && *name != node
                && other.can_feed
                && !state.faults.contains(*name)
                && (other.has.contains(digest) || self.comes_without(name, digest, node))
        });
        let holders: Vec<_> = holders.collect();
        let free = holders.iter().filter(|(_, other)| other.feeds < FEEDS);
        let best = free.min_by_key(|(_, other)| (other.feeds, !other.has.contains(digest)));
        match best {
            Some((name, _)) => Some(Source::Node((*name).clone())),
            // One of them is free soon.
            None if !holders.is_empty() => None,
            None if self.operator_feeds >= OPERATOR_FEEDS => None,
            None => Some(Source::Operator),
        }
    }

    /// Says whether `name` receives the blob now, and from a chain of nodes in which `node` is not.
    fn comes_without(&self, name: &NodeName, digest: &Digest, node: &NodeName) -> bool {
        let mut at = name;
        // No chain is longer than there are nodes.
        for _ in 0..self.nodes.len() {
            // A node that failed is no longer in the schedule; what it fed ends soon.
            let Some(state) = self.nodes.get(at) else {
                return false;
            };
            match state.receives.get(digest) {
                Some(Source::Operator) => return true,
                Some(Source::Node(from)) if from != node => at = from,
                Some(Source::Node(_)) => return false,
                None => return state.has.contains(digest),
            }
        }
        false
    }

    fn feeds_of(&mut self, name: &NodeName, more: isize) {
        if let Some(state) = self.nodes.get_mut(name) {
            state.feeds = state.feeds.saturating_add_signed(more);
        }
    }

    fn end(&mut self, node: &NodeName, digest: &Digest) -> Option<Source> {
        let source = self.nodes.get_mut(node)?.receives.remove(digest)?;
        match &source {
            Source::Operator => self.operator_feeds -= 1,
            Source::Node(name) => self.feeds_of(name, -1),
        }
        Some(source)
    }

    /// Ends a transfer: the node has the blob.
    pub fn arrived(&mut self, node: &NodeName, digest: &Digest) {
        self.end(node, digest);
        if let Some(state) = self.nodes.get_mut(node) {
            state.has.insert(*digest);
        }
    }

    /// Ends a transfer that another node could not give: it is to be begun again with another source.
    pub fn not_fed(&mut self, node: &NodeName, digest: &Digest) {
        let source = self.end(node, digest);
        if let Some(state) = self.nodes.get_mut(node) {
            state.missing.insert(0, *digest);
            if let Some(Source::Node(from)) = source
                && state.faults.insert(from.clone())
                && let Some(other) = self.nodes.get_mut(&from)
            {
                other.refusals += 1;
                other.can_feed &= other.refusals < FAULTS;
            }
        }
    }

    /// Takes out a node whose transfers have failed.
    pub fn remove(&mut self, node: &NodeName) {
        let receives: Vec<Digest> = self
            .nodes
            .get(node)
            .into_iter()
            .flat_map(|s| s.receives.keys().copied())
            .collect();
        for digest in receives {
            self.end(node, &digest);
        }
        self.nodes.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(number: usize) -> NodeName {
        format!("n-{number}").parse().unwrap()
    }

    fn blobs(count: usize) -> Vec<Digest> {
        (0..count).map(|n| Digest::of(&[u8::try_from(n).unwrap()])).collect()
    }

    fn schedule(nodes: usize, missing: &[Digest], can_feed: bool) -> Schedule {
        let mut schedule = Schedule::default();
        for number in 0..nodes {
            schedule.add(name(number), BTreeSet::new(), missing.to_vec(), can_feed);
        }
        schedule
    }

    #[test]
    fn what_one_node_receives_goes_down_a_chain() {
        let blobs = blobs(2);
        let mut schedule = schedule(3, &blobs, true);
        let from = |node| Source::Node(name(node));
        assert_eq!(schedule.next(&name(0)), Next::Transfer(blobs[0], Source::Operator));
        assert_eq!(schedule.next(&name(0)), Next::Transfer(blobs[1], Source::Operator));
        assert_eq!(schedule.next(&name(0)), Next::Done);
        assert_eq!(schedule.next(&name(1)), Next::Transfer(blobs[0], from(0)));
        assert_eq!(schedule.next(&name(1)), Next::Transfer(blobs[1], from(0)));
        assert_eq!(schedule.next(&name(2)), Next::Transfer(blobs[0], from(1)));
        assert_eq!(schedule.next(&name(2)), Next::Transfer(blobs[1], from(1)));
    }

    #[test]
    fn the_operator_sends_no_second_copy_while_a_node_can_soon_give_one() {
        let blobs = blobs(OPERATOR_FEEDS + 1);
        let mut schedule = schedule(3, &blobs, true);
        for _ in 0..OPERATOR_FEEDS {
            schedule.next(&name(0));
        }
        assert_eq!(schedule.next(&name(1)), Next::Transfer(blobs[0], Source::Node(name(0))));
        // The operator is busy, so the last blob is sent to nobody yet.
        assert_eq!(schedule.next(&name(0)), Next::Wait);
        schedule.arrived(&name(0), &blobs[0]);
        let last = blobs[OPERATOR_FEEDS];
        assert_eq!(schedule.next(&name(0)), Next::Transfer(last, Source::Operator));
    }

    #[test]
    fn nodes_that_cannot_feed_get_everything_from_the_operator_some_at_a_time() {
        let blobs = blobs(2);
        let mut schedule = schedule(3, &blobs, false);
        for node in 0..2 {
            for blob in &blobs {
                assert_eq!(schedule.next(&name(node)), Next::Transfer(*blob, Source::Operator));
            }
        }
        assert_eq!(
            schedule.next(&name(2)),
            Next::Wait,
            "the operator's line is divided no further"
        );
        schedule.arrived(&name(1), &blobs[0]);
        assert_eq!(schedule.next(&name(2)), Next::Transfer(blobs[0], Source::Operator));
        assert_eq!(schedule.next(&name(2)), Next::Wait);
        // Turns of a lost node are given back.
        schedule.remove(&name(0));
        assert_eq!(schedule.next(&name(2)), Next::Transfer(blobs[1], Source::Operator));
    }

    #[test]
    fn a_node_that_could_not_be_fed_tries_another_and_then_the_operator() {
        let blobs = blobs(1);
        let mut schedule = schedule(4, &blobs, true);
        for node in 0..3 {
            assert!(matches!(schedule.next(&name(node)), Next::Transfer(..)));
            schedule.arrived(&name(node), &blobs[0]);
        }
        for node in 0..2 {
            assert_eq!(
                schedule.next(&name(3)),
                Next::Transfer(blobs[0], Source::Node(name(node)))
            );
            schedule.not_fed(&name(3), &blobs[0]);
        }
        assert_eq!(schedule.next(&name(3)), Next::Transfer(blobs[0], Source::Operator));
    }

    /// The first of so many nodes receives a blob from the operator, and the second takes it from the first.
    fn chain_of_two(nodes: usize) -> (Digest, Schedule) {
        let blobs = blobs(1);
        let mut schedule = schedule(nodes, &blobs, true);
        assert_eq!(schedule.next(&name(0)), Next::Transfer(blobs[0], Source::Operator));
        assert_eq!(schedule.next(&name(1)), Next::Transfer(blobs[0], Source::Node(name(0))));
        (blobs[0], schedule)
    }

    #[test]
    fn nodes_do_not_wait_for_each_other_in_a_circle() {
        let (blob, mut schedule) = chain_of_two(2);
        // What the first one received was cut off; the second still waits for it.
        schedule.end(&name(0), &blob);
        schedule.nodes.get_mut(&name(0)).unwrap().missing.push(blob);
        assert_eq!(schedule.next(&name(0)), Next::Transfer(blob, Source::Operator));
    }

    #[test]
    fn what_a_lost_node_fed_is_no_source() {
        let (blob, mut schedule) = chain_of_two(3);
        schedule.remove(&name(0));
        assert_eq!(schedule.next(&name(2)), Next::Transfer(blob, Source::Operator));
    }

    proptest! {
        /// Whatever fails, every node ends with every blob, and the operator sends no second copy unless something failed.
        #[test]
        fn every_node_gets_everything(
            nodes in 1..6usize,
            count in 1..5usize,
            feeders in prop::collection::vec(any::<bool>(), 6),
            choices in prop::collection::vec((0..6usize, 0..8u8), 1..400),
        ) {
            let blobs = blobs(count);
            let mut schedule = Schedule::default();
            for (number, can_feed) in feeders.iter().enumerate().take(nodes) {
                schedule.add(name(number), BTreeSet::new(), blobs.clone(), *can_feed);
            }
            let (mut running, mut copies, mut faults) = (Vec::new(), 0, 0);
            let mut choices = choices.into_iter().chain(std::iter::repeat_n((0, 7), 1000));
            let is_done = |schedule: &Schedule| schedule.nodes.values().all(|s| s.has.len() == count);
            while !is_done(&schedule) {
                for number in 0..nodes {
                    while let Next::Transfer(digest, source) = schedule.next(&name(number)) {
                        copies += usize::from(source == Source::Operator);
                        running.push((name(number), digest, source));
                    }
                }
                prop_assert!(schedule.operator_feeds <= OPERATOR_FEEDS);
                prop_assert!(!running.is_empty(), "nothing runs and something is missing");
                let (which, fate) = choices.next().unwrap_or((0, 7));
                let (node, digest, source) = running.swap_remove(which % running.len());
                if fate == 1 && schedule.nodes.len() > 1 {
                    // The node's connection is lost.
                    schedule.remove(&node);
                    running.retain(|(other, ..)| *other != node);
                    faults += 1;
                } else if fate == 0 && source != Source::Operator {
                    faults += 1;
                    schedule.not_fed(&node, &digest);
                } else {
                    schedule.arrived(&node, &digest);
                }
            }
            prop_assert_eq!(schedule.operator_feeds, 0);
            prop_assert!(schedule.nodes.values().all(|s| s.feeds == 0 && s.receives.is_empty()));
            if faults == 0 && feeders.iter().take(nodes).all(|f| *f) {
                prop_assert_eq!(copies, count);
            }
        }
    }
}
