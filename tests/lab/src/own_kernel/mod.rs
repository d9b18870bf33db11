//! Machines that share no kernel with this host: user-mode Linux with Debian's userland, each with modules, settings, packet filter, cgroups and boots of its own.
//!
//! [`VmLab`] starts and removes them. What they show that a container cannot: what is left after a reboot or a power cut, and which modules stay.
//! Limits: one processor each; no cpuset controller; the kernel is Linux 6.1 under every release of Debian; a fork costs some 20 times the host's.

mod disk;
mod kernel;
mod network;
mod process;
mod vm;

use crate::host::{install_packages, make_key, run};
use crate::operator::Ended;
use anyhow::{Context, Result};
use kernel::Kernel;
use network::Network;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use disk::Suite;
pub use vm::{Variant, Vm, VmSpec};

/// sudo's password of the user `admin` on every machine: with what a shell would take for its own. No secret, since only this host reaches the machines.
pub const ADMIN_PASSWORD: &str = "s3 cr'et$\"1";

/// Debian packages that the kernel and the disks are built with, beside those of every lab.
pub const PACKAGES: [&str; 7] = ["flex", "bison", "bc", "libelf-dev", "xz-utils", "kmod", "e2fsprogs"];

/// A lab of machines with kernels of their own.
#[derive(Debug)]
pub struct VmLab {
    folder: PathBuf,
    network: Network,
    suite: Suite,
    machines: Vec<Vm>,
}

impl VmLab {
    /// Describes a lab; nothing is started. There is one at a time, whose network is 10.90.4.0/24.
    pub fn new(suite: Suite, machines: &[VmSpec], cache: &Path) -> Self {
        let folder = cache.join("lab/own-kernel");
        let network = Network::new();
        let vm = |(at, spec): (usize, &VmSpec)| Vm::new(spec, at, network, &folder);
        Self {
            machines: machines.iter().enumerate().map(vm).collect(),
            folder,
            network,
            suite,
        }
    }

    /// Says whether kernel and disk are there as they are wanted.
    pub fn is_built(&self) -> bool {
        kernel::is_built(&self.folder) && disk::is_built(self.suite, &self.folder, &self.key())
    }

    /// Builds kernel and disk unless they are there, which takes up to half an hour.
    pub fn prepare(&self) -> Result<()> {
        self.build().map(drop)
    }

    fn build(&self) -> Result<(Kernel, PathBuf)> {
        install_packages(&PACKAGES)?;
        let kernel = kernel::build(&self.folder)?;
        make_key(&self.key())?;
        let disk = disk::build(self.suite, &self.folder, &kernel, &self.key())?;
        Ok((kernel, disk))
    }

    /// Starts all machines from fresh disks; those of an earlier lab are removed. Kernel and disk are built unless they are there. Blocks until each
    /// machine takes logins.
    pub fn up(&self) -> Result<()> {
        let (kernel, disk) = self.build()?;
        self.down()?;
        self.network.up()?;
        let home = self.home();
        fs::create_dir_all(&home).with_context(|| format!("{} cannot be made", home.display()))?;
        for vm in &self.machines {
            vm.create(&kernel, &disk)?;
            vm.start()?;
        }
        self.await_all()
    }

    /// Blocks until every machine takes logins.
    pub fn await_all(&self) -> Result<()> {
        self.machines.iter().try_for_each(Vm::await_login)
    }

    /// Ends the machines and removes their disks, the operator's home and the network. Kernel, suites' disks and the key stay.
    pub fn down(&self) -> Result<()> {
        vm::remove_all(&self.folder)?;
        self.network.down()?;
        let home = self.home();
        if home.exists() {
            run(crate::host::root("rm").arg("-rf").arg(&home))?;
        }
        Ok(())
    }

    /// The machines, in the order in which they were described.
    pub fn machines(&self) -> &[Vm] {
        &self.machines
    }

    /// The release of Debian on the machines.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The operator's home folder.
    pub fn home(&self) -> PathBuf {
        self.folder.join("operator")
    }

    /// Private key by which every machine is reached.
    pub fn key(&self) -> PathBuf {
        self.folder.join("key")
    }

    /// Path of the inventory that [`Self::write_cluster`] writes.
    pub fn inventory(&self) -> PathBuf {
        self.home().join("cluster.yaml")
    }

    /// Writes the inventory of all machines, with what `change` makes of it. It is JSON, which is YAML.
    pub fn write_cluster(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let node = |vm: &Vm| {
            let mut node = json!({ "name": vm.name, "role": vm.role, "host": vm.address, "user": vm.user(), "privateKey": self.key() });
            if vm.user() != "root" {
                node["becomePassword"] = json!(ADMIN_PASSWORD);
            }
            node
        };
        let nodes: Vec<Value> = self.machines.iter().map(node).collect();
        let mut cluster = json!({ "name": "own-kernel", "nodes": nodes });
        change(&mut cluster);
        let path = self.inventory();
        fs::write(&path, serde_json::to_vec_pretty(&cluster)?)
            .with_context(|| format!("{} cannot be written", path.display()))
    }

    /// What stands before a command that is to run as [`Self::landfall`] runs it.
    pub fn operator_prefix(&self) -> String {
        format!("{} env HOME={}", Network::PREFIX, self.home().display())
    }

    /// Runs landfall where the operator stands: on the machines' network and on no other, with a home of its own. Blocks until it ends.
    pub fn landfall(&self, program: &Path, arguments: &[&str]) -> Result<Ended> {
        let start = Instant::now();
        let mut command = self.network.inside("env");
        command.arg(format!("HOME={}", self.home().display()));
        command.arg(program).args(arguments).stdin(std::process::Stdio::null());
        let output = command.output().context("landfall cannot be started")?;
        Ok(Ended {
            command: format!("landfall {}", arguments.join(" ")),
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: start.elapsed(),
        })
    }
}

/// Says whether `folder` was made of exactly `inputs`, as [`note_inputs`] wrote them.
fn is_made_of(folder: &Path, inputs: &str) -> bool {
    fs::read_to_string(folder.join("inputs")).is_ok_and(|made_of| made_of == inputs)
}

/// Notes what a folder was made of, when it is complete.
fn note_inputs(folder: &Path, inputs: &str) -> Result<()> {
    fs::write(folder.join("inputs"), inputs).with_context(|| format!("{} cannot be completed", folder.display()))
}
