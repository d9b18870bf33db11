//! `cargo xtask lab`: machines to work on by hand, without a cluster.

use crate::artifacts;
use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use landfall_lab::operator::{CLUSTER, Operator};
use landfall_lab::own_kernel::{Suite, VmLab};
use landfall_lab::scenario::own_kernel;
use landfall_lab::{Lab, Size};

/// The developer's network is 10.90.1.0/24.
const NET: u8 = 1;

/// What kind of machines.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kernel {
    /// Containers, which share this host's kernel.
    Shared,
    /// User-mode Linux: a control plane and a hardened worker.
    Own,
}

/// A release of Debian for machines with kernels of their own.
#[derive(Clone, Copy, ValueEnum)]
pub enum Debian {
    /// Debian 11.
    Bullseye,
    /// Debian 12.
    Bookworm,
    /// Debian 13.
    Trixie,
}

impl From<Debian> for Suite {
    fn from(debian: Debian) -> Self {
        match debian {
            Debian::Bullseye => Self::Bullseye,
            Debian::Bookworm => Self::Bookworm,
            Debian::Trixie => Self::Trixie,
        }
    }
}

/// What to do with the machines.
#[derive(Subcommand)]
pub enum Machines {
    /// Builds what `up` needs, and starts nothing: landfall, the bundle, the machines' images.
    Prepare,
    /// Builds what one machine with a kernel of its own needs beside that: the kernel, and the disk of the release that the number chooses.
    PrepareOne {
        /// Chooses release and variant.
        number: usize,
    },
    /// Builds landfall and the bundle, and starts the machines; the operator's home holds a cluster.yaml.
    Up {
        /// Control planes.
        #[arg(long, default_value_t = 3)]
        control_planes: u8,
        /// Workers.
        #[arg(long, default_value_t = 2)]
        workers: u8,
        /// Whether the machines share this host's kernel.
        #[arg(long, value_enum, default_value_t = Kernel::Shared)]
        kernel: Kernel,
        /// The release of Debian on machines with kernels of their own.
        #[arg(long, value_enum, default_value_t = Debian::Bookworm)]
        suite: Debian,
    },
    /// Builds landfall and the bundle again and gives them to the operator of the running machines.
    Refresh,
    /// Removes the machines.
    Down,
}

/// Does it.
pub fn run(command: &Machines) -> Result<()> {
    let (control_planes, workers) = match command {
        Machines::Up {
            control_planes,
            workers,
            ..
        } => (*control_planes, *workers),
        Machines::Prepare | Machines::PrepareOne { .. } | Machines::Refresh | Machines::Down => (3, 2),
    };
    let size = Size {
        control_planes,
        workers,
    };
    let cache = artifacts::cache()?;
    let lab = Lab::new("dev", NET, size, &cache);
    match command {
        Machines::Prepare => artifacts::build().and_then(|_| lab.build_images()),
        Machines::PrepareOne { number } => own_kernel::describe_one(*number, &cache).prepare(),
        Machines::Down => {
            let own = own_kernel::describe(Suite::Bookworm, &cache).down();
            lab.down().and(own)
        }
        Machines::Refresh => {
            let built = artifacts::build()?;
            lab.put(&built.program, &built.bundle)
        }
        Machines::Up {
            kernel: Kernel::Own,
            suite,
            ..
        } => up_with_own_kernels(&own_kernel::describe((*suite).into(), &cache)),
        Machines::Up { .. } => {
            let built = artifacts::build()?;
            lab.up(&built.program, &built.bundle)?;
            Operator::of(&lab)?.write_cluster(|_| {})?;
            println!(
                "podman exec -it --user admin --workdir /home/admin landfall-dev-operator landfall plan -i {CLUSTER} /srv/landfall.bundle"
            );
            Ok(())
        }
    }
}

fn up_with_own_kernels(lab: &VmLab) -> Result<()> {
    let built = artifacts::build()?;
    lab.up()?;
    lab.write_cluster(|_| {})?;
    let (program, inventory) = (built.program.display(), lab.inventory().display().to_string());
    println!(
        "as the operator, who is on the machines' network and on no other:\n  \
         {} {program} install -i {inventory} --accept-new-host-keys --trusted-key {} {}",
        lab.operator_prefix(),
        built.bundle.with_extension("pub").display(),
        built.bundle.display(),
    );
    println!("cargo xtask lab down    removes the machines");
    Ok(())
}
