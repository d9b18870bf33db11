//! Makes the spec of a cluster from a cluster.yaml.

use anyhow::{Result, anyhow};
use landfall_core::spec::{Desired, parse};

/// Returns a cluster of `control_planes` (1, 3 or 5) and `workers`, read from a cluster.yaml; `settings` are further lines of it.
pub fn cluster(control_planes: u8, workers: u8, settings: &str) -> Result<Desired> {
    // The directories of the machines lie in memory, where there is less room than on a disk.
    let mut text = format!("name: ship\nlimits: {{diskMib: 1}}\n{settings}nodes:\n");
    for n in 1..=control_planes {
        text.push_str(&format!("  - {{name: cp-{n}, role: control-plane, ip: 10.20.0.{n}}}\n"));
    }
    for n in 1..=workers {
        text.push_str(&format!("  - {{name: w-{n}, role: worker, ip: 10.20.1.{n}}}\n"));
    }
    parse::cluster_yaml(&text, "cluster.yaml").map_err(|problems| anyhow!("{problems:?}"))
}
