//! Where the machine's files and programs are. A real machine has the root `/`; a directory can stand in for one, and then there is no
//! kernel behind it: nothing outside that directory is touched.

use crate::error::{AgentError, Result};
use crate::network::{KernelNetwork, Network};
use landfall_core::layout;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Directories searched for programs. The system's own come first: /usr/local may be writable for a group (Debian: `staff`), and what is
/// run here is run as root.
const PROGRAM_DIRS: [&str; 7] = [
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/usr/local/sbin",
    "/usr/local/bin",
    layout::OPT_BIN_DIR,
];
/// Directories that landfall installs programs into: one of them, as the spec says. Nobody else has programs in the first.
const OWN_PROGRAM_DIRS: [&str; 2] = [layout::OPT_BIN_DIR, layout::BIN_DIR];
/// Programs that landfall installs into [`OWN_PROGRAM_DIRS`]; a distribution's own `kubeadm` or `ctr` must not be taken for ours.
const OWN_PROGRAMS: [&str; 8] = [
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "kubeadm",
    "kubectl",
    "kubelet",
    "landfall",
    "runc",
];

/// The machine that the agent works on.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
    network: Arc<dyn Network>,
    /// Whether a directory has the packet filters of the thread's network namespace.
    has_packet_filters: bool,
    /// How far this machine's clock is behind that of the kernel; zero on a real one.
    clock_behind: Duration,
}

impl Host {
    /// The machine itself.
    pub fn real() -> Self {
        Self {
            root: PathBuf::from("/"),
            network: Arc::new(KernelNetwork),
            has_packet_filters: false,
            clock_behind: Duration::ZERO,
        }
    }

    /// A directory that stands in for a machine; it has files and programs and no kernel.
    pub fn under(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            network: Arc::new(KernelNetwork),
            has_packet_filters: false,
            clock_behind: Duration::ZERO,
        }
    }

    /// The same machine with a network that stands in for the kernel's.
    #[must_use]
    pub fn with_network(self, network: Arc<dyn Network>) -> Self {
        Self { network, ..self }
    }

    /// The same machine with the packet filters of the network namespace that its threads are in.
    #[must_use]
    pub fn with_packet_filters(self) -> Self {
        Self {
            has_packet_filters: true,
            ..self
        }
    }

    /// The same machine with a clock that is so far behind.
    #[must_use]
    pub fn with_clock_behind(self, clock_behind: Duration) -> Self {
        Self { clock_behind, ..self }
    }

    /// The machine's clock in milliseconds since the epoch, for people and comparisons between machines; never for deadlines.
    pub fn now_ms(&self) -> u64 {
        let behind = u64::try_from(self.clock_behind.as_millis()).unwrap_or(u64::MAX);
        now_ms().saturating_sub(behind)
    }

    /// Returns the machine's network.
    pub fn network(&self) -> &dyn Network {
        self.network.as_ref()
    }

    /// Says whether there is a kernel: processes, mounts, links, rules, cgroups.
    pub fn has_kernel(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Says whether there are packet filters.
    pub fn has_packet_filters(&self) -> bool {
        self.has_packet_filters || self.has_kernel()
    }

    /// Returns where a path of the machine really is.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Returns a path in landfall's state directory.
    pub fn state(&self, name: &str) -> PathBuf {
        self.at(layout::STATE_DIR).join(name)
    }

    /// Returns the path of a blob in the store.
    pub fn blob(&self, digest: &landfall_core::name::Digest) -> PathBuf {
        self.state("blobs").join(digest.hex())
    }

    /// Finds a program by name or absolute path.
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        if name.starts_with('/') {
            return Some(self.at(name)).filter(|p| is_program(p));
        }
        let directories: &[&str] = match OWN_PROGRAMS.contains(&name) {
            true => &OWN_PROGRAM_DIRS,
            false => &PROGRAM_DIRS,
        };
        directories
            .iter()
            .map(|dir| self.at(dir).join(name))
            .find(|p| is_program(p))
    }

    /// Finds a program, or says that it is missing.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        self.find_program(name)
            .ok_or_else(|| AgentError::MissingProgram(name.to_owned()))
    }

    /// Returns the search path given to children.
    pub fn search_path(&self) -> String {
        let dirs: Vec<_> = PROGRAM_DIRS
            .iter()
            .map(|dir| self.at(dir).to_string_lossy().into_owned())
            .collect();
        dirs.join(":")
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The kernel's clock in milliseconds since the epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_program_is_the_systems_unless_landfall_installs_it() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::under(root.path());
        let put = |path: &str| {
            let path = host.at(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        // /usr/local may be writable for a group (Debian: staff), and the agent runs as root.
        for path in [
            "/usr/local/bin/systemctl",
            "/usr/bin/systemctl",
            "/usr/bin/kubeadm",
            "/usr/bin/ctr",
        ] {
            put(path);
        }
        assert_eq!(host.find_program("systemctl"), Some(host.at("/usr/bin/systemctl")));
        assert_eq!(host.find_program("ctr"), None, "a distribution's own is not ours");
        put("/usr/local/bin/kubeadm");
        assert_eq!(host.find_program("kubeadm"), Some(host.at("/usr/local/bin/kubeadm")));
        put("/opt/landfall/bin/kubeadm");
        assert_eq!(host.find_program("kubeadm"), Some(host.at("/opt/landfall/bin/kubeadm")));
        assert!(host.search_path().starts_with(host.at("/usr/sbin").to_str().unwrap()));
        for directory in OWN_PROGRAM_DIRS {
            assert!(
                host.search_path().contains(directory),
                "kubeadm asks for its kubelet by name"
            );
        }
    }
}
