//! The results of preflight: each [`Finding`] belongs to one of the [`Check`]s and has a [`Severity`].
//!
//! [`Check`] is the table of all checks. Which ones there are, what they mean and what `accept` in a spec may do about them is part of
//! the interface: ids are never used again for another meaning.

use crate::explain::{Code, Diagnosis};
use crate::name::NodeName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Information; nothing needs to be done.
    Note,
    /// The cluster starts, but something about it is at risk. Refused with `--strict`.
    Warn,
    /// The run is refused before its first change.
    Refuse,
}

impl Severity {
    /// Returns its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warn => "warning",
            Self::Refuse => "refused",
        }
    }
}

/// Whether `accept` may lower the severity of a check's findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The cluster cannot work otherwise: `accept` changes nothing.
    Hard,
    /// A user who knows the reason may accept it.
    Soft,
}

/// What a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One machine.
    Node,
    /// One machine and the bundle, when one is named.
    Bundle,
    /// The machines together, or the cluster that is recorded.
    Fleet,
}

macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $scope:ident, $severity:ident, $need:ident, $why:literal;)*) => {
        /// Every check of preflight, by its stable id.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Check {
            $($(#[$doc])* #[serde(rename = $id)] $name,)*
        }
        impl Check {
            /// Every check there is.
            pub const ALL: &'static [Check] = &[$(Check::$name,)*];
            /// Returns the id, as it is written in `accept` and in reports.
            pub fn id(self) -> &'static str {
                match self { $(Check::$name => $id,)* }
            }
            /// Returns what it looks at.
            pub fn scope(self) -> Scope {
                match self { $(Check::$name => Scope::$scope,)* }
            }
            /// Returns how much its findings matter, unless one says otherwise.
            pub fn severity(self) -> Severity {
                match self { $(Check::$name => Severity::$severity,)* }
            }
            /// Says whether `accept` may lower the severity of its findings.
            pub fn need(self) -> Need {
                match self { $(Check::$name => Need::$need,)* }
            }
            /// Returns why a finding matters.
            pub fn why(self) -> &'static str {
                match self { $(Check::$name => $why,)* }
            }
        }
    };
}

checks! {
    /// Two machines have the same host name.
    DuplicateHostname = "duplicate-hostname", Fleet, Refuse, Soft,
        "logs and the site's name service cannot tell the machines apart";
    /// Two machines have the same machine-id.
    DuplicateMachineId = "duplicate-machine-id", Fleet, Refuse, Hard,
        "landfall knows its members by the machine-id, and DHCP gives addresses by it";
    /// Two machines have the same address.
    DuplicateAddress = "duplicate-address", Fleet, Refuse, Hard,
        "peers would reach one of them and take it for the other";
    /// The node's own address is not clear, or it does not carry the one that is named.
    NodeAddress = "node-address", Fleet, Refuse, Hard,
        "etcd, certificates and the pod network name one address of each node";
    /// A member has another address than when it joined.
    AddressChanged = "address-changed", Fleet, Refuse, Hard,
        "etcd and the certificates hold the address with which the node joined";
    /// A clock differs from the others.
    ClockSkew = "clock-skew", Fleet, Refuse, Soft,
        "certificates, leases and etcd compare times of several machines";
    /// A clock differs from the operator's.
    ClockOperator = "clock-operator", Fleet, Refuse, Soft,
        "the cluster's certificates begin at the node's time: when the clock is put right, they are expired or not valid yet";
    /// A clock shows a time before the bundle was written.
    ClockBundle = "clock-bundle", Fleet, Refuse, Soft,
        "the cluster's certificates begin at the node's time: when the clock is put right, they may be expired";
    /// A network of the cluster is in use already.
    NetworkOverlap = "network-overlap", Fleet, Refuse, Soft,
        "packets for pods or Services would go where that network is, or the other way round";
    /// The bundle has another Kubernetes version than the cluster.
    KubernetesVersion = "kubernetes-version", Fleet, Refuse, Hard,
        "install replaces no program under running daemons";
    /// The bundle is older than the one that was installed.
    BundleVersion = "bundle-version", Fleet, Refuse, Hard,
        "an older landfall does not know what a newer one has left in the cluster";
    /// A setting that kubeadm took once is to change.
    FixedSetting = "fixed-setting", Fleet, Refuse, Hard,
        "a part of the cluster would follow the new value and the rest keep the old one";
    /// A member is to change its role.
    MemberRole = "member-role", Fleet, Refuse, Hard,
        "a control plane holds a part of etcd's data, which a worker does not";
    /// A control plane is to begin or to stop taking Pods.
    MemberSchedulable = "member-schedulable", Fleet, Warn, Soft,
        "kubeadm sets the taint of a control plane once, when it joins, and landfall keeps it as it is";
    /// A control plane of the cluster has nothing of its membership any more.
    MemberLost = "member-lost", Fleet, Refuse, Hard,
        "its etcd member is still one of the cluster's, and a second start without its data would break etcd's promise about what it has taken";
    /// The node belongs to another cluster.
    OtherCluster = "other-cluster", Fleet, Refuse, Hard,
        "two clusters would share one machine and its data";
    /// Two runs chose the same number.
    SameRunNumber = "same-run-number", Fleet, Refuse, Hard,
        "it cannot be told which of the two records of the cluster is the newer one";
    /// Too few control planes are connected.
    ControlPlaneMajority = "control-plane-majority", Fleet, Refuse, Hard,
        "without a majority of them etcd takes no change, and two runs could both act as the only one";

    /// A port that members need from each other cannot be reached.
    PeerPort = "peer-port", Fleet, Refuse, Hard,
        "the API server, etcd and the kubelets speak over it: the join of a node would wait until its time-out";
    /// A port of the ingress proxy cannot be reached from another node.
    PeerIngress = "peer-ingress", Fleet, Refuse, Soft,
        "the way into the cluster is to work on every node and from everywhere, and verify tries it so";
    /// VXLAN's datagrams do not arrive.
    PeerVxlan = "peer-vxlan", Fleet, Refuse, Hard,
        "pods of one node reach those of another over it, CoreDNS among them";
    /// Large packets are lost between nodes.
    PathMtu = "path-mtu", Fleet, Refuse, Soft,
        "small packets pass and large ones do not: connections come up and then hang, of pods and of the API";
    /// Some packets are lost between nodes.
    PathLoss = "path-loss", Fleet, Warn, Soft,
        "each lost packet costs a connection 200 ms and more, and etcd elects a new leader after 1 s without a sign of the old one";
    /// Control planes are far from each other.
    PathLatency = "path-latency", Fleet, Warn, Soft,
        "etcd's heartbeat of 100 ms is meant for round trips of up to two thirds of that (etcd's tuning guide: 0.5 to 1.5 times the round trip)";

    /// Nodes of a pod network by host-gw are in several subnets.
    HostGwSubnet = "host-gw-subnet", Fleet, Refuse, Hard,
        "flannel's host-gw makes each node the router of its pods, and the kernel takes only routers on its own links";
    /// Packets of pods do not fit through a node's interface.
    PodMtu = "pod-mtu", Node, Refuse, Soft,
        "what pods send in full size is lost or cut in pieces between nodes: connections open, and then hang";
    /// A network card of a driver that is known to break VXLAN's checksums.
    VxlanChecksumDriver = "vxlan-checksum-driver", Node, Warn, Soft,
        "where it does, other nodes drop what pods send: ping works, TCP does not";
    /// systemd is not process 1.
    NoSystemd = "no-systemd", Node, Refuse, Hard,
        "kubelet, containerd and landfall's own services are units of systemd";
    /// systemd is old.
    OldSystemd = "old-systemd", Node, Refuse, Soft,
        "landfall was never tried with it";
    /// Another machine architecture than the bundle's.
    Architecture = "architecture", Node, Refuse, Hard,
        "the bundle's programs do not run there";
    /// cgroup v1.
    CgroupV1 = "cgroup-v1", Node, Refuse, Hard,
        "the kubelet does not start on cgroup v1";
    /// The kernel is too old for a feature that is asked for.
    KernelVersion = "kernel-version", Node, Refuse, Hard,
        "the program that needs the feature looks at the kernel's version and ends";
    /// Features that no module brings.
    KernelFeatures = "kernel-features", Node, Refuse, Hard,
        "containers and the pod network are made of these features";
    /// nf_tables without one of its families.
    NftablesFamilies = "nftables-families", Node, Refuse, Hard,
        "kube-proxy, flannel and the CNI plugins make tables in the families ip, ip6 and inet";
    /// Modules that may not be loaded.
    ModulesForbidden = "modules-forbidden", Node, Refuse, Hard,
        "without the module the pod network does not come up, now or after the next boot";
    /// Modules that are on a list not to be loaded by themselves.
    ModuleBlacklist = "module-blacklist", Node, Note, Soft,
        "modprobe loads it all the same when landfall names it, or when another module needs it";
    /// Programs that kubeadm insists on.
    HostPrograms = "host-programs", Node, Refuse, Hard,
        "kubeadm and the kubelet start them";
    /// The host's nft is too old for kube-proxy's nftables mode.
    NftVersion = "nft-version", Node, Refuse, Soft,
        "this nft crashes on every list once a Service has several endpoints, and CNI's portmap opens the hostPorts of Pods by it";
    /// Neither program by which CNI's portmap can open a hostPort.
    HostPort = "host-port", Node, Warn, Soft,
        "the CNI plugin portmap opens a Pod's hostPort by nft or iptables of the node: without both such a Pod stays in ContainerCreating";
    /// Too little memory.
    Memory = "memory", Node, Refuse, Soft,
        "the kernel would end processes of the cluster when memory runs out";
    /// Too little disk.
    Disk = "disk", Node, Refuse, Soft,
        "images, logs and etcd need room to grow";
    /// What will be sent does not fit.
    BundleSpace = "bundle-space", Bundle, Refuse, Hard,
        "the install would fail half-way with a full disk";
    /// The kubelet would evict pods once all is installed.
    Space = "space", Node, Refuse, Soft,
        "below this limit the kubelet puts the node under pressure: it evicts pods and takes no new ones, CoreDNS too";
    /// The kubelet's limit is near.
    SpaceLow = "space-low", Node, Warn, Soft,
        "below the limit the kubelet puts the node under pressure: it evicts pods and takes no new ones";
    /// A place from which programs run is mounted noexec.
    Noexec = "noexec", Node, Refuse, Hard,
        "programs of landfall or of containers run from there";
    /// A place that landfall writes to cannot be written.
    NotWritable = "not-writable", Node, Refuse, Hard,
        "landfall and Kubernetes keep files there";
    /// Overlay cannot be mounted where containerd keeps its images.
    Overlay = "overlay", Node, Refuse, Hard,
        "containerd's snapshotter mounts the file systems of containers as overlays there";
    /// A disk that somebody mounted by hand.
    MountAtBoot = "mount-at-boot", Node, Warn, Soft,
        "after a boot the directory is empty: the node has lost its containers, its pods or its etcd data until somebody mounts the disk again";
    /// Swap is on, or will be after a boot.
    Swap = "swap", Node, Refuse, Hard,
        "the kubelet does not start while swap is on (failSwapOn)";
    /// Another sysctl file wins over landfall's.
    SysctlLater = "sysctl-later", Node, Warn, Soft,
        "after a boot the kernel has the other value";
    /// cloud-init writes /etc/hosts at each boot.
    HostsRewritten = "hosts-rewritten", Node, Warn, Soft,
        "the API's name, which landfall writes there for people, goes with the next boot";
    /// cloud-init may set the host name at a boot.
    HostnameRewritten = "hostname-rewritten", Node, Warn, Soft,
        "the site knows the machine by another name then; a kubelet that joined with an earlier landfall looks for a Node of that name";
    /// The node's address is leased.
    DynamicAddress = "dynamic-address", Node, Warn, Soft,
        "etcd and the certificates hold the address: with another one the node is lost to the cluster";
    /// A program of the node would configure the links of the cluster.
    LinkConfig = "link-config", Node, Refuse, Soft,
        "the bridge of the Pods or their links would lose addresses or routes, at once or at a later start of that program";
    /// No DNS server of the node answers, or only one that pods cannot ask.
    DnsServers = "dns-servers", Fleet, Warn, Soft,
        "DNS in pods says NXDOMAIN for each name outside the cluster, such as that of a registry or a database, until `upstreamDns` names servers";
    /// A firewall that landfall does not configure.
    Firewall = "firewall", Node, Refuse, Soft,
        "it drops what nodes say to each other, or what pods do";
    /// A packet filter drops what the cluster needs.
    PacketFilter = "packet-filter", Node, Refuse, Soft,
        "a packet that one chain drops is lost, whatever other tables accept: members or pods would wait for each other";
    /// A port that the cluster needs is taken.
    PortTaken = "port-taken", Node, Refuse, Hard,
        "the program of the cluster that listens there cannot start";
    /// Outgoing connections may take ports that the cluster needs.
    PortRange = "port-range", Node, Warn, Soft,
        "an outgoing connection can hold the port at the moment at which the cluster needs it";
    /// Another Kubernetes, or what is left of one.
    ForeignCluster = "foreign-cluster", Node, Refuse, Hard,
        "landfall does not touch what it did not make, and both cannot use the same places";
    /// A drop-in that changes all services.
    ServiceDropIn = "service-drop-in", Node, Warn, Soft,
        "the kubelet and containerd get it too, and may not be able to mount, write kernel settings or start containers";
    /// Another container runtime.
    ForeignRuntime = "foreign-runtime", Node, Refuse, Soft,
        "it changes packet filters and cgroups beside the cluster, for instance to drop what is forwarded";
    /// A link of a name that landfall's network needs.
    LinkTaken = "link-taken", Node, Refuse, Hard,
        "the network makes a link of this name and refuses one with other addresses";
    /// A link of another cluster's network.
    ForeignLink = "foreign-link", Node, Refuse, Soft,
        "it belongs to a pod network of another cluster, whose routes and rules may lead pods astray";
    /// A chain of another cluster's rules.
    ForeignChain = "foreign-chain", Node, Refuse, Soft,
        "rules of another cluster translate or drop packets of this one";
    /// SELinux enforces.
    Selinux = "selinux", Node, Refuse, Soft,
        "landfall sets no SELinux labels yet: containers would be denied their files";
    /// AppArmor is there.
    Apparmor = "apparmor", Node, Note, Soft,
        "containerd confines containers with a profile of its own, which goes with the uninstall";
    /// fapolicyd runs.
    Fapolicyd = "fapolicyd", Node, Refuse, Soft,
        "it forbids programs that no package brought, and so all of landfall's";
    /// The kernel is locked down.
    Lockdown = "lockdown", Node, Note, Soft,
        "modules without a signature cannot be loaded; landfall brings none";
    /// Few inotify watches.
    InotifyLimits = "inotify-limits", Node, Warn, Soft,
        "the kubelet, containerd and every `kubectl logs -f` hold inotify instances; beyond the limit they fail with \"too many open files\"";
    /// Few open files.
    FileLimits = "file-limits", Node, Warn, Soft,
        "the kubelet asks for 1,000,000 open files (its maxOpenFiles)";
    /// The distribution was not tried.
    Distribution = "distribution", Node, Note, Soft,
        "what differs there may matter in a way that no check knows";
    /// Something could not be looked at.
    NotDetermined = "not-determined", Node, Note, Soft,
        "the check was left out; it says nothing either way";
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// A file on a node, and the line in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The path.
    pub file: String,
    /// The line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{} line {line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// One result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The check.
    #[serde(rename = "id")]
    pub check: Check,
    /// How much it matters: the check's own severity, unless the finding, `accept` or `--strict` say otherwise.
    pub severity: Severity,
    /// The nodes concerned.
    pub nodes: Vec<NodeName>,
    /// What is wrong.
    pub what: String,
    /// The file that is the cause, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What was seen.
    pub saw: String,
    /// Why it matters.
    pub why: String,
    /// What to do about it.
    pub next: String,
}

impl Finding {
    /// Makes a finding about no node yet.
    pub fn new(check: Check, what: impl Into<String>, saw: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            check,
            severity: check.severity(),
            nodes: vec![],
            what: what.into(),
            place: None,
            saw: saw.into(),
            why: check.why().to_owned(),
            next: next.into(),
        }
    }

    /// Names the nodes.
    #[must_use]
    pub fn on<'a>(mut self, nodes: impl IntoIterator<Item = &'a NodeName>) -> Self {
        self.nodes = nodes.into_iter().cloned().collect();
        self
    }

    /// Names the file, and its line from 1.
    #[must_use]
    pub fn at(mut self, file: impl Into<String>, line: impl Into<Option<usize>>) -> Self {
        self.place = Some(Place {
            file: file.into(),
            line: line.into(),
        });
        self
    }

    /// Says that this one matters less than the check's others.
    #[must_use]
    pub fn at_most(mut self, severity: Severity) -> Self {
        self.severity = self.severity.min(severity);
        self
    }

    /// Says more exactly why it matters.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// Says whether it refuses the run.
    pub fn refuses(&self) -> bool {
        self.severity == Severity::Refuse
    }
}

/// Whether warnings refuse too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strictness {
    /// Refusals refuse.
    #[default]
    Refusals,
    /// Warnings refuse as well (`--strict`).
    Warnings,
}

/// Applies the spec's `accept` and the run's strictness to the severities, and sorts the findings: the most severe come first.
///
/// `accept` lowers a severity by one: a refusal becomes a warning, a warning a note. The refusal of a hard need stays, and its advice says
/// so.
pub fn settle(mut findings: Vec<Finding>, accept: &BTreeSet<Check>, strictness: Strictness) -> Vec<Finding> {
    for finding in findings.iter_mut().filter(|f| accept.contains(&f.check)) {
        finding.severity = match (finding.severity, finding.check.need()) {
            (Severity::Refuse, Need::Hard) => {
                let id = finding.check.id();
                finding.next.push_str(&format!(
                    " (`accept: [{id}]` changes nothing: the cluster cannot do without)"
                ));
                Severity::Refuse
            }
            (Severity::Refuse, Need::Soft) => Severity::Warn,
            (Severity::Warn | Severity::Note, _) => Severity::Note,
        };
    }
    if strictness == Strictness::Warnings {
        for finding in findings.iter_mut().filter(|f| f.severity == Severity::Warn) {
            finding.severity = Severity::Refuse;
        }
    }
    let mut merged: Vec<Finding> = Vec::new();
    for finding in findings {
        match merged.iter_mut().find(|known| known.differs_in_nodes_alone(&finding)) {
            Some(known) => known.nodes.extend(finding.nodes),
            None => merged.push(finding),
        }
    }
    merged.sort_by(|a, b| (b.severity, a.check, &a.nodes).cmp(&(a.severity, b.check, &b.nodes)));
    merged
}

impl Finding {
    /// Says whether another finding is the same on other machines. A finding about several machines together is never merged.
    fn differs_in_nodes_alone(&self, other: &Self) -> bool {
        let with_nodes = |finding: &Self| Self {
            nodes: vec![],
            ..finding.clone()
        };
        self.check.scope() != Scope::Fleet && with_nodes(self) == with_nodes(other)
    }

    /// Returns the errors of a finding that refuses: one for each machine when the check concerns single machines.
    pub fn into_diagnoses(self) -> Vec<Diagnosis> {
        if self.check.scope() == Scope::Fleet || self.nodes.len() < 2 {
            return vec![self.into()];
        }
        let on_one = |node: &NodeName| Diagnosis::from(self.clone().on([node]));
        self.nodes.iter().map(on_one).collect()
    }
}

impl From<Finding> for Diagnosis {
    fn from(finding: Finding) -> Self {
        let mut diagnosis = Diagnosis::new(
            Code::Preflight,
            format!("preflight {}: {}", finding.check, finding.what),
        );
        if let [only] = finding.nodes.as_slice() {
            diagnosis = diagnosis.on(only);
        } else if finding.nodes.len() > 1 {
            let nodes: Vec<_> = finding.nodes.iter().map(NodeName::as_str).collect();
            diagnosis = diagnosis.saw(format!("on {}", nodes.join(", ")));
        }
        if let Some(place) = finding.place {
            diagnosis = diagnosis.saw(place.to_string());
        }
        diagnosis = diagnosis.saw(finding.saw).next(finding.next);
        diagnosis.causes.push(finding.why);
        diagnosis
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(check: Check) -> Finding {
        Finding::new(check, "what", "saw", "next")
    }

    fn severities(findings: &[Finding]) -> Vec<(Check, Severity)> {
        findings.iter().map(|f| (f.check, f.severity)).collect()
    }

    #[test]
    fn ids_are_unique_and_written_as_they_are_read() {
        let ids: BTreeSet<&str> = Check::ALL.iter().map(|c| c.id()).collect();
        assert_eq!(ids.len(), Check::ALL.len());
        for check in Check::ALL {
            assert_eq!(serde_json::to_string(check).unwrap(), format!("\"{}\"", check.id()));
            assert!(check.why().len() > 20, "{check} does not say why it matters");
        }
    }

    #[test]
    fn the_readme_has_a_row_for_each_check() {
        let readme = include_str!("../README.md");
        for check in Check::ALL {
            let severity = match check.severity() {
                Severity::Refuse => "refuse",
                Severity::Warn => "warn",
                Severity::Note => "note",
            };
            let accept = match (check.severity(), check.need()) {
                (Severity::Refuse, Need::Hard) => "no",
                (Severity::Note, _) => "–",
                _ => "yes",
            };
            let row = readme.lines().find(|line| line.starts_with(&format!("| `{check}` |")));
            let row = row.unwrap_or_else(|| panic!("{check} has no row"));
            assert!(row.ends_with(&format!("| {severity} | {accept} |")), "{row}");
        }
    }

    #[test]
    fn accepting_lowers_the_severity_by_one_but_not_of_a_hard_need() {
        let all = vec![
            finding(Check::Apparmor),
            finding(Check::SysctlLater),
            finding(Check::Disk),
            finding(Check::Swap),
            finding(Check::Memory),
        ];
        let accept = [Check::Disk, Check::Swap, Check::SysctlLater].into();
        let settled = settle(all.clone(), &accept, Strictness::Refusals);
        assert_eq!(
            severities(&settled),
            [
                (Check::Memory, Severity::Refuse),
                (Check::Swap, Severity::Refuse),
                (Check::Disk, Severity::Warn),
                (Check::SysctlLater, Severity::Note),
                (Check::Apparmor, Severity::Note),
            ]
        );
        assert!(settled[1].next.contains("accept: [swap]"), "{}", settled[1].next);
        assert_eq!(settled[0].next, "next");
        let strict = settle(all, &BTreeSet::new(), Strictness::Warnings);
        let refused = strict.iter().filter(|f| f.refuses()).count();
        assert_eq!(refused, 4, "{strict:?}");
    }

    #[test]
    fn equal_findings_are_merged_and_give_an_error_for_each_machine() {
        let names: Vec<NodeName> = ["a", "b", "c"].iter().map(|n| n.parse().unwrap()).collect();
        let mut all: Vec<Finding> = names.iter().map(|name| finding(Check::Memory).on([name])).collect();
        all[2].saw = "other".to_owned();
        all.push(finding(Check::NetworkOverlap).on([&names[0]]));
        all.push(finding(Check::NetworkOverlap).on([&names[1]]));
        let settled = settle(all, &BTreeSet::new(), Strictness::Refusals);
        let nodes: Vec<usize> = settled.iter().map(|f| f.nodes.len()).collect();
        assert_eq!(nodes, [1, 1, 2, 1], "{settled:?}");
        let errors: Vec<Diagnosis> = settled.into_iter().flat_map(Finding::into_diagnoses).collect();
        assert_eq!(errors.len(), 5);
        assert!(errors.iter().all(|error| error.node.is_some()));
    }

    #[test]
    fn a_refusal_says_node_file_line_cause_and_what_to_do() {
        let name: NodeName = "w-1".parse().unwrap();
        let diagnosis = Diagnosis::from(finding(Check::Swap).on([&name]).at("/etc/fstab", 3));
        assert_eq!(diagnosis.node, Some(name));
        assert_eq!(diagnosis.what, "preflight swap: what");
        assert_eq!(diagnosis.saw, ["/etc/fstab line 3", "saw"]);
        assert_eq!(diagnosis.causes, [Check::Swap.why()]);
        assert_eq!(diagnosis.next, ["next"]);
        let names: Vec<NodeName> = ["a", "b"].iter().map(|n| n.parse().unwrap()).collect();
        let both = Diagnosis::from(finding(Check::DuplicateAddress).on(&names));
        assert_eq!((both.node, both.saw[0].as_str()), (None, "on a, b"));
    }
}
