//! A machine that is a directory: some files of its own, kernel settings as plain files, and systemd as a shell script. There is no
//! kernel behind it; the agent's `Host::under` takes it as it is.

use crate::tree::Tree;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const SYSTEMCTL: &str = include_str!("programs/systemctl.sh");

/// Kernel settings before landfall comes. Without newline, because that is how the agent writes them back.
const SETTINGS: [(&str, &str); 14] = [
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv4/conf/all/route_localnet", "0"),
    ("net/ipv4/conf/all/accept_redirects", "1"),
    ("net/ipv6/conf/all/forwarding", "0"),
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
    ("net/netfilter/nf_conntrack_max", "65536"),
    ("vm/overcommit_memory", "0"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "0"),
    ("kernel/panic_on_oops", "0"),
    ("kernel/keys/root_maxkeys", "1000"),
    ("kernel/keys/root_maxbytes", "20000"),
    ("kernel/osrelease", "6.1.0"),
];

const DIRECTORIES: [&str; 19] = [
    "bin",
    "etc/modules-load.d",
    "etc/sysctl.d",
    "etc/systemd/system/multi-user.target.wants",
    "opt",
    "proc",
    "root",
    "run/lock",
    "run/systemd/active",
    "run/systemd/system",
    "sim",
    "sys/fs/cgroup",
    "sys/module/nf_tables",
    "sys/module/vxlan",
    "tmp",
    "usr/bin",
    "usr/local/bin",
    "var/lib",
    "var/log",
];

/// Files that no run may touch, with what is in them.
pub(crate) fn foreign(name: &str) -> [(&'static str, String); 5] {
    let id: String = name.bytes().map(|b| format!("{b:02x}")).collect();
    [
        ("etc/hostname", format!("{name}\n")),
        ("etc/machine-id", format!("{id:0>32}\n")),
        ("usr/local/bin/other", "not ours".to_owned()),
        ("var/lib/other/data", "not ours".to_owned()),
        (
            "etc/systemd/system/other.service",
            "[Service]\nExecStart=/usr/local/bin/other\n".to_owned(),
        ),
    ]
}

/// A machine. Dropping it removes the directory.
#[derive(Debug)]
pub struct Machine {
    root: TempDir,
}

impl Machine {
    /// Makes a machine. Its files depend on its name, and no two of them are quite alike.
    pub fn new(name: &str) -> Result<Self> {
        let machine = Self { root: memory_dir()? };
        for directory in DIRECTORIES {
            fs::create_dir_all(machine.at(directory))?;
        }
        for (setting, value) in SETTINGS {
            machine.write(&format!("proc/sys/{setting}"), value, 0o644)?;
        }
        machine.write("proc/sys/kernel/hostname", name, 0o444)?;
        machine.write("proc/filesystems", "nodev\toverlay\n\text4\n", 0o444)?;
        machine.write("proc/meminfo", "MemTotal: 4000000 kB\n", 0o444)?;
        machine.write("proc/swaps", "Filename Type Size Used Priority\n", 0o444)?;
        machine.write("sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n", 0o444)?;
        for program in ["mount", "cp", "iptables"] {
            machine.write(&format!("usr/bin/{program}"), "#!/bin/sh\n", 0o755)?;
        }
        machine.write("proc/modules", "overlay 1 0 - Live 0x0\n", 0o444)?;
        for (path, text) in foreign(name) {
            let mode = match path {
                "usr/local/bin/other" => 0o755,
                "var/lib/other/data" => 0o600,
                _ => 0o644,
            };
            machine.write(path, &text, mode)?;
        }
        machine.write("etc/resolv.conf", "", 0o644)?;
        // Every second hosts file has no newline at its end.
        let hosts = if name.ends_with('1') {
            "127.0.0.1 localhost"
        } else {
            "127.0.0.1 localhost\n# kept\n"
        };
        machine.write("etc/hosts", hosts, 0o664)?;
        // The bundle replaces this program, so that an undo has prior content to restore.
        machine.write("usr/local/bin/runc", "#!/bin/sh\necho old\n", 0o750)?;
        symlink(
            "/etc/systemd/system/other.service",
            machine.at("etc/systemd/system/multi-user.target.wants/other.service"),
        )?;
        machine.write("usr/bin/systemctl", SYSTEMCTL, 0o755)?;
        Ok(machine)
    }

    /// Returns the directory that stands in for `/`.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Returns where a path of the machine really is.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// Returns where the journal is.
    pub fn journal(&self) -> PathBuf {
        self.at(landfall_core::layout::STATE_DIR).join("journal.jsonl")
    }

    /// Writes a file and the directories above it.
    pub fn write(&self, path: &str, text: &str, mode: u32) -> Result<()> {
        write_program(&self.at(path), text, mode)
    }

    /// Returns everything on the machine.
    pub fn tree(&self) -> Result<Tree> {
        Tree::read(self.root())
    }
}

/// Writes a file with permission bits, and the directories above it.
pub(crate) fn write_program(path: &Path, text: &str, mode: u32) -> Result<()> {
    let parent = path.parent().context("a file has a directory")?;
    fs::create_dir_all(parent)?;
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// Makes a temporary directory in memory, where fsync costs nothing; on disk, when programs may not be started there.
pub fn memory_dir() -> Result<TempDir> {
    if let Ok(directory) = tempfile::Builder::new().prefix("landfall-").tempdir_in("/dev/shm") {
        let program = directory.path().join("probe");
        write_program(&program, "#!/bin/sh\n", 0o755)?;
        let starts = Command::new(&program).status().is_ok_and(|s| s.success());
        fs::remove_file(&program)?;
        if starts {
            return Ok(directory);
        }
    }
    Ok(tempfile::Builder::new().prefix("landfall-").tempdir()?)
}
