//! Chooses the DNS servers for names outside the cluster. The choice is made once and recorded, so that an outage of the nodes' resolvers does not
//! change the cluster.

use crate::cluster_record::ClusterRecord;
use crate::facts::NodeFacts;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Where names outside the cluster are resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsPolicy {
    /// Nowhere: such names do not exist, and DNS answers so at once.
    Closed,
    /// By these servers.
    Forward(Vec<IpAddr>),
}

/// Decides: the `setting` (`upstreamDns`) wins; else what was `recorded` when the cluster was made stays; else the nodes' own resolvers, when
/// every node has one that answers; else no name outside the cluster exists.
pub fn dns_policy<'a>(
    setting: &[IpAddr],
    recorded: Option<&DnsPolicy>,
    facts: impl IntoIterator<Item = &'a NodeFacts> + Clone,
) -> DnsPolicy {
    if !setting.is_empty() {
        return DnsPolicy::Forward(setting.to_vec());
    }
    if let Some(recorded) = recorded {
        return recorded.clone();
    }
    if facts.clone().into_iter().any(|f| usable(f).next().is_none()) {
        return DnsPolicy::Closed;
    }
    let servers: BTreeSet<IpAddr> = facts.clone().into_iter().flat_map(usable).collect();
    // Pods on every node will ask each of them: one that is silent to a node that names it is no server for all.
    let is_silent = |ip: &IpAddr| facts.clone().into_iter().any(|f| f.dns_answers.get(ip) == Some(&None));
    let servers: Vec<IpAddr> = servers.into_iter().filter(|ip| !is_silent(ip)).collect();
    DnsPolicy::of(servers)
}

impl DnsPolicy {
    /// Returns the policy that forwards to these servers; closed when there are none.
    pub fn of(servers: Vec<IpAddr>) -> Self {
        if servers.is_empty() {
            Self::Closed
        } else {
            Self::Forward(servers)
        }
    }
}

/// Returns the policy that a cluster keeps. Servers that the spec named in an earlier run and no longer names are not kept.
pub fn kept(record: Option<&ClusterRecord>) -> Option<DnsPolicy> {
    let kept = record
        .map(|record| &record.kept)
        .filter(|kept| !kept.upstream_dns_named)?;
    kept.upstream_dns.clone().map(DnsPolicy::of)
}

/// Returns the servers of a node that pods can ask (IPv4, not loopback) and that answer at all. A server that knows only the zones of its site may refuse
/// the root or fail to find it, and one behind a narrow packet filter may answer over UDP alone: names of the site are resolved all the same.
pub(crate) fn usable(facts: &NodeFacts) -> impl Iterator<Item = IpAddr> {
    let is_reachable = |ip: &IpAddr| ip.is_ipv4() && !ip.is_loopback();
    let asked = facts.dns_servers.iter().copied().filter(is_reachable);
    asked.filter(|ip| matches!(facts.dns_answers.get(ip), Some(Some(_))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::facts_of_a_good_node;

    /// A node with these servers, of which some answer.
    fn seen(servers: &[([u8; 4], Option<&str>)]) -> NodeFacts {
        let answers = servers
            .iter()
            .map(|(ip, said)| (IpAddr::from(*ip), said.map(str::to_owned)));
        NodeFacts {
            dns_servers: servers.iter().map(|(ip, _)| IpAddr::from(*ip)).collect(),
            dns_answers: answers.collect(),
            ..facts_of_a_good_node(1)
        }
    }

    fn forward(servers: &[[u8; 4]]) -> DnsPolicy {
        DnsPolicy::Forward(servers.iter().map(|s| IpAddr::from(*s)).collect())
    }

    const FIRST: [u8; 4] = [192, 0, 2, 1];
    const SECOND: [u8; 4] = [192, 0, 2, 2];
    const LOCAL: [u8; 4] = [127, 0, 0, 53];
    const OK: Option<&str> = Some("NOERROR");

    #[test]
    fn a_later_state_of_the_resolvers_changes_nothing() {
        let works = [seen(&[(FIRST, OK)]), seen(&[(FIRST, OK), (LOCAL, OK)])];
        let hiccup = [works[0].clone(), seen(&[(FIRST, None)])];
        assert_eq!(dns_policy(&[], None, &works), forward(&[FIRST]));
        assert_eq!(dns_policy(&[], None, &hiccup), DnsPolicy::Closed);
        let recorded = forward(&[FIRST]);
        assert_eq!(dns_policy(&[], Some(&recorded), &hiccup), recorded);
        assert_eq!(dns_policy(&[], Some(&DnsPolicy::Closed), &works), DnsPolicy::Closed);
    }

    #[test]
    fn servers_that_pods_cannot_reach_do_not_count() {
        let server: IpAddr = "2001:db8::53".parse().unwrap();
        let mut node = seen(&[]);
        node.dns_servers.push(server);
        node.dns_answers.insert(server, OK.map(str::to_owned));
        assert_eq!(dns_policy(&[], None, &[node.clone()]), DnsPolicy::Closed);
        let mut both = seen(&[(FIRST, OK)]);
        both.dns_servers.push(server);
        both.dns_answers.insert(server, OK.map(str::to_owned));
        assert_eq!(dns_policy(&[], None, &[both]), forward(&[FIRST]));
    }

    #[test]
    fn a_setting_wins_over_record_and_facts() {
        let setting = [IpAddr::from([198, 51, 100, 7])];
        let works = [seen(&[(FIRST, OK)])];
        assert_eq!(
            dns_policy(&setting, Some(&DnsPolicy::Closed), &works),
            forward(&[[198, 51, 100, 7]])
        );
        assert_eq!(dns_policy(&[], None, &[seen(&[(LOCAL, OK)])]), DnsPolicy::Closed);
        assert_eq!(dns_policy(&[], None, &[seen(&[])]), DnsPolicy::Closed);
    }

    #[test]
    fn servers_of_a_site_count_whatever_they_say_of_the_root() {
        for said in ["REFUSED", "SERVFAIL", "NXDOMAIN"] {
            let site = [seen(&[(FIRST, Some(said))]), seen(&[(FIRST, Some(said))])];
            assert_eq!(dns_policy(&[], None, &site), forward(&[FIRST]), "{said}");
        }
    }

    #[test]
    fn a_silent_server_is_left_out_when_each_node_has_another() {
        let nodes = [seen(&[(FIRST, OK), (SECOND, None)]), seen(&[(FIRST, OK), (SECOND, OK)])];
        assert_eq!(dns_policy(&[], None, &nodes), forward(&[FIRST]));
        let crossed = [
            seen(&[(FIRST, OK), (SECOND, None)]),
            seen(&[(FIRST, None), (SECOND, OK)]),
        ];
        assert_eq!(dns_policy(&[], None, &crossed), DnsPolicy::Closed);
    }
}
