//! Checks that look at one node alone.

use super::{HOST_PROGRAMS, Look, PORTMAP_PROGRAMS};
use crate::facts::Tried;
use crate::finding::{Check, Finding, Severity};
use crate::inventory::Role;
use crate::packet_filter::{self, firewalld, ufw};
use crate::plan::install::kernel_features;
use crate::spec::{Firewall, ProxyMode};

/// Firewalls that are kept by a service of their own.
pub(super) const FIREWALL_UNITS: [&str; 2] = [FIREWALLD_UNIT, "ufw.service"];
/// The one that must be new enough, and whose rules nft must show.
const FIREWALLD_UNIT: &str = "firewalld.service";
/// Families of nf_tables in which kube-proxy, flannel and the CNI plugins make tables.
const NFTABLES_FAMILIES: [&str; 3] = ["ip", "ip6", "inet"];
/// First kernel on which kube-proxy's nftables mode starts (pkg/util/kernel/constants.go, `NFTablesKubeProxyKernelVersion`).
const NFTABLES_KERNEL: (u32, u32) = (5, 13);

/// First nft of a host that reads the maps of kube-proxy's nftables mode: 0.9.8 ends by a segmentation fault where a Service has several endpoints
/// (tried 2026-12-01; kubernetes/kubernetes#124152 asks for 1.0.1 on the host too).
const NFTABLES_NFT: [u32; 3] = [1, 0, 1];

/// Oldest systemd that is tried: Debian 11 and Rocky 9 are above it.
const LEAST_SYSTEMD: u32 = 245;

/// Looks at what a node is like now.
pub(super) fn check(look: &mut Look) {
    check_system(look);
    check_kernel(look);
    check_room(look);
    check_needs(look);
    check_firewalls(look);
    check_ports(look);
}

/// systemd, architecture and cgroups.
fn check_system(look: &mut Look) {
    let facts = look.facts;
    match facts.systemd {
        None => look.add(Finding::new(
            Check::NoSystemd,
            "systemd is not process 1",
            &facts.os,
            "use a machine that systemd runs",
        )),
        Some(version) if version < LEAST_SYSTEMD => {
            let what = format!("systemd is older than {LEAST_SYSTEMD}");
            let finding = Finding::new(Check::OldSystemd, what, version.to_string(), "use a newer system");
            look.add(finding);
        }
        Some(_) => {}
    }
    if facts.architecture != "x86_64" {
        look.add(Finding::new(
            Check::Architecture,
            "the bundle is for x86_64",
            &facts.architecture,
            "use an x86_64 machine",
        ));
    }
    if facts.cgroup_version == 1 && !look.lab {
        look.add(Finding::new(
            Check::CgroupV1,
            "the kubelet needs cgroup v2",
            "cgroup v1",
            "boot with systemd.unified_cgroup_hierarchy=1",
        ));
    }
}

/// What the kernel must have.
fn check_kernel(look: &mut Look) {
    let facts = look.facts;
    let (major, minor) = NFTABLES_KERNEL;
    let nftables = look.input.desired.spec.proxy_mode == ProxyMode::Nftables;
    match kernel_version(&facts.kernel) {
        Some(version) if nftables && version < NFTABLES_KERNEL => look.add(Finding::new(
            Check::KernelVersion,
            format!("kube-proxy's nftables mode needs Linux {major}.{minor}"),
            format!("Linux {}", facts.kernel),
            "set proxyMode: iptables, or boot a newer kernel",
        )),
        Some(_) => {}
        None => look.not_determined(Check::KernelVersion, format!("the kernel says {:?}", facts.kernel)),
    }
    let nft = facts.survey.nft_version.as_deref();
    if let Some(version) = nft.filter(|version| nftables && numbers(version).as_slice() < NFTABLES_NFT.as_slice()) {
        look.add_before_install(Finding::new(
            Check::NftVersion,
            "the host's nft is too old to stand beside kube-proxy's nftables mode",
            format!("nft {version}"),
            "set proxyMode: iptables, or install nft 1.0.1 or newer",
        ));
    }
    let modules = kernel_features().into_iter().map(|f| f.module);
    let absent: Vec<_> = modules.filter(|module| !facts.features.contains(module)).collect();
    if !absent.is_empty() {
        look.add(Finding::new(
            Check::KernelFeatures,
            "kernel features are missing, and no module brings them",
            absent.join(", "),
            "boot a kernel that has them",
        ));
    }
    let refused: Vec<String> = NFTABLES_FAMILIES
        .iter()
        .filter_map(|family| match facts.survey.nftables_families.get(*family)? {
            Tried::Fails(why) => Some(format!("{family}: {why}")),
            Tried::Works | Tried::Unknown => None,
        })
        .collect();
    if !refused.is_empty() {
        look.add(Finding::new(
            Check::NftablesFamilies,
            "nf_tables has not all families that are needed",
            refused.join(", "),
            "boot a kernel with CONFIG_NF_TABLES_IPV4, CONFIG_NF_TABLES_IPV6 and CONFIG_NF_TABLES_INET",
        ));
    }
}

/// Reads the first two numbers of a kernel's release, for instance of `5.10.0-30-amd64`.
pub(super) fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Memory and disk.
fn check_room(look: &mut Look) {
    let (limits, facts) = (&look.input.desired.spec.limits, look.facts);
    let memory = if look.node.role == Role::ControlPlane {
        limits.control_plane_memory_mib
    } else {
        limits.worker_memory_mib
    };
    if facts.memory_mib < memory {
        look.add(Finding::new(
            Check::Memory,
            format!("less than {memory} MiB of memory"),
            format!("{} MiB", facts.memory_mib),
            "add memory, or lower the limit in the spec",
        ));
    }
    if facts.disk_free_mib < limits.disk_mib && !look.ours {
        look.add(Finding::new(
            Check::Disk,
            format!("less than {} MiB free under /var/lib", limits.disk_mib),
            format!("{} MiB", facts.disk_free_mib),
            "free disk space, or lower the limit in the spec",
        ));
    }
}

/// Reads the numbers of a version, up to the first part that is none.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map_while(|part| part.parse().ok()).collect()
}

/// What kubeadm and the kubelet need of the system.
fn check_needs(look: &mut Look) {
    let facts = look.facts;
    let missing = HOST_PROGRAMS.iter().copied().filter(|p| !facts.programs.contains(*p));
    let missing: Vec<_> = missing.collect();
    if !missing.is_empty() {
        look.add(Finding::new(
            Check::HostPrograms,
            "programs that kubeadm needs are missing",
            missing.join(", "),
            "install them from the distribution's own medium",
        ));
    }
    if !PORTMAP_PROGRAMS.iter().any(|p| facts.programs.contains(*p)) {
        look.add(Finding::new(
            Check::HostPort,
            "Pods with hostPort cannot run on the node",
            "neither nft nor iptables is there",
            "install nftables from the distribution's own medium when there will be such Pods; a Pod with hostNetwork, a NodePort and the ingress \
             proxy need neither",
        ));
    }
}

fn check_firewalls(look: &mut Look) {
    let filters = &look.facts.survey.filters;
    let chains = packet_filter::chains(filters);
    let mut found = Vec::new();
    for unit in FIREWALL_UNITS {
        if look.facts.units.get(unit).is_none_or(|state| state != "active") {
            continue;
        }
        let is_firewalld = unit == FIREWALLD_UNIT;
        let shows_rules = chains.iter().any(|chain| match is_firewalld {
            true => chain.table == firewalld::TABLE,
            false => chain.name.starts_with(ufw::PREFIX),
        });
        // ufw's unit is active wherever ufw is installed, also while ufw is off (`ENABLED=no` in /etc/ufw/ufw.conf): its chains tell.
        let all_read = filters.unread.is_empty() && filters.unread_legacy.is_empty();
        if !is_firewalld && !shows_rules && all_read {
            continue;
        }
        let is_possible = !is_firewalld || firewalld::has_policies(&chains);
        let disable = format!("systemctl disable --now {unit}");
        let (what, next, most) = match (look.input.desired.spec.firewall, is_possible) {
            (Firewall::Open, true) => (
                format!("{unit} is active"),
                match unit {
                    FIREWALLD_UNIT => format!(
                        "nothing: landfall writes policies of its own below {}, where it drops what the cluster sends, and has it load them \
                         (`firewall: open`)",
                        firewalld::POLICIES
                    ),
                    _ => "nothing: landfall adds rules to its own where it drops what the cluster sends (`firewall: open`)".to_owned(),
                },
                Severity::Note,
            ),
            (Firewall::Open, false) => (
                format!("{unit} is active, and shows no place for a policy of landfall's"),
                format!("use firewalld 0.9 to 1.x with its backend nftables, and nft on the node; or {disable}"),
                Severity::Refuse,
            ),
            (Firewall::Keep, _) if shows_rules => (
                format!("{unit} is active; `packet-filter` names what its rules drop of the cluster's traffic"),
                "nothing, unless `packet-filter` names something; look again when its rules change".to_owned(),
                Severity::Warn,
            ),
            (Firewall::Keep, is_possible) => (
                format!("{unit} is active and would drop the cluster's traffic"),
                format!(
                    "{}{disable}",
                    if is_possible { "set `firewall: open`, or " } else { "" }
                ),
                Severity::Refuse,
            ),
        };
        found.push(Finding::new(Check::Firewall, what, "active", next).at_most(most));
    }
    found.into_iter().for_each(|finding| look.add(finding));
}

fn check_ports(look: &mut Look) {
    if look.ours {
        return;
    }
    for (port, program) in &look.facts.ports_taken {
        let what = format!("port {port} is taken");
        look.add(Finding::new(Check::PortTaken, what, program, "stop what listens there"));
    }
}

#[cfg(test)]
mod tests {
    use super::kernel_version;

    #[test]
    fn releases_of_all_distributions_are_read() {
        for (release, version) in [
            ("5.10.0-30-amd64", Some((5, 10))),
            ("6.1", Some((6, 1))),
            ("5.14.0-427.el9.x86_64", Some((5, 14))),
            ("6.18-rc3", Some((6, 18))),
            ("next", None),
            ("6", None),
            ("", None),
        ] {
            assert_eq!(kernel_version(release), version, "{release}");
        }
    }
}
