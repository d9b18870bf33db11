//! Decides whether an etcd member may be removed. Every removal uses this rule.
//!
//! A removal changes etcd's configuration. A majority of the present members must agree to it, and the healthy remaining members must be a majority
//! of the remaining ones, because the cluster takes no writes otherwise. Learners do not vote and do not count.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// etcd's own id of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(pub u64);

/// In hexadecimal, as etcdctl writes and reads it.
impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// Why a member may not be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuorumRisk {
    /// No voting member would be left.
    #[error("it is the only voting member: etcd's data would be gone")]
    LastMember,
    /// The healthy members are no majority that could agree to the removal.
    #[error("only {healthy} of {members} voting members are healthy, and a removal needs {needed}")]
    NoQuorumNow {
        /// Healthy voting members.
        healthy: usize,
        /// All voting members.
        members: usize,
        /// Their majority.
        needed: usize,
    },
    /// The healthy remaining members would be no majority.
    #[error("{healthy} of the {members} voting members that stay are healthy, and they need {needed}")]
    NoQuorumAfter {
        /// Healthy voting members that stay.
        healthy: usize,
        /// All voting members that stay.
        members: usize,
        /// Their majority.
        needed: usize,
    },
}

/// Returns how many of `members` voting members must agree.
pub fn majority(members: usize) -> usize {
    members / 2 + 1
}

/// Says whether `who` may be removed from the voting `members`, of whom `healthy` answer. Others than members in `healthy` are not
/// counted. A `who` that is not among `members` is a learner: the others stay as they are, but must agree.
pub fn may_remove(members: &BTreeSet<MemberId>, healthy: &BTreeSet<MemberId>, who: MemberId) -> Result<(), QuorumRisk> {
    let rest = members.iter().filter(|m| **m != who).count();
    if rest == 0 {
        return Err(QuorumRisk::LastMember);
    }
    let healthy_now = members.intersection(healthy).count();
    let needed = majority(members.len());
    if healthy_now < needed {
        return Err(QuorumRisk::NoQuorumNow {
            healthy: healthy_now,
            members: members.len(),
            needed,
        });
    }
    let healthy_rest = members.intersection(healthy).filter(|m| **m != who).count();
    let needed = majority(rest);
    if healthy_rest < needed {
        return Err(QuorumRisk::NoQuorumAfter {
            healthy: healthy_rest,
            members: rest,
            needed,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(list: impl IntoIterator<Item = u64>) -> BTreeSet<MemberId> {
        list.into_iter().map(MemberId).collect()
    }

    #[test]
    fn with_one_dead_member_of_three_only_that_one_may_be_removed() {
        let (members, healthy) = (ids(1..=3), ids(1..=2));
        assert_eq!(may_remove(&members, &healthy, MemberId(3)), Ok(()));
        let risk = may_remove(&members, &healthy, MemberId(2)).unwrap_err();
        assert_eq!(
            risk.to_string(),
            "1 of the 2 voting members that stay are healthy, and they need 2"
        );
    }

    #[test]
    fn a_dead_member_of_two_and_the_last_member_may_not_be_removed() {
        let (members, healthy) = (ids(1..=2), ids([1]));
        let risk = may_remove(&members, &healthy, MemberId(2)).unwrap_err();
        let expected = QuorumRisk::NoQuorumNow {
            healthy: 1,
            members: 2,
            needed: 2,
        };
        assert_eq!(risk, expected);
        let one = ids([1]);
        assert_eq!(may_remove(&one, &one, MemberId(1)), Err(QuorumRisk::LastMember));
    }

    #[test]
    fn a_learner_may_be_removed_when_the_voters_are_a_majority() {
        assert_eq!(may_remove(&ids([1]), &ids([1]), MemberId(9)), Ok(()));
        assert!(may_remove(&ids([1, 2]), &ids([1]), MemberId(9)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_allowed_leaves_a_working_etcd(count in 0u64..10, up in any::<u16>(), who in 0u64..11) {
            let members = ids(0..count);
            let healthy = ids((0..16).filter(|bit| up >> bit & 1 == 1));
            let rest: BTreeSet<_> = members.iter().copied().filter(|m| m.0 != who).collect();
            let works = |m: &BTreeSet<MemberId>| !m.is_empty() && m.intersection(&healthy).count() * 2 > m.len();
            let allowed = may_remove(&members, &healthy, MemberId(who)).is_ok();
            prop_assert_eq!(allowed, works(&members) && works(&rest));
        }

        #[test]
        fn more_healthy_members_never_forbid_what_was_allowed(count in 1u64..8, up in any::<u8>(), more in any::<u8>(), who in 0u64..8) {
            let members = ids(0..count);
            let healthy = |bits: u8| ids((0..8).filter(|bit| bits >> bit & 1 == 1));
            if may_remove(&members, &healthy(up), MemberId(who)).is_ok() {
                prop_assert!(may_remove(&members, &healthy(up | more), MemberId(who)).is_ok());
            }
        }
    }
}
