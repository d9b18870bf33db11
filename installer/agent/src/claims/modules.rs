//! Kernel modules. Unloading one removes every link, table or mount of its kind, in all network namespaces and of all owners. A module
//! that is in use stays.

use crate::actions::system::{ModuleIndex, loaded_modules};
use crate::host::Host;
use crate::netlink::namespaces::{self, Content};
use crate::{files, mounts};

/// What may use modules, beside other modules.
#[derive(Debug, Default)]
struct Seen {
    networks: Vec<Content>,
    mounts: Vec<mounts::Mount>,
}

/// Unloads modules that are not in use. Returns a line for each that stays.
pub fn unload(host: &Host, modules: &[String]) -> Vec<String> {
    let loaded = loaded_modules(host);
    if !host.has_kernel() || !modules.iter().any(|m| loaded.contains(m)) {
        return vec![];
    }
    // Listing tables would load the module. Where it is not loaded there are no tables.
    let has_nftables = loaded.contains("nf_tables") || !ModuleIndex::read(host).has("nf_tables");
    let networks = match namespaces::all(has_nftables) {
        Ok(networks) => networks,
        Err(error) => return vec![format!("modules stay: what they serve could not be looked up: {error}")],
    };
    let seen = Seen {
        networks,
        mounts: mounts::all(),
    };
    unload_with(host, modules, &seen, |module| {
        let name = std::ffi::CString::new(module);
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        name.is_ok_and(|name| rustix::system::delete_module(&name, nonblocking).is_ok())
    })
}

fn unload_with(host: &Host, modules: &[String], seen: &Seen, remove: impl Fn(&str) -> bool) -> Vec<String> {
    // Users of a module must go before it; each round frees others, and a round that frees none is the last.
    loop {
        let freed = modules
            .iter()
            .filter(|module| is_loaded(host, module) && user(host, module, seen).is_none() && remove(module));
        if freed.count() == 0 {
            break;
        }
    }
    let staying = modules.iter().filter(|module| is_loaded(host, module));
    staying
        .map(|module| match user(host, module, seen) {
            Some(user) => format!("the module {module} stays: it serves {user}"),
            None => format!("the module {module} stays: the kernel does not let it go"),
        })
        .collect()
}

fn is_loaded(host: &Host, module: &str) -> bool {
    loaded_modules(host).contains(module)
}

/// Returns what uses a module, if anything does.
fn user(host: &Host, module: &str, seen: &Seen) -> Option<String> {
    of_kind(module, seen).or_else(|| holder(host, module))
}

/// Users that the kernel counts: other modules, open files, rules, mounts.
fn holder(host: &Host, module: &str) -> Option<String> {
    let holders = std::fs::read_dir(host.at("/sys/module").join(module).join("holders"));
    if let Some(holder) = holders.into_iter().flatten().flatten().next() {
        return Some(format!("the module {}", holder.file_name().to_string_lossy()));
    }
    let count = files::text(host.at("/sys/module").join(module).join("refcnt"));
    let text = files::text(host.at("/proc/modules"));
    let line = text.lines().find(|l| l.split(' ').next() == Some(module))?;
    let listed = line.split(' ').nth(2).unwrap_or_default();
    [count.trim(), listed]
        .iter()
        .any(|count| !matches!(*count, "" | "0"))
        .then(|| "something that the kernel counts".to_owned())
}

/// Users that the kernel does not count: they would be removed with the module.
fn of_kind(module: &str, seen: &Seen) -> Option<String> {
    let link = |kinds: &[&str]| {
        let mut links = seen.networks.iter().flat_map(|n| &n.links);
        let link = links.find(|l| kinds.contains(&l.kind.as_str()))?;
        Some(format!("the link {} ({})", link.name, link.kind))
    };
    let table = || {
        seen.networks.iter().find_map(|network| {
            let nft = network.rules.tables.first().map(|t| format!("the nftables table {t}"));
            nft.or_else(|| Some(format!("the iptables table {}", network.legacy_tables.first()?)))
        })
    };
    match module {
        "bridge" | "br_netfilter" | "stp" | "llc" => link(&["bridge"]),
        "veth" => link(&["veth"]),
        "vxlan" => link(&["vxlan"]),
        "udp_tunnel" | "ip6_udp_tunnel" => link(&["vxlan", "geneve", "wireguard", "bareudp", "gtp"]),
        "overlay" => {
            let mount = seen.mounts.iter().find(|m| m.kind == "overlay")?;
            Some(format!("the mount {}", mount.point.display()))
        }
        "ip_vs" if seen.networks.iter().any(|n| n.has_virtual_services) => Some("virtual services of IPVS".to_owned()),
        _ if [
            "nf_",
            "nft_",
            "xt_",
            "nfnetlink",
            "ip_tables",
            "ip6_tables",
            "iptable_",
            "ip6table_",
            "x_tables",
            "ip_vs",
        ]
        .iter()
        .any(|prefix| module.starts_with(prefix)) =>
        {
            table()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
