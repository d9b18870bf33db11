//! Renders the cluster's record, for `status` and `journal show`.

use landfall_core::cluster_record::{ClusterRecord, KeptSettings, MemberRecord};
use landfall_core::inventory::Role;
use landfall_core::name::NodeName;
use serde_json::{Map, Value, json};

/// Characters of a digest that are displayed.
const SHORT: usize = 12;

/// Renders the record as text. `last_run` is the number of the cluster's newest run.
pub fn cluster(record: &ClusterRecord, last_run: Option<u64>) -> String {
    let ca = record.ca.map_or_else(
        || "no CA yet".to_owned(),
        |ca| format!("CA sha256:{}…", &ca.hex()[..SHORT]),
    );
    let formed = if record.formed { "" } else { ", not founded yet" };
    let last_run = last_run.unwrap_or(record.sequence.run);
    let mut text = format!(
        "cluster {}{formed}\n  uid {}, {ca}\n  Kubernetes {}, last run {last_run}\n",
        record.name, record.uid, record.kubernetes_version
    );
    text.push_str(&format!(
        "  names outside the cluster: {}\n",
        outside_names(&record.kept)
    ));
    let width = record.members.keys().map(|name| name.as_str().len()).max().unwrap_or(0);
    for (name, member) in &record.members {
        text.push_str(&format!("  {:width$}  {}\n", name.as_str(), describe(member)));
    }
    text
}

/// Says where names outside the cluster are resolved, and who decided that.
fn outside_names(kept: &KeptSettings) -> String {
    match kept.upstream_dns.as_deref() {
        None => "not recorded".to_owned(),
        Some([]) => "NXDOMAIN, until `upstreamDns` names servers".to_owned(),
        Some(servers) => {
            let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
            let by = if kept.upstream_dns_named {
                "by `upstreamDns`"
            } else {
                "the nodes' own at the first install"
            };
            format!("{} ({by})", servers.join(", "))
        }
    }
}

fn describe(member: &MemberRecord) -> String {
    let mut parts = vec![role(member.role).to_owned(), member.address.to_string()];
    parts.extend(member.founder.then(|| "founder".to_owned()));
    parts.extend(member.cofounder.then(|| "cofounder".to_owned()));
    parts.extend(member.etcd_id.map(|id| format!("etcd {id}")));
    parts.join(", ")
}

fn role(role: Role) -> &'static str {
    match role {
        Role::ControlPlane => "control-plane",
        Role::Worker => "worker",
        Role::Outside => "outside",
    }
}

/// Renders the record as JSON, with whole digests.
pub fn cluster_json(record: &ClusterRecord, last_run: Option<u64>) -> Value {
    let member = |(name, member): (&NodeName, &MemberRecord)| {
        let value = json!({
            "role": role(member.role),
            "address": member.address,
            "machineId": member.uid,
            "etcdId": member.etcd_id.map(|id| id.to_string()),
        });
        (name.to_string(), value)
    };
    json!({
        "name": record.name,
        "uid": record.uid,
        "ca": record.ca,
        "kubernetes": record.kubernetes_version,
        "bundle": record.bundle,
        "formed": record.formed,
        "upstreamDns": record.kept.upstream_dns,
        "founder": record.founder(),
        "members": record.members.iter().map(member).collect::<Map<_, _>>(),
        "lastRun": last_run.unwrap_or(record.sequence.run),
    })
}
