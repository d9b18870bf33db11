//! The node's own DNS servers, by which names outside a new cluster are to be resolved.

use super::Look;
use crate::finding::{Check, Finding};

/// Nothing is said where the spec names servers, where landfall decided in an earlier run, or where the node names none: an air gap has none.
pub(super) fn check(look: &mut Look) {
    let (facts, spec) = (look.facts, &look.input.desired.spec);
    if look.ours || !spec.upstream_dns.is_empty() || facts.dns_servers.is_empty() {
        return;
    }
    let mut seen = Vec::new();
    for server in &facts.dns_servers {
        match facts.dns_answers.get(server) {
            _ if server.is_loopback() => seen.push(format!("{server} is the node's own, which pods cannot ask")),
            Some(None) => seen.push(format!("{server} did not answer within 2 s")),
            // One that answers is enough; without an answer to read nothing is known.
            Some(Some(_)) | None => return,
        }
    }
    look.add(Finding::new(
        Check::DnsServers,
        "no DNS server of the node can be used for names outside the cluster",
        seen.join("; "),
        "name servers in `upstreamDns`, or zones of the site in `stubZones`; both can be set later",
    ));
}
