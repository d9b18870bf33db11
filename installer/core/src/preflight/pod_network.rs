//! Checks of what carries packets of pods between nodes: one subnet for host-gw, the MTU, network cards that break VXLAN's checksums.

use super::filters::own_address;
use super::{Input, Look};
use crate::cluster_record::ClusterRecord;
use crate::facts::NodeFacts;
use crate::finding::{Check, Finding, Severity};
use crate::name::NodeName;
use crate::spec::pod_network::VXLAN_OVERHEAD;
use crate::spec::{Backend, Cidr};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Drivers of network cards that are known to break checksums of what VXLAN carries, with where that is reported. With them ping between pods of
/// two nodes works, and TCP does not.
pub(super) const CHECKSUM_DRIVERS: [(&str, &str); 1] = [(
    "vmxnet3",
    "VMware: github.com/replicatedhq/kURL/pull/5071, github.com/openshift/machine-config-operator/pull/2734, \
     github.com/siderolabs/talos/pull/10238",
)];

/// First kernel in which features of a link can be set over netlink (`ETHTOOL_MSG_FEATURES_SET`; Documentation/networking/ethtool-netlink.rst came
/// with 5.6, this message with 5.8).
const ETHTOOL_NETLINK_KERNEL: (u32, u32) = (5, 8);

/// Checks of the nodes together.
pub(super) fn check_fleet(input: &Input) -> Vec<Finding> {
    if input.desired.spec.pod_network.backend == Backend::HostGw {
        one_subnet(input)
    } else {
        vec![]
    }
}

/// host-gw names every node as a router for its pods, and the kernel takes only routers that it reaches straight.
fn one_subnet(input: &Input) -> Vec<Finding> {
    let own = input.desired.inventory.members().filter_map(|node| {
        let seen = input.facts.get(&node.name)?;
        Some((&node.name, seen, own_address(input.desired, node, seen)?))
    });
    let own: Vec<(&NodeName, &NodeFacts, (Ipv4Addr, String))> = own.collect();
    let mut apart: BTreeMap<&NodeName, BTreeSet<String>> = BTreeMap::new();
    for (name, seen, (address, interface)) in &own {
        let held = seen.addresses.iter().find(|held| held.address == *address);
        let Some(held) = held else { continue };
        let subnet = Cidr {
            address: held.address,
            prefix: held.prefix,
        };
        let others = own
            .iter()
            .filter(|(_, _, (other, _))| other != address && !subnet.contains(*other));
        for (other, _, (there, _)) in others {
            apart.entry(name).or_default().insert(format!(
                "{address}/{} on {interface} does not hold {there} of {other}",
                held.prefix
            ));
        }
    }
    if apart.is_empty() {
        return vec![];
    }
    let saw: Vec<String> = apart
        .iter()
        .map(|(name, others)| format!("{name}: {}", others.iter().cloned().collect::<Vec<_>>().join(", ")))
        .collect();
    let what = "the nodes are not in one subnet, which podNetwork.backend host-gw needs";
    let next = "set podNetwork.backend to vxlan, or give all nodes addresses in one subnet";
    vec![Finding::new(Check::HostGwSubnet, what, saw.join("; "), next).on(apart.into_keys())]
}

/// Checks of one node.
pub(super) fn check(look: &mut Look) {
    let network = &look.input.desired.spec.pod_network;
    let Some((address, interface)) = own_address(look.input.desired, look.node, look.facts) else {
        return;
    };
    if let Some(mtu) = network.mtu {
        let finding = too_large(mtu, network.backend, look.facts, address.into());
        finding.into_iter().for_each(|finding| look.add_before_install(finding));
    }
    if network.backend != Backend::Vxlan {
        return;
    }
    if network.checksum_offload {
        let drivers = look.facts.interfaces.get(&interface).map(|seen| &seen.drivers);
        let known = CHECKSUM_DRIVERS
            .iter()
            .find(|(driver, _)| drivers.is_some_and(|drivers| drivers.contains(*driver)));
        if let Some((driver, reports)) = known {
            let what =
                format!("the network card of {interface} has the driver {driver}, which may break checksums of VXLAN");
            let next = "set `podNetwork: {checksumOffload: false}`; it costs some processor time and can be changed at any time by `install`";
            look.add(Finding::new(
                Check::VxlanChecksumDriver,
                what,
                (*reports).to_owned(),
                next,
            ));
        }
    } else if super::host::kernel_version(&look.facts.kernel).is_some_and(|version| version < ETHTOOL_NETLINK_KERNEL) {
        let (major, minor) = ETHTOOL_NETLINK_KERNEL;
        let finding = Finding::new(
            Check::KernelVersion,
            format!("podNetwork.checksumOffload: false needs Linux {major}.{minor}"),
            format!("Linux {}", look.facts.kernel),
            "boot a newer kernel; `journalctl -u landfall-node-settings` says whether this one took it",
        );
        look.add(finding.at_most(Severity::Warn));
    }
}

/// Says when packets of pods do not fit through the interface that carries a node's address.
fn too_large(pod_mtu: u16, backend: Backend, seen: &NodeFacts, address: IpAddr) -> Option<Finding> {
    let (interface, mtu) = (seen.interface_of(address)?, seen.mtu_of(address)?);
    let needed = u32::from(pod_mtu) + u32::from(backend.overhead());
    let overhead = match backend {
        Backend::Vxlan => format!(" and {VXLAN_OVERHEAD} bytes for VXLAN"),
        Backend::HostGw => String::new(),
    };
    let what = format!("packets of pods are larger than what {interface} takes");
    let saw = format!("pods have an MTU of {pod_mtu}{overhead}, {interface} one of {mtu}");
    let next = format!(
        "give {interface} an MTU of {needed}; before the first install podNetwork.mtu can be set to {} instead",
        mtu.saturating_sub(u32::from(backend.overhead()))
    );
    (mtu < needed).then(|| Finding::new(Check::PodMtu, what, saw, next))
}

/// Compares the MTU that a cluster's pods have with the interfaces of its nodes: one that joins may take less.
pub(super) fn check_recorded(
    record: &ClusterRecord,
    name: &NodeName,
    seen: &NodeFacts,
    address: IpAddr,
) -> Option<Finding> {
    let network = &record.fixed.pod_network;
    Some(too_large(network.mtu, network.backend, seen, address)?.on([name]))
}
