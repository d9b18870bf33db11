//! Actions as lines for people.

use super::{Action, ClusterCondition, ClusterEffect};

impl Action {
    /// Returns one line for people: how the change will be taken back. The recipe itself is made when the node's state is known.
    pub fn undo_text(&self) -> &'static str {
        match self {
            Self::Claim { .. } => {
                "stop the daemons; remove what they made and was not there, the audit log in /var/log/kubernetes included"
            }
            Self::Directory { .. } => "remove it when it was not there and is empty",
            Self::File { .. } | Self::Binary { .. } => "remove it, or put the earlier file back",
            Self::HostsLines { .. } => "remove these lines",
            Self::Sysctls { .. } => {
                "set what other sysctl files say, or the earlier values, where nobody else has set another"
            }
            Self::KernelFeatures { .. } => "unload what was loaded for it and serves nobody else",
            Self::Unit { .. } => "stop and disable it, or as it was",
            Self::Images { .. } => "remove the images that were not there",
            Self::Run { .. } | Self::Bootstrap { .. } => "remove what it made here, and its members of the cluster",
            Self::BeginUndo { .. }
            | Self::TakeBack { .. }
            | Self::FinishUndo { .. }
            | Self::LeaveCluster { .. }
            | Self::RestoreObjects { .. } => "install again",
            Self::Apply { .. } => "delete the objects, or restore the earlier ones",
            Self::Delete { .. } => "apply them again as they were",
            Self::KubeconfigServer { .. } => "write the earlier server back",
            Self::Await { .. } => "nothing to undo",
        }
    }

    /// Returns one line for people.
    pub fn text(&self) -> String {
        match self {
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
            Self::Unit { name, start: true, .. } => format!("enable and start {name}"),
            Self::Unit { name, start: false, .. } => format!("enable {name}"),
            Self::Images { images } => format!("import and pin {} images", images.len()),
            Self::Run { argv, .. } => format!("run {}", argv.join(" ")),
            Self::Bootstrap { goal, argv, .. } => format!("the node {}: run {}", goal.text(), argv.join(" ")),
            Self::BeginUndo { steps } => format!("stop the daemons of {} steps that go", steps.len()),
            Self::TakeBack { step, .. } => format!("take back {step}"),
            Self::FinishUndo { units, modules } => format!(
                "make systemd read its units again ({}), and unload what nobody uses of {} modules",
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
