//! Chooses the DNS servers for names outside the cluster. The choice is made once and recorded, so that an outage of the nodes' resolvers does not
//! change the cluster.

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

/// Decides: the `setting` (`upstreamDns`) wins; else what was `recorded` when the cluster was made stays; else the nodes' own
/// resolvers, when all of them answered from every node; else no name outside the cluster exists.
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
    if !facts.clone().into_iter().all(|f| f.dns_works == Some(true)) {
        return DnsPolicy::Closed;
    }
    let servers: BTreeSet<IpAddr> = facts.into_iter().flat_map(|f| f.dns_servers.iter().copied()).collect();
    let usable: Vec<IpAddr> = servers.into_iter().filter(|ip| !ip.is_loopback()).collect();
    if usable.is_empty() {
        DnsPolicy::Closed
    } else {
        DnsPolicy::Forward(usable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::facts_of_a_good_node;

    fn seen(works: Option<bool>, servers: &[[u8; 4]]) -> NodeFacts {
        NodeFacts {
            dns_works: works,
            dns_servers: servers.iter().map(|s| IpAddr::from(*s)).collect(),
            ..facts_of_a_good_node(1)
        }
    }

    fn forward(servers: &[[u8; 4]]) -> DnsPolicy {
        DnsPolicy::Forward(servers.iter().map(|s| IpAddr::from(*s)).collect())
    }

    #[test]
    fn a_later_state_of_the_resolvers_changes_nothing() {
        let works = [
            seen(Some(true), &[[192, 0, 2, 1]]),
            seen(Some(true), &[[192, 0, 2, 1], [127, 0, 0, 53]]),
        ];
        let hiccup = [works[0].clone(), seen(Some(false), &[[192, 0, 2, 1]])];
        assert_eq!(dns_policy(&[], None, &works), forward(&[[192, 0, 2, 1]]));
        assert_eq!(dns_policy(&[], None, &hiccup), DnsPolicy::Closed);
        let recorded = forward(&[[192, 0, 2, 1]]);
        assert_eq!(dns_policy(&[], Some(&recorded), &hiccup), recorded);
        assert_eq!(dns_policy(&[], Some(&DnsPolicy::Closed), &works), DnsPolicy::Closed);
    }

    #[test]
    fn a_setting_wins_over_record_and_facts() {
        let setting = [IpAddr::from([198, 51, 100, 7])];
        let works = [seen(Some(true), &[[192, 0, 2, 1]])];
        assert_eq!(
            dns_policy(&setting, Some(&DnsPolicy::Closed), &works),
            forward(&[[198, 51, 100, 7]])
        );
        assert_eq!(
            dns_policy(&[], None, &[seen(Some(true), &[[127, 0, 0, 53]])]),
            DnsPolicy::Closed
        );
    }
}
