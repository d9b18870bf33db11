//! The hand-over: on the host's network a new pod starts beside the old one, and takes its listeners without a moment in which nobody
//! listens. Both meet in a directory of the node that belongs to their user alone.
//!
//! ```text
//! new: Hello ─────────> old: Welcome, last good versions of objects
//! new reads its lists and builds its table; until then it only knows
//! new: Hello, Take ───> old: the listeners (still accepting)
//! new accepts too; Serving ─> old: accepts no more; Closed
//! new takes the restart_socket place's name; it is ready, so the old one gets its SIGTERM, drains and ends
//! ```
//!
//! What both hold is one open file per listener with one queue, so it does not matter to a client who accepts. The connection between them
//! stays open: when it ends because the new process died, the old one accepts again. See `listeners.rs`, `give.rs` and `take.rs`.
//!
//! - Nobody there, or nobody who answers: the new process binds by itself.
//! - Versions that do not match: it binds beside the old one (`SO_REUSEPORT`). Connections that are in the old one's queue at the very
//!   moment in which it closes are lost then, unless the node has `net.ipv4.tcp_migrate_req=1`.
//! - The new process dies before `Serving`: nothing happened. After it: the old one goes on, until its SIGTERM.
//! - Two new ones: the second is told to wait, and takes from the first.

mod give;
mod listeners;
mod take;
mod wire;

pub use give::serve;
pub use listeners::{Listener, Listeners, Reserved};
pub use take::{Link, Offer, Predecessor};
pub use wire::{Named, VERSIONS};
#[cfg(test)]
pub(crate) use wire::{receive, receive_listeners, send};

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

/// Where processes of one node meet, and who this one is there.
#[derive(Debug, Clone)]
pub struct Config {
    /// A directory that is this user's alone.
    pub directory: PathBuf,
    /// What this build calls itself to the other process.
    pub build: String,
    /// Versions of the protocol that are spoken.
    pub versions: Vec<u32>,
}

/// The restart_socket place, checked, and who we are there.
#[derive(Debug, Clone)]
pub struct RestartSocket {
    directory: PathBuf,
    build: String,
    versions: Vec<u32>,
}

impl RestartSocket {
    /// Makes the directory this user's alone.
    pub fn prepare(config: Config) -> Result<Self, String> {
        let Config {
            directory,
            build,
            versions,
        } = config;
        let wrong =
            |why: &dyn std::fmt::Display| format!("{} cannot be used for the hand-over: {why}", directory.display());
        let private = || -> io::Result<u32> {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)?;
            // The kubelet makes it with 0755.
            let owner = std::fs::symlink_metadata(&directory)?.uid();
            if owner == ourselves() {
                std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700))?;
            }
            Ok(owner)
        };
        match private() {
            Ok(owner) if owner == ourselves() => {}
            Ok(owner) => return Err(wrong(&format!("it belongs to user {owner}"))),
            Err(error) => return Err(wrong(&error)),
        }
        Ok(Self {
            directory,
            build,
            versions,
        })
    }

    /// Where the process that has the listeners answers.
    fn socket(&self) -> PathBuf {
        self.directory.join("handover.sock")
    }

    /// The largest version that both speak.
    fn version(&self, theirs: &[u32]) -> Option<u32> {
        self.versions
            .iter()
            .copied()
            .filter(|version| theirs.contains(version))
            .max()
    }
}

/// The user that both processes must have.
fn ourselves() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The permissions keep others out; this says so for the connection itself.
fn check_user(stream: &tokio::net::UnixStream) -> io::Result<()> {
    let user = stream.peer_cred()?.uid();
    if user == ourselves() {
        return Ok(());
    }
    let text = format!("user {user} is at the other end");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}
