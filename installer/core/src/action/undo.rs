//! The undo recipe of a step, which is recorded before the step acts, and the claims in it.

use crate::name::{Digest, NodeName};
use crate::packet_filter::openings::Openings;
use crate::spec::Cidr;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What an opaque tool makes on the host. At undo the daemons named in `units` are stopped first, then claims are removed and
/// nothing else, never across a mount. The agent drops from the recorded claims whatever was there before.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// Units that must be stopped before anything is removed.
    pub units: Vec<String>,
    /// Directories of containers' cgroups, relative to each hierarchy's root, for instance `kubepods`; their processes are killed.
    pub cgroups: Vec<String>,
    /// Programs (absolute paths) whose remaining processes are killed, for instance the containerd shim.
    pub programs: Vec<PathBuf>,
    /// Files and directory trees.
    pub paths: Vec<PathBuf>,
    /// Directories under which everything is unmounted.
    pub mounts_under: Vec<PathBuf>,
    /// Network links by name.
    pub links: Vec<String>,
    /// nftables tables, `family name`, for instance `ip kube-proxy`.
    pub nft_tables: Vec<String>,
    /// Prefixes of iptables chains in any table, for instance `KUBE-`; jumps to them go too, and base tables that were absent
    /// before and end empty.
    pub iptables_chains: Vec<String>,
    /// Kernel settings that they write; the recorded undo holds the prior values.
    pub sysctls: Vec<String>,
    /// Modules that they load; the recorded undo holds those that were absent, and what these need.
    pub modules: Vec<String>,
    /// AppArmor profiles that they load into the kernel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub apparmor_profiles: Vec<String>,
    /// Networks to parts of which they make routes over other members.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routed_networks: Vec<Cidr>,
    /// Destinations of routes into these networks that were there before; an action has none, the recorded undo does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prior_routes: Vec<Cidr>,
}

/// Something that a step makes in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterEffect {
    /// A member of the etcd cluster.
    EtcdMember {
        /// Member name, the node's.
        name: String,
        /// Its peer URL.
        peer_url: String,
    },
    /// A Node object.
    Node {
        /// Its name.
        name: NodeName,
    },
}

impl ClusterEffect {
    /// Returns what it is, for people.
    pub fn text(&self) -> String {
        match self {
            Self::EtcdMember { name, .. } => format!("etcd member {name}"),
            Self::Node { name } => format!("Node {name}"),
        }
    }
}

/// The undo recipe of one step. It is recorded before the step acts, is idempotent, and is correct also after a partial step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "kebab-case")]
pub enum Undo {
    /// Nothing to undo on the node.
    Nothing,
    /// Restores what was at a path.
    RestorePath {
        /// The path.
        path: PathBuf,
        /// What was there.
        prior: Prior,
    },
    /// Removes a directory that was absent, if it is empty.
    RemoveDirectory {
        /// The directory and the parents that were absent too, deepest first.
        paths: Vec<PathBuf>,
    },
    /// Removes lines of ours from /etc/hosts.
    RemoveHostsLines {
        /// The lines that were absent.
        lines: Vec<String>,
    },
    /// Puts the prior server back into a kubeconfig, if it still names the one that replaced it.
    KubeconfigServer {
        /// The kubeconfig.
        path: PathBuf,
        /// The URL that landfall wrote.
        ours: String,
        /// The URL that was there.
        prior: String,
        /// The unit that reads the file; restarted when it is active.
        restart: Option<String>,
    },
    /// Restores kernel settings that still have the value that the step set.
    RestoreSysctls {
        /// Name and prior value.
        settings: Vec<(String, String)>,
        /// Name and value that the step sets; empty in journals that are older than this field.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        set: Vec<(String, String)>,
    },
    /// Unloads modules that were absent.
    UnloadModules {
        /// Module names.
        modules: Vec<String>,
    },
    /// Makes the rules with the mark those that were there before, if any; those that the step wrote go, also from saved rules.
    Firewall {
        /// What was let through before.
        prior: Openings,
    },
    /// Restores the state of a unit.
    RestoreUnit {
        /// Unit name.
        name: String,
        /// Whether it was enabled.
        was_enabled: bool,
        /// Whether it was active.
        was_active: bool,
    },
    /// Removes images that were absent from containerd (skipped when containerd itself goes).
    RemoveImages {
        /// References.
        references: Vec<String>,
    },
    /// Stops daemons and removes claims.
    RemoveClaims {
        /// Only what was absent before.
        claims: Claims,
        /// Kernel settings and their prior values.
        sysctls: Vec<(String, String)>,
        /// Kernel settings and the values that the daemons (and, with them, the kernel) give them; see `RestoreSysctls`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        set: Vec<(String, String)>,
        /// Tables of iptables in nftables that were absent before, `family name`, and base chains of those that were there,
        /// `family table chain`.
        absent_bases: Vec<String>,
        /// Directories above claimed paths that were absent before, deepest first; removed when they end empty.
        #[serde(default)]
        absent_parents: Vec<PathBuf>,
        /// What the step made in the cluster; the engine removes it.
        effects: Vec<ClusterEffect>,
    },
    /// Restores Kubernetes objects; the engine does it, and skips it when the cluster goes.
    RestoreObjects {
        /// Prior bodies of objects that were there.
        prior: Vec<serde_json::Value>,
        /// Objects that were absent (apiVersion, kind, namespace, name only).
        absent: Vec<serde_json::Value>,
    },
    /// The recipe is lost, because its line of the journal was damaged. The first undo reports it as residue, the next one counts it as undone.
    Lost {
        /// One-based number of the line in the damaged journal.
        line: usize,
        /// The legible part of the line; empty when the line was no record.
        seen: String,
    },
}

impl Undo {
    /// Says whether the recipe is lost.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Returns one line for people.
    pub fn text(&self) -> String {
        let paths = |paths: &[PathBuf]| {
            paths
                .iter()
                .map(|p| p.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        };
        match self {
            Self::Nothing => "nothing to undo on the node".to_owned(),
            Self::RestorePath { path, prior } => match prior {
                Prior::Absent => format!("remove {}", path.display()),
                Prior::File { mode, .. } => format!("restore the earlier file {} ({mode:04o})", path.display()),
                Prior::Link { target } => format!("link {} to {} again", path.display(), target.display()),
            },
            Self::RemoveDirectory { paths: list } => format!("remove {}, when empty", paths(list)),
            Self::RemoveHostsLines { lines } => format!("remove {} line(s) from /etc/hosts", lines.len()),
            Self::KubeconfigServer { path, prior, .. } => format!("server {prior} in {}", path.display()),
            Self::RestoreSysctls { settings, .. } => {
                let values: Vec<_> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("restore kernel settings: {}", values.join(" "))
            }
            Self::UnloadModules { modules } if modules.is_empty() => "no module was loaded".to_owned(),
            Self::UnloadModules { modules } => format!("unload {}", modules.join(", ")),
            Self::Firewall { prior } if prior.accept.is_empty() => {
                format!(
                    "remove the rules marked `{}` from packet filters, firewalld's policies and saved rules",
                    prior.mark
                )
            }
            Self::Firewall { prior } => format!("write the earlier rules marked `{}` again", prior.mark),
            Self::RestoreUnit {
                name,
                was_enabled,
                was_active,
            } => {
                let word = |is: &bool, yes: &'static str, no: &'static str| if *is { yes } else { no };
                format!(
                    "{name} {} and {}",
                    word(was_enabled, "enabled", "disabled"),
                    word(was_active, "running", "stopped")
                )
            }
            Self::RemoveImages { references } => match references.as_slice() {
                [one] => format!("remove the image {one}"),
                several => format!("remove {} images", several.len()),
            },
            Self::RemoveClaims { claims, effects, .. } => {
                let (first, rest) = claims.paths.split_at(claims.paths.len().min(3));
                let more = match rest.len() {
                    0 => String::new(),
                    n => format!(" and {n} more paths"),
                };
                let mut parts = vec![format!(
                    "stop the daemons, remove what they made: {}{more}",
                    paths(first)
                )];
                parts.extend(effects.iter().map(|effect| format!("the {}", effect.text())));
                parts.join(", ")
            }
            Self::RestoreObjects { prior, absent } => {
                format!("restore {} objects, delete {}", prior.len(), absent.len())
            }
            Self::Lost { line, .. } => format!("not known: line {line} of the journal was damaged"),
        }
    }
}

/// What was at a path before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prior {
    /// Nothing.
    Absent,
    /// A file; its content is in the agent's store of prior contents by digest.
    File {
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Digest of its content.
        content: Digest,
    },
    /// A symbolic link.
    Link {
        /// Its target.
        target: PathBuf,
    },
}
