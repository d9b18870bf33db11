//! The machines' disks: a release of Debian with systemd and sshd, the modules of the lab's kernel, and a first boot that makes it one machine.

use super::kernel::{self, Kernel};
use super::{ADMIN_PASSWORD, is_made_of, note_inputs};
use crate::host::{root, run};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A release of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Debian 11.
    Bullseye,
    /// Debian 12.
    Bookworm,
    /// Debian 13.
    Trixie,
}

impl Suite {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bookworm, Self::Trixie, Self::Bullseye];

    /// Its name on Debian's mirrors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

const INCLUDE: &str = "systemd-sysv,libpam-systemd,dbus,udev,kmod,procps,openssh-server,sudo,apparmor,nftables,iproute2,systemd-timesyncd,\
                       ca-certificates,e2fsprogs,auditd";
/// Makes a fresh tree a machine's disk.
const CUSTOMIZE: &str = include_str!("customize.sh");
/// Is the first process of a machine, before systemd.
const INIT: &str = include_str!("init.sh");
/// Makes a disk one machine, with its name, address and variant from the kernel's command line.
const FIRST_BOOT: &str = include_str!("first-boot.sh");
/// Room on a disk. Files with nothing in them take none on the host.
const SIZE: &str = "20G";

/// The public half of the lab's key.
fn public_key(key: &Path) -> Result<String> {
    fs::read_to_string(key.with_extension("pub")).context("the lab's public key")
}

/// What a suite's disk is made of, with the lab's public key.
fn inputs(public: &str) -> String {
    [INCLUDE, CUSTOMIZE, INIT, FIRST_BOOT, SIZE, &kernel::inputs(), public].concat()
}

/// Says whether a suite's disk is there as it is wanted.
pub(super) fn is_built(suite: Suite, cache: &Path, key: &Path) -> bool {
    public_key(key).is_ok_and(|public| is_made_of(&cache.join(suite.name()), &inputs(&public)))
}

/// Builds a suite's disk, unless it is there, and returns its file. Blocks for 2 to 4 minutes the first time.
pub(super) fn build(suite: Suite, cache: &Path, kernel: &Kernel, key: &Path) -> Result<PathBuf> {
    let folder = cache.join(suite.name());
    let disk = folder.join("disk.raw");
    let public = public_key(key)?;
    let inputs = inputs(&public);
    if is_made_of(&folder, &inputs) {
        return Ok(disk);
    }
    println!("making the disk of the lab's machines with Debian {}", suite.name());
    let tree = folder.join("tree");
    remove(&tree)?;
    run(root("rm").arg("-rf").arg(&folder))?;
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    for (name, text) in [
        ("customize.sh", CUSTOMIZE),
        ("init.sh", INIT),
        ("first-boot.sh", FIRST_BOOT),
        ("key.pub", &public),
        ("password", ADMIN_PASSWORD),
    ] {
        fs::write(folder.join(name), text).with_context(|| format!("{name} cannot be written"))?;
    }
    let hook = format!(
        "sh '{}/customize.sh' \"$1\" '{}' '{}'",
        folder.display(),
        folder.display(),
        kernel.modules.display()
    );
    let mut make = root("nice");
    make.args(["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"]);
    make.args(["--architectures=amd64", &format!("--include={INCLUDE}")]);
    make.args([
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
    ]);
    make.arg(format!("--customize-hook={hook}"))
        .arg(suite.name())
        .arg(&tree);
    if suite == Suite::Bullseye {
        // Its security suite names packages that mirrors no longer have (404, 2026-11).
        make.arg("deb http://deb.debian.org/debian bullseye main");
    }
    run(&mut make)?;
    run(root("truncate").args(["--size", SIZE]).arg(&disk))?;
    let mut format = root("mkfs.ext4");
    // Features that Debian 11's e2fsprogs does not know.
    format.args(["-q", "-F", "-O", "^orphan_file,^metadata_csum_seed", "-d"]);
    run(format.arg(&tree).arg(&disk))?;
    remove(&tree)?;
    note_inputs(&folder, &inputs)?;
    Ok(disk)
}

/// Removes a tree, in which a run that broke off may have left /proc, /sys and /dev mounted.
fn remove(tree: &Path) -> Result<()> {
    let script = "findmnt --noheadings --output TARGET --list | grep \"^$1/\" | sort --reverse | xargs --no-run-if-empty umount && rm -rf --one-file-system \"$1\"";
    run(root("bash").args(["-c", script, "bash"]).arg(tree)).map(drop)
}
