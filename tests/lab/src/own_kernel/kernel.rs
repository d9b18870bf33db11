//! The machines' kernel: user-mode Linux of Debian 12's kernel source, built once. Debian's own package of it lacks the families ip, ip6 and inet of
//! nftables, which kube-proxy needs.

use super::{is_made_of, note_inputs};
use crate::host::{root, run};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the kernel is to have, besides what these options need.
const CONFIG: &str = include_str!("kernel.config");

/// The file that says how much room there is for a process's vector registers.
const REGISTERS: &str = "arch/x86/um/user-offsets.c";
/// Makes that 12 KiB of 2,696 bytes: ptrace takes all registers of the processor or none (`xstateregs_set`), which are 11,008 bytes with AMX. With less the
/// first process is killed there (seen 2026-11-30). They lie on kernel stacks, which are therefore 64 KiB (`CONFIG_KERNEL_STACK_ORDER`).
const MORE_REGISTERS: &str = "s/HOST_FP_SIZE, 2696/HOST_FP_SIZE, 12288/";

/// The Debian package with the kernel's source.
const SOURCE: &str = "linux-source-6.1";

/// A built kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// The program that is the kernel.
    pub program: PathBuf,
    /// Folder of its modules, one folder per version.
    pub modules: PathBuf,
}

/// What the kernel is made of.
pub(super) fn inputs() -> String {
    [CONFIG, MORE_REGISTERS].concat()
}

/// Says whether the kernel is there as it is wanted.
pub(super) fn is_built(cache: &Path) -> bool {
    is_made_of(&cache.join("kernel"), &inputs())
}

/// Builds the kernel, unless it is there. Blocks for 5 to 25 minutes the first time; it needs 2 GB in the folder meanwhile.
pub(super) fn build(cache: &Path) -> Result<Kernel> {
    let folder = cache.join("kernel");
    let kernel = Kernel {
        program: folder.join("linux"),
        modules: folder.join("lib/modules"),
    };
    if is_built(cache) {
        return Ok(kernel);
    }
    println!("building the lab machines' own kernel from {SOURCE}");
    run(root("rm").arg("-rf").arg(&folder))?;
    let tree = folder.join("source");
    fs::create_dir_all(&tree).with_context(|| format!("{} cannot be made", tree.display()))?;
    unpack(&tree)?;
    let registers = tree.join(REGISTERS);
    run(Command::new("sed").args(["-i", MORE_REGISTERS]).arg(&registers))?;
    let text = fs::read_to_string(&registers).with_context(|| format!("{} cannot be read", registers.display()))?;
    ensure!(
        text.contains("HOST_FP_SIZE, 12288"),
        "{REGISTERS} is another than it was"
    );
    let options = folder.join("config");
    fs::write(&options, CONFIG).with_context(|| format!("{} cannot be written", options.display()))?;
    let processors = std::thread::available_parallelism()?.to_string();
    let make = |arguments: &[&str]| {
        let mut make = Command::new("nice");
        make.args(["make", "--silent", "ARCH=um"]).args(arguments);
        run(make.current_dir(&tree)).map(drop)
    };
    make(&[&format!("KCONFIG_ALLCONFIG={}", options.display()), "allnoconfig"])?;
    make(&["--jobs", &processors, "linux", "modules"])?;
    make(&[
        &format!("INSTALL_MOD_PATH={}", folder.display()),
        "INSTALL_MOD_STRIP=1",
        "modules_install",
    ])?;
    let mut install = Command::new("install");
    run(install.arg("--strip").arg(tree.join("linux")).arg(&kernel.program))?;
    for version in fs::read_dir(&kernel.modules)? {
        let version = version?.path();
        // Links to the source, which goes.
        run(Command::new("rm")
            .arg("-f")
            .args([version.join("build"), version.join("source")]))?;
    }
    fs::remove_dir_all(&tree).context("the kernel's source cannot be removed")?;
    note_inputs(&folder, &inputs())?;
    Ok(kernel)
}

/// Downloads the source and unpacks it.
fn unpack(tree: &Path) -> Result<()> {
    run(Command::new("apt-get")
        .args(["download", "--quiet", SOURCE])
        .current_dir(tree))?;
    let script = format!(
        "set -o pipefail; dpkg-deb --fsys-tarfile {SOURCE}_*.deb | tar --extract --to-stdout ./usr/src/{SOURCE}.tar.xz | \
         tar --extract --xz --strip-components=1 && rm {SOURCE}_*.deb"
    );
    run(Command::new("bash").args(["-c", &script]).current_dir(tree)).map(drop)
}
