//! Commands on the machine that carries the lab: as root, through sudo when we are not.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Packages that the lab needs on the machine that carries it, and what the bundle's build needs.
const PACKAGES: [&str; 20] = [
    "curl",
    "podman",
    "runc",
    "mmdebstrap",
    "uidmap",
    "slirp4netns",
    "netavark",
    "aardvark-dns",
    "conmon",
    "iptables",
    "nftables",
    "iproute2",
    "openssh-client",
    "debian-archive-keyring",
    "libseccomp-dev",
    "pkg-config",
    "gcc",
    "make",
    "perl",
    "util-linux",
];

/// Says whether we are root.
pub fn is_root() -> bool {
    static ROOT: OnceLock<bool> = OnceLock::new();
    *ROOT.get_or_init(|| {
        let id = Command::new("id").arg("-u").output();
        id.is_ok_and(|o| o.stdout.trim_ascii() == b"0")
    })
}

/// A command as root.
pub fn root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

/// Runs a command; returns what it wrote. The error holds its last words.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?} cannot be started"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<_> = text.lines().rev().take(12).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        bail!("{command:?}: {}\n{}", output.status, tail.join("\n"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program as root with arguments.
pub fn sudo(program: &str, args: &[&str]) -> Result<String> {
    run(root(program).args(args))
}

/// Makes a key pair for logins to a lab's machines, unless it is there.
pub(crate) fn make_key(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]);
    run(keygen.arg(path)).map(drop)
}

/// Installs Debian packages that are missing: those of the lab, and `more`.
pub fn install_packages(more: &[&'static str]) -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .into_iter()
        .chain(more.iter().copied())
        .filter(|package| {
            let status = Command::new("dpkg-query")
                .args(["-W", "-f", "${Status}", package])
                .output();
            !status.is_ok_and(|o| o.stdout == b"install ok installed")
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    sudo("apt-get", &["update", "-qq"])?;
    let mut install = root("env");
    install
        .args([
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
        ])
        .args(missing);
    run(&mut install).map(drop)
}
