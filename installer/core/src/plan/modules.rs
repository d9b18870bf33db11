//! Kernel modules that daemons make the kernel load: what claims, preflight and the README say of them comes from this one table.

use crate::spec::ProxyMode;

/// A module that is loaded while a cluster runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DaemonModule {
    /// Its name, with underscores.
    pub name: &'static str,
    /// In which clusters pods, Services or host ports do not work without it.
    pub needed: Needed,
    /// How it is loaded.
    pub comes: Comes,
}

/// Which clusters need a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needed {
    /// All.
    Always,
    /// Those whose kube-proxy and flannel write nftables rules.
    Nftables,
    /// Those whose kube-proxy and flannel write iptables rules.
    Iptables,
    /// None: it is loaded because something asks for a feature that it can do without.
    Never,
}

/// How the kernel comes to load a module. A `blacklist` of modprobe keeps out what comes by an alias, and nothing else (tried with kmod 30).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comes {
    /// landfall names it to modprobe (`kernel_features`).
    ByName,
    /// The kernel asks modprobe for an alias, for instance `rtnl-link-veth` or `nft-expr-masq`.
    ByAlias,
    /// A module that is loaded needs it.
    WithAnother,
}

impl DaemonModule {
    /// Says whether a cluster of this mode needs it.
    pub(crate) fn is_needed(&self, mode: ProxyMode) -> bool {
        match self.needed {
            Needed::Always => true,
            Needed::Nftables => mode == ProxyMode::Nftables,
            Needed::Iptables => mode == ProxyMode::Iptables,
            Needed::Never => false,
        }
    }
}

const fn module(name: &'static str, needed: Needed, comes: Comes) -> DaemonModule {
    DaemonModule { name, needed, comes }
}

/// All modules, in the order in which claims name them: journals hold it, so a new one goes to the end.
pub(crate) const DAEMON_MODULES: [DaemonModule; 44] = {
    use Comes::{ByAlias, ByName, WithAnother};
    use Needed::{Always, Iptables, Never, Nftables};
    [
        module("vxlan", Always, ByName),
        module("udp_tunnel", Always, WithAnother),
        module("ip6_udp_tunnel", Always, WithAnother),
        module("veth", Always, ByAlias),
        module("bridge", Always, WithAnother),
        module("stp", Always, WithAnother),
        module("llc", Always, WithAnother),
        module("nf_tables", Always, ByName),
        module("nf_conntrack", Always, ByName),
        module("nf_nat", Always, WithAnother),
        module("nft_ct", Nftables, ByAlias),
        module("nft_masq", Nftables, ByAlias),
        module("nft_nat", Nftables, ByAlias),
        module("nft_chain_nat", Always, ByAlias),
        module("nft_numgen", Nftables, ByAlias),
        module("nft_compat", Iptables, ByAlias),
        module("nft_fib", Nftables, WithAnother),
        module("nft_fib_ipv4", Nftables, ByAlias),
        module("nft_fib_ipv6", Nftables, ByAlias),
        module("nft_reject", Nftables, WithAnother),
        module("nft_reject_ipv4", Nftables, ByAlias),
        module("nft_reject_ipv6", Nftables, ByAlias),
        // kube-proxy has tables of ip and ip6, none of inet.
        module("nft_reject_inet", Never, ByAlias),
        module("nft_limit", Never, ByAlias),
        module("xt_conntrack", Iptables, ByAlias),
        module("xt_mark", Iptables, ByAlias),
        module("xt_comment", Iptables, ByAlias),
        // kube-proxy asks it which connections of UDP lead to pods that are gone: without it they stay, for instance those to CoreDNS.
        module("nf_conntrack_netlink", Always, ByAlias),
        // iptables mode of kube-proxy, and its counters.
        module("xt_nat", Iptables, ByAlias),
        module("xt_MASQUERADE", Iptables, ByAlias),
        module("xt_addrtype", Iptables, ByAlias),
        module("xt_statistic", Iptables, ByAlias),
        module("xt_tcpudp", Iptables, ByAlias),
        module("xt_multiport", Iptables, ByAlias),
        // Services with session affinity.
        module("xt_recent", Never, ByAlias),
        module("xt_nfacct", Never, ByAlias),
        module("nfnetlink_acct", Never, ByAlias),
        module("nf_defrag_ipv4", Always, WithAnother),
        module("nf_defrag_ipv6", Always, WithAnother),
        module("nf_reject_ipv4", Always, WithAnother),
        module("nf_reject_ipv6", Always, WithAnother),
        // kube-proxy asks for leftovers of its IPVS mode, and the kernel loads the module to answer.
        module("ip_vs", Never, ByAlias),
        module("br_netfilter", Always, ByName),
        module("overlay", Always, ByName),
    ]
};

/// Returns the modules that a cluster of this mode needs.
pub(crate) fn needed(mode: ProxyMode) -> impl Iterator<Item = &'static DaemonModule> {
    DAEMON_MODULES.iter().filter(move |module| module.is_needed(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::install::kernel_features;
    use std::collections::BTreeSet;

    #[test]
    fn what_comes_by_name_is_what_landfall_names() {
        let by_name = DAEMON_MODULES.iter().filter(|m| m.comes == Comes::ByName);
        let by_name: BTreeSet<String> = by_name.map(|m| m.name.to_owned()).collect();
        let named: BTreeSet<String> = kernel_features().into_iter().map(|feature| feature.module).collect();
        assert_eq!(by_name, named);
    }

    #[test]
    fn each_module_stands_once_and_each_mode_needs_its_own() {
        let names: BTreeSet<&str> = DAEMON_MODULES.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), DAEMON_MODULES.len());
        let of = |mode| needed(mode).map(|m| m.name).collect::<BTreeSet<&str>>();
        let (nftables, iptables) = (of(ProxyMode::Nftables), of(ProxyMode::Iptables));
        assert!(nftables.contains("nft_masq") && !nftables.contains("xt_nat"));
        assert!(iptables.contains("xt_nat") && !iptables.contains("nft_masq"));
        assert!(nftables.contains("veth") && iptables.contains("veth"));
        assert!(!nftables.contains("ip_vs") && !iptables.contains("ip_vs"));
    }
}
