//! Ten cycles of install and uninstall on three control planes and two workers; in the last one the operator's line loses packets.

use super::{Broken, Checks, Stage};
use crate::operator::{CLUSTER, Ended};
use anyhow::{Result, ensure};

const CYCLES: u32 = 10;

/// Drops one packet in twenty of the operator's, in both directions.
const LOSE: &str = "nft add table ip loss && \
                    nft add chain ip loss in '{ type filter hook input priority 0; }' && \
                    nft add chain ip loss out '{ type filter hook output priority 0; }' && \
                    nft add rule ip loss in iifname != lo numgen random mod 100 '<' 5 counter drop && \
                    nft add rule ip loss out oifname != lo numgen random mod 100 '<' 5 counter drop";

/// Checks that each cycle leaves the machines as they were.
pub fn show(stage: &Stage<'_>, checks: &mut Checks) -> Result<(), Broken> {
    for cycle in 1..=CYCLES {
        let is_last = cycle == CYCLES;
        let loss = if is_last { ", one packet in twenty lost" } else { "" };
        let name = format!("cycle {cycle} of {CYCLES}{loss}: installed, all cells as expected, uninstalled, as before");
        checks.needed(&name, || {
            let work = || {
                let installed = stage.install_green("cycle")?;
                let uninstalled = stage.operator.landfall(&["uninstall", "-i", CLUSTER, "--yes"])?;
                Ok([installed, uninstalled.expect(0)?])
            };
            let ended = if is_last { with_loss(stage, work) } else { work() };
            let seconds = ended?.map(|ended| ended.took.as_secs_f32());
            println!("lab: install took {:.1} s, uninstall {:.1} s", seconds[0], seconds[1]);
            stage.expect_unchanged()
        })?;
    }
    Ok(())
}

fn with_loss(stage: &Stage<'_>, work: impl FnOnce() -> Result<[Ended; 2]>) -> Result<[Ended; 2]> {
    let operator = stage.lab.machine("operator")?;
    stage.lab.shell(operator, LOSE)?;
    let ended = work();
    let counted = stage.lab.exec(operator, &["nft", "list", "table", "ip", "loss"])?;
    stage.lab.exec(operator, &["nft", "delete", "table", "ip", "loss"])?;
    ensure!(!counted.contains("packets 0 "), "no packet was lost:\n{counted}");
    ended
}
