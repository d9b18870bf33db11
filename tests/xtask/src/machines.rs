//! `cargo xtask lab`: machines to work on by hand, without a cluster.

use crate::artifacts;
use anyhow::Result;
use clap::Subcommand;
use landfall_lab::operator::{CLUSTER, Operator};
use landfall_lab::{Lab, Size};

/// The developer's network is 10.90.1.0/24.
const NET: u8 = 1;

/// What to do with the machines.
#[derive(Subcommand)]
pub enum Machines {
    /// Builds what `up` needs, and starts nothing: landfall, the bundle, the machines' images.
    Prepare,
    /// Builds landfall and the bundle, and starts the machines; the operator's home holds a cluster.yaml.
    Up {
        /// Control planes.
        #[arg(long, default_value_t = 3)]
        control_planes: u8,
        /// Workers.
        #[arg(long, default_value_t = 2)]
        workers: u8,
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
        } => (*control_planes, *workers),
        Machines::Prepare | Machines::Refresh | Machines::Down => (3, 2),
    };
    let size = Size {
        control_planes,
        workers,
    };
    let lab = Lab::new("dev", NET, size, &artifacts::cache()?);
    match command {
        Machines::Prepare => artifacts::build().and_then(|_| lab.build_images()),
        Machines::Down => lab.down(),
        Machines::Refresh => {
            let built = artifacts::build()?;
            lab.put(&built.program, &built.bundle)
        }
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
