//! What an uninstall needs before it begins: which machines it acts on, and that it takes away no part of a cluster that lives.

use crate::limit::Limit;
use crate::present::Present;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::journal::{Ownership, member_records};
use landfall_core::name::NodeName;
use landfall_core::run_history::RunHistory;
use landfall_core::spec::Desired;
use landfall_core::uninstall::{Refusal, refuse};
use std::collections::BTreeMap;

/// Combines the journals of the machines that the uninstall acts on. It needs neither an order of the runs nor a common record.
pub(super) fn present(mut owned: BTreeMap<NodeName, Ownership>, limit: &Limit) -> Present {
    owned.retain(|name, _| limit.includes(name));
    let record = member_records(&owned)
        .map(|(_, record)| record)
        .max_by_key(|record| record.sequence)
        .cloned();
    Present {
        history: RunHistory::of(&owned).unwrap_or_else(|_| RunHistory::without_order(&owned)),
        owned,
        record,
    }
}

/// Refuses an uninstall that would take away a part of a cluster.
pub(super) fn refuse_part(
    owned: &BTreeMap<NodeName, Ownership>,
    desired: &Desired,
    limit: &Limit,
) -> Result<(), Diagnosis> {
    let includes = |name: &NodeName| limit.includes(name);
    let chosen: Option<&dyn Fn(&NodeName) -> bool> = limit.is_set().then_some(&includes as _);
    refuse(owned, &desired.inventory, chosen).map_or(Ok(()), |refusal| Err(refused(refusal)))
}

/// Returns the error of an uninstall, or of a rollback, that is refused.
pub(super) fn refused(refusal: Refusal) -> Diagnosis {
    let list = |names: &[NodeName]| names.iter().map(NodeName::as_str).collect::<Vec<_>>().join(",");
    match refusal {
        Refusal::SeveralClusters(clusters) => {
            let what = "the machines belong to several clusters, and an uninstall removes one";
            let mut diagnosis = Diagnosis::new(Code::Preflight, what);
            for (uid, share) in &clusters {
                let saw = format!("cluster {uid}: {}", list(&share.nodes));
                diagnosis = diagnosis.saw(saw).next(share.way_out());
            }
            diagnosis
        }
        Refusal::Unlisted(members) => {
            let what = "the inventory lacks members of the cluster, which would be left without the others";
            let named = members
                .into_iter()
                .fold(Diagnosis::new(Code::Preflight, what), |d, (name, address)| {
                    d.saw(format!("{name} at {address} is a member"))
                });
            named.next(
                "put them into the inventory, also when they are lost: unreachable nodes are reported and left out",
            )
        }
        Refusal::MembersLeftOut(names) => Diagnosis::new(
            Code::Preflight,
            "--limit leaves out members of the cluster, and an uninstall removes no single member",
        )
        .saw(format!("members too: {}", list(&names)))
        .next("landfall uninstall without --limit removes the whole cluster")
        .next("landfall has no command yet that removes one node"),
        Refusal::MembersUnknown(names) => Diagnosis::new(
            Code::Preflight,
            "other machines may belong to the cluster of the chosen ones, and an uninstall removes no single member",
        )
        .saw(format!("not known: {}", list(&names)))
        .next("bring them back, or put them into the inventory, so that they can be asked")
        .next("what is gone for good: put it into the inventory and into --limit"),
    }
}
