//! Checks that look at one node alone.

use super::{FOREIGN_PATHS, Finding, HOST_PROGRAMS};
use crate::facts::NodeFacts;
use crate::inventory::{Node, Role};
use crate::plan::install::kernel_features;
use crate::spec::{Desired, Limits, Profile};

/// Oldest systemd that is tried: Debian 11 and Rocky 9 are above it.
const LEAST_SYSTEMD: u32 = 245;

/// Checks one node. `ours`: an earlier run of ours left things there, which are then no findings.
pub(super) fn check(desired: &Desired, node: &Node, facts: &NodeFacts, ours: bool) -> Vec<Finding> {
    let lab = desired.spec.profile == Profile::Lab;
    let mut refusals = Refusals { node, found: vec![] };
    refusals.check_system(facts, lab);
    refusals.check_room(&desired.spec.limits, facts, ours);
    refusals.check_needs(facts, lab);
    refusals.check_firewalls(facts);
    if !ours {
        refusals.check_others(facts);
    }
    refusals.found
}

/// What speaks against a node.
struct Refusals<'a> {
    node: &'a Node,
    found: Vec<Finding>,
}

impl Refusals<'_> {
    fn add(&mut self, id: &'static str, what: impl Into<String>, saw: impl Into<String>, next: &str) {
        self.found.push(Finding {
            id,
            nodes: vec![self.node.name.clone()],
            what: what.into(),
            saw: saw.into(),
            next: next.to_owned(),
        });
    }

    /// systemd, architecture and cgroups.
    fn check_system(&mut self, facts: &NodeFacts, lab: bool) {
        match facts.systemd {
            None => self.add(
                "no-systemd",
                "systemd is not process 1",
                &facts.os,
                "use a machine that systemd runs",
            ),
            Some(version) if version < LEAST_SYSTEMD => {
                let what = format!("systemd is older than {LEAST_SYSTEMD}");
                self.add("old-systemd", what, version.to_string(), "use a newer system");
            }
            Some(_) => {}
        }
        if facts.architecture != "x86_64" {
            self.add(
                "architecture",
                "the bundle is for x86_64",
                &facts.architecture,
                "use an x86_64 machine",
            );
        }
        if facts.cgroup_version == 1 && !lab {
            self.add(
                "cgroup-v1",
                "the kubelet needs cgroup v2",
                "cgroup v1",
                "boot with systemd.unified_cgroup_hierarchy=1",
            );
        }
    }

    /// Memory and disk.
    fn check_room(&mut self, limits: &Limits, facts: &NodeFacts, ours: bool) {
        let memory = if self.node.role == Role::ControlPlane {
            limits.control_plane_memory_mib
        } else {
            limits.worker_memory_mib
        };
        if facts.memory_mib < memory {
            self.add(
                "memory",
                format!("less than {memory} MiB of memory"),
                format!("{} MiB", facts.memory_mib),
                "add memory, or lower the limit in the spec",
            );
        }
        if facts.disk_free_mib < limits.disk_mib && !ours {
            self.add(
                "disk",
                format!("less than {} MiB free under /var/lib", limits.disk_mib),
                format!("{} MiB", facts.disk_free_mib),
                "free disk space, or lower the limit in the spec",
            );
        }
    }

    /// What kubeadm, kubelet and containers need of the system.
    fn check_needs(&mut self, facts: &NodeFacts, lab: bool) {
        let missing = HOST_PROGRAMS.iter().copied().filter(|p| !facts.programs.contains(*p));
        let missing: Vec<_> = missing.collect();
        if !missing.is_empty() {
            self.add(
                "host-programs",
                "programs that kubeadm needs are missing",
                missing.join(", "),
                "install them from the distribution's own medium",
            );
        }
        let modules = kernel_features().into_iter().map(|f| f.module);
        let absent: Vec<_> = modules.filter(|module| !facts.features.contains(module)).collect();
        if !absent.is_empty() {
            self.add(
                "kernel-features",
                "kernel features are missing, and no module brings them",
                absent.join(", "),
                "boot a kernel that has them",
            );
        }
        if !facts.exec_allowed {
            self.add(
                "noexec",
                "/var/lib is mounted noexec",
                "noexec",
                "mount /var/lib with exec; containers run from there",
            );
        }
        if !facts.swaps.is_empty() && !lab {
            self.add(
                "swap",
                "swap is on",
                facts.swaps.join(", "),
                "swapoff -a, and take swap out of /etc/fstab",
            );
        }
    }

    fn check_firewalls(&mut self, facts: &NodeFacts) {
        for unit in ["firewalld.service", "ufw.service"] {
            if facts.units.get(unit).is_some_and(|state| state == "active") {
                let what = format!("{unit} is active and would drop the cluster's traffic");
                self.add("firewall", what, "active", &format!("systemctl disable --now {unit}"));
            }
        }
    }

    /// What others run or left on the node.
    fn check_others(&mut self, facts: &NodeFacts) {
        for (port, program) in &facts.ports_taken {
            let what = format!("port {port} is taken");
            self.add("port-taken", what, program, "stop what listens there");
        }
        let foreign = FOREIGN_PATHS.iter().copied().filter(|p| facts.paths.contains(*p));
        let runtime = |unit: &str| !unit.starts_with("firewalld") && !unit.starts_with("ufw");
        let running = facts
            .units
            .iter()
            .filter(|(unit, state)| *state == "active" && runtime(unit));
        let saw: Vec<_> = foreign.chain(running.map(|(unit, _)| unit.as_str())).collect();
        if !saw.is_empty() {
            self.add(
                "foreign-cluster",
                "there is a Kubernetes or a container runtime that is not landfall's",
                saw.join(", "),
                "remove it with its own tools first; landfall does not touch what it did not make",
            );
        }
    }
}
