//! A cluster that is recorded, next to what its nodes are and what the inventory says of them.

use super::*;
use crate::cluster_record::{ClusterUid, FixedSettings, RecordError, Sequence, Share, tests::record};
use crate::preflight::{check_record, records_disagree};

/// A recorded cluster of `cp-1` and `cp-2`, which have joined, with `change` made to the first.
fn found(change: impl Fn(&mut NodeFacts, &mut Node)) -> Vec<Finding> {
    let mut recorded = record(1, 1, 0);
    recorded.ca = Some(Digest::of(b"ours"));
    recorded.fixed = FixedSettings::of(&ClusterSpec::default(), 1450);
    let mut nodes = vec![node("cp-1", 11), node("cp-2", 12)];
    let mut facts = BTreeMap::new();
    let mut owned = BTreeMap::new();
    for (n, node) in (1..).zip(&mut nodes) {
        let mut seen = good(n);
        seen.cluster_ca = recorded.ca;
        if n == 1 {
            change(&mut seen, node);
        }
        recorded.members.get_mut(&node.name).unwrap().address = [10, 90, 0, 10 + n].into();
        facts.insert(node.name.clone(), seen);
        let mut member = owned_entry();
        member.entries[0].step = format!("join-kubelet/{}", node.name).parse().unwrap();
        owned.insert(node.name.clone(), member);
    }
    let desired = Desired {
        spec: ClusterSpec::default(),
        inventory: Inventory { nodes },
    };
    check_record(&desired, None, &recorded, &facts, &owned)
}

#[test]
fn a_member_keeps_its_authority_and_its_role() {
    assert_eq!(found(|_, _| {}), vec![]);
    let authority = only(
        Check::OtherCluster,
        found(|seen, _| seen.cluster_ca = Some(Digest::of(b"another"))),
    );
    assert!(authority.refuses());
    assert_eq!(authority.nodes, ["cp-1".parse().unwrap()]);
    assert_eq!(
        found(|seen, _| seen.cluster_ca = None),
        vec![],
        "what is not known is no finding"
    );
    let role = found(|_, node| node.role = Role::Worker);
    let role = role.iter().find(|finding| finding.check == Check::MemberRole).unwrap();
    assert!(
        role.refuses() && role.saw.contains("recorded control plane"),
        "{role:?}"
    );
}

#[test]
fn a_machine_that_holds_nothing_of_a_recorded_etcd_member_is_refused() {
    let found = |etcd_id: Option<u64>, machine_id: &str, owned: Ownership| {
        let mut recorded = record(1, 1, 0);
        recorded.fixed = FixedSettings::of(&ClusterSpec::default(), 1450);
        let node = node("cp-2", 12);
        let known = recorded.members.get_mut(&node.name).unwrap();
        known.etcd_id = etcd_id.map(crate::quorum::MemberId);
        known.uid = "id-2".to_owned();
        let seen = NodeFacts {
            machine_id: machine_id.to_owned(),
            ..good(2)
        };
        let (facts, owned) = ([(node.name.clone(), seen)].into(), [(node.name.clone(), owned)].into());
        let desired = Desired {
            spec: ClusterSpec::default(),
            inventory: Inventory { nodes: vec![node] },
        };
        check_record(&desired, None, &recorded, &facts, &owned)
    };
    assert_eq!(
        found(None, "id-2", Ownership::default()),
        vec![],
        "it was to join and has not"
    );
    let mut joined = owned_entry();
    joined.entries[0].step = "join-kubelet/cp-2".parse().unwrap();
    let lost = |machine_id, owned| {
        found(Some(7), machine_id, owned)
            .into_iter()
            .find(|finding| finding.check == Check::MemberLost)
    };
    assert_eq!(lost("id-2", joined), None);
    let other = lost("id-9", Ownership::default()).unwrap();
    assert!(
        other.refuses() && other.saw.contains("machine-id id-9, recorded id-2"),
        "{other:?}"
    );
    let emptied = lost("id-2", Ownership::default()).unwrap();
    assert!(
        emptied.saw.contains("etcd member 7; machine-id id-2, as recorded"),
        "{emptied:?}"
    );
}

#[test]
fn records_of_several_clusters_and_of_one_number_are_named() {
    let share = |nodes: &[&str], whole| Share {
        nodes: nodes.iter().map(|name| name.parse().unwrap()).collect(),
        whole,
    };
    let clusters = [
        (ClusterUid::from_random([1; 16]), share(&["cp-1", "cp-2"], true)),
        (ClusterUid::from_random([2; 16]), share(&["w-1"], false)),
    ];
    let findings = records_disagree(&RecordError::SeveralClusters(clusters.into()));
    assert!(
        findings.iter().all(|f| f.check == Check::OtherCluster && f.refuses()),
        "{findings:?}"
    );
    let next: Vec<&str> = findings.iter().map(|f| f.next.as_str()).collect();
    assert!(
        next[0].starts_with("landfall uninstall --limit cp-1,cp-2: removes this whole cluster"),
        "{next:?}"
    );
    assert!(
        next[1].starts_with("landfall uninstall --limit w-1: removes what is left"),
        "{next:?}"
    );
    let same = RecordError::SameSequence {
        sequence: Sequence { run: 7, revision: 0 },
        nodes: vec!["cp-1".parse().unwrap(), "cp-2".parse().unwrap()],
    };
    let findings = records_disagree(&same);
    let [finding] = findings.as_slice() else {
        panic!("{findings:?}")
    };
    assert_eq!(finding.check, Check::SameRunNumber);
    assert!(finding.refuses() && finding.saw.contains("number 7"), "{finding:?}");
    assert_eq!(finding.nodes.len(), 2);
}
