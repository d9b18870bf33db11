//! The state of a node that an action establishes.

use super::{Action, Content, PROGRAM_MODE};
use crate::name::Digest;
use crate::packet_filter::openings::Openings;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// State of the node that a step wants, for checks and repair long after the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// A directory.
    Directory {
        /// Absolute path.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// A file or program. The content of a secret has no digest here.
    File {
        /// Absolute path.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Digest of the content.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<Digest>,
    },
    /// Lines of /etc/hosts.
    HostsLines(Vec<String>),
    /// Kernel settings: name in dotted form and value.
    Sysctls(Vec<(String, String)>),
    /// Modules whose features are needed.
    Modules(Vec<String>),
    /// What packet filters let through; nothing: no rule of the mark is there.
    Firewall(Openings),
    /// A systemd unit that is enabled.
    Unit {
        /// Unit name with suffix.
        name: String,
        /// Whether it runs.
        running: bool,
    },
    /// Images in containerd, by reference.
    Images(Vec<String>),
}

impl Action {
    /// Returns the state that the action establishes, if it can be checked later.
    pub fn wanted(&self) -> Option<Wanted> {
        match self {
            Self::Directory { path, mode } => Some(Wanted::Directory {
                path: path.clone(),
                mode: *mode,
            }),
            Self::File { path, mode, content } => Some(Wanted::File {
                path: path.clone(),
                mode: *mode,
                content: match content {
                    Content::Text(text) => Some(Digest::of(text.as_bytes())),
                    Content::Generated(_) | Content::Secret(_) => None,
                },
            }),
            Self::Binary { path, digest, .. } => Some(Wanted::File {
                path: path.clone(),
                mode: PROGRAM_MODE,
                content: Some(*digest),
            }),
            Self::HostsLines { lines } => Some(Wanted::HostsLines(lines.clone())),
            Self::Sysctls { settings } => Some(Wanted::Sysctls(settings.clone())),
            Self::KernelFeatures { features } => {
                Some(Wanted::Modules(features.iter().map(|f| f.module.clone()).collect()))
            }
            Self::Firewall { openings } => Some(Wanted::Firewall(openings.clone())),
            Self::Unit { name, start, .. } => Some(Wanted::Unit {
                name: name.clone(),
                running: *start,
            }),
            Self::Images { images } => Some(Wanted::Images(images.iter().map(|i| i.reference.to_string()).collect())),
            Self::Claim { .. }
            | Self::StopUnit { .. }
            | Self::Run { .. }
            | Self::Bootstrap { .. }
            | Self::MarkUndo { .. }
            | Self::BeginUndo { .. }
            | Self::TakeBack { .. }
            | Self::FinishUndo { .. }
            | Self::LeaveCluster { .. }
            | Self::RestoreObjects { .. }
            | Self::KubeconfigServer { .. }
            | Self::Apply { .. }
            | Self::Delete { .. }
            | Self::Await { .. } => None,
        }
    }
}
