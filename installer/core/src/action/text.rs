//! Texts of actions, for display.

use super::{Action, ClusterCondition, ClusterEffect};
use crate::packet_filter::firewalld;

impl Action {
    /// Returns one line that says how the change will be undone. The recipe itself is made when the node's state is known.
    pub fn undo_text(&self) -> &'static str {
        match self {
            Self::Claim { claims } if claims.units.is_empty() => "remove what was made",
            Self::Claim { .. } => {
                "stop the daemons; remove what they made, including the audit log in /var/log/kubernetes"
            }
            Self::Directory { .. } => "remove it if it was absent before and is empty",
            Self::File { .. } | Self::Binary { .. } => "remove it, or restore the earlier file",
            Self::HostsLines { .. } => "remove these lines",
            Self::Sysctls { .. } => {
                "set the values of other sysctl files, or the earlier values, unless somebody else has changed them"
            }
            Self::KernelFeatures { .. } => "unload the modules that were loaded for it and that nobody else uses",
            Self::Firewall { .. } => {
                "remove the rules and firewalld's policies with the cluster's mark, also from saved rules, or write the earlier ones"
            }
            Self::Unit { .. } => "stop and disable it, or restore its earlier state",
            Self::StopUnit { .. } => "enable and start it, or restore its earlier state",
            Self::Images { .. } => "remove the images that were absent before",
            Self::Run { .. } | Self::Bootstrap { .. } => "remove what it made here, and its members of the cluster",
            Self::MarkUndo { .. }
            | Self::BeginUndo { .. }
            | Self::TakeBack { .. }
            | Self::FinishUndo { .. }
            | Self::LeaveCluster { .. }
            | Self::RestoreObjects { .. } => "install again",
            Self::Apply { .. } => "delete the objects, or restore the earlier ones",
            Self::Delete { .. } => "apply them again as they were",
            Self::KubeconfigServer { .. } => "restore the earlier server",
            Self::Await { .. } => "nothing to undo",
        }
    }

    /// Returns one line for people.
    pub fn text(&self) -> String {
        match self {
            Self::Claim { claims } if claims.units.is_empty() => {
                let paths: Vec<_> = claims.paths.iter().map(|path| path.display().to_string()).collect();
                format!("record what will be made: {}", paths.join(", "))
            }
            Self::Claim { .. } => "record what the daemons will make".to_owned(),
            Self::Directory { path, mode } => format!("directory {} ({mode:04o})", path.display()),
            Self::File { path, mode, .. } => format!("file {} ({mode:04o})", path.display()),
            Self::Binary { path, size_bytes, .. } => format!("program {} ({size_bytes} bytes)", path.display()),
            Self::HostsLines { lines } => format!("{} line(s) in /etc/hosts", lines.len()),
            Self::Sysctls { settings } => {
                let names: Vec<_> = settings.iter().map(|(n, v)| format!("{n}={v}")).collect();
                format!("kernel settings {}", names.join(" "))
            }
            Self::KernelFeatures { features } => {
                let names: Vec<_> = features.iter().map(|f| f.module.as_str()).collect();
                format!("kernel features {}", names.join(" "))
            }
            Self::Firewall { openings } if openings.accept.is_empty() => {
                format!(
                    "remove the accept rules marked `{}` from the packet filters, and firewalld's policies with the mark",
                    openings.mark
                )
            }
            Self::Firewall { openings } => format!(
                "accept rules marked `{}` where packet filters drop what members, pods and clients of the ingress proxy send: in the chain that \
                 drops, by `ufw allow` in ufw's tables, in firewalld's by policies ({})",
                openings.mark,
                firewalld::files(&openings.mark).join(", ")
            ),
            Self::Unit { name, start: true, .. } => format!("enable and start {name}"),
            Self::Unit { name, start: false, .. } => format!("enable {name}"),
            Self::StopUnit { name } => format!("stop and disable {name}"),
            Self::Images { images } => {
                let names: Vec<_> = images.iter().map(|image| image.reference.as_str()).collect();
                format!("import and pin {}", names.join(", "))
            }
            Self::Run { argv, .. } => format!("run {}", argv.join(" ")),
            Self::Bootstrap { goal, argv, .. } => format!("the node {}: run {}", goal.text(), argv.join(" ")),
            Self::MarkUndo { steps } => format!("mark {} steps as being undone", steps.len()),
            Self::BeginUndo { steps } => format!("stop the daemons of {} steps to undo", steps.len()),
            Self::TakeBack { step, .. } => format!("undo {step}"),
            Self::FinishUndo { units, modules } => format!(
                "reload systemd's units ({}), and unload the unused ones of {} modules",
                units.join(", "),
                modules.len()
            ),
            Self::LeaveCluster { effects } => {
                let names: Vec<_> = effects.iter().map(ClusterEffect::text).collect();
                format!("remove from the cluster: {}", names.join(", "))
            }
            Self::RestoreObjects { prior, absent } => {
                format!("restore {} objects, delete {}", prior.len(), absent.len())
            }
            Self::Apply { objects } => format!("apply {} objects", objects.len()),
            Self::Delete { objects } => format!("delete {} objects", objects.len()),
            Self::KubeconfigServer { path, to, .. } => format!("server {to} in {}", path.display()),
            Self::Await { condition } => match condition {
                ClusterCondition::NodesReady(nodes) => format!("wait for {} nodes to be Ready", nodes.len()),
                ClusterCondition::RolledOut { kind, name, .. } => format!("wait for {kind} {name}"),
            },
        }
    }
}
