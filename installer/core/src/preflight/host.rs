//! Checks that look at one node alone.

use super::{FOREIGN_PATHS, Finding, HOST_PROGRAMS, Severity};
use crate::facts::NodeFacts;
use crate::inventory::{Node, Role};
use crate::plan::install::kernel_features;
use crate::spec::{Desired, Profile};

/// Oldest systemd that is tried: Debian 11 and Rocky 9 are above it.
const LEAST_SYSTEMD: u32 = 245;

/// Checks one node. `ours`: an earlier run of ours left things there, which are then no findings.
pub(super) fn check(desired: &Desired, node: &Node, facts: &NodeFacts, ours: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut refuse = |id, what: String, saw: String, next: &str| {
        findings.push(Finding {
            id,
            severity: Severity::Refuse,
            nodes: vec![node.name.clone()],
            what,
            saw,
            next: next.to_owned(),
        });
    };
    let lab = desired.spec.profile == Profile::Lab;
    match facts.systemd {
        None => refuse(
            "no-systemd",
            "systemd is not process 1".into(),
            facts.os.clone(),
            "use a machine that systemd runs",
        ),
        Some(version) if version < LEAST_SYSTEMD => {
            let what = format!("systemd is older than {LEAST_SYSTEMD}");
            refuse("old-systemd", what, version.to_string(), "use a newer system");
        }
        Some(_) => {}
    }
    if facts.architecture != "x86_64" {
        let what = "the bundle is for x86_64".to_owned();
        refuse(
            "architecture",
            what,
            facts.architecture.clone(),
            "use an x86_64 machine",
        );
    }
    if facts.cgroup_version == 1 && !lab {
        let what = "the kubelet needs cgroup v2".to_owned();
        refuse(
            "cgroup-v1",
            what,
            "cgroup v1".into(),
            "boot with systemd.unified_cgroup_hierarchy=1",
        );
    }
    let limits = &desired.spec.limits;
    let memory = if node.role == Role::ControlPlane {
        limits.control_plane_memory_mib
    } else {
        limits.worker_memory_mib
    };
    if facts.memory_mib < memory {
        let what = format!("less than {memory} MiB of memory");
        refuse(
            "memory",
            what,
            format!("{} MiB", facts.memory_mib),
            "add memory, or lower the limit in the spec",
        );
    }
    if facts.disk_free_mib < limits.disk_mib && !ours {
        let what = format!("less than {} MiB free under /var/lib", limits.disk_mib);
        refuse(
            "disk",
            what,
            format!("{} MiB", facts.disk_free_mib),
            "free disk space, or lower the limit in the spec",
        );
    }
    let missing: Vec<_> = HOST_PROGRAMS
        .iter()
        .copied()
        .filter(|p| !facts.programs.contains(*p))
        .collect();
    if !missing.is_empty() {
        let what = "programs that kubeadm needs are missing".to_owned();
        refuse(
            "host-programs",
            what,
            missing.join(", "),
            "install them from the distribution's own medium",
        );
    }
    let absent: Vec<_> = kernel_features()
        .into_iter()
        .map(|f| f.module)
        .filter(|module| !facts.features.contains(module))
        .collect();
    if !absent.is_empty() {
        let what = "kernel features are missing, and no module brings them".to_owned();
        refuse(
            "kernel-features",
            what,
            absent.join(", "),
            "boot a kernel that has them",
        );
    }
    if !facts.exec_allowed {
        let what = "/var/lib is mounted noexec".to_owned();
        refuse(
            "noexec",
            what,
            "noexec".into(),
            "mount /var/lib with exec; containers run from there",
        );
    }
    if !facts.swaps.is_empty() && !lab {
        let what = "swap is on".to_owned();
        refuse(
            "swap",
            what,
            facts.swaps.join(", "),
            "swapoff -a, and take swap out of /etc/fstab",
        );
    }
    for unit in ["firewalld.service", "ufw.service"] {
        if facts.units.get(unit).is_some_and(|state| state == "active") {
            let what = format!("{unit} is active and would drop the cluster's traffic");
            refuse(
                "firewall",
                what,
                "active".into(),
                &format!("systemctl disable --now {unit}"),
            );
        }
    }
    if ours {
        return findings;
    }
    for (port, program) in &facts.ports_taken {
        let what = format!("port {port} is taken");
        refuse("port-taken", what, program.clone(), "stop what listens there");
    }
    let foreign: Vec<_> = FOREIGN_PATHS
        .iter()
        .copied()
        .filter(|p| facts.paths.contains(*p))
        .collect();
    let running: Vec<_> = facts
        .units
        .iter()
        .filter(|(unit, state)| *state == "active" && !unit.starts_with("firewalld") && !unit.starts_with("ufw"))
        .map(|(unit, _)| unit.as_str())
        .collect();
    if !foreign.is_empty() || !running.is_empty() {
        let what = "there is a Kubernetes or a container runtime that is not landfall's".to_owned();
        let saw = foreign.into_iter().chain(running).collect::<Vec<_>>().join(", ");
        refuse(
            "foreign-cluster",
            what,
            saw,
            "remove it with its own tools first; landfall does not touch what it did not make",
        );
    }
    findings
}
