//! Ten cycles of install and uninstall on three control planes and two workers.

use super::{Broken, Checks, Stage};
use crate::operator::CLUSTER;

const CYCLES: u32 = 10;

/// Checks that each cycle leaves the machines as they were.
pub fn show(stage: &Stage<'_>, checks: &mut Checks) -> Result<(), Broken> {
    for cycle in 1..=CYCLES {
        let name = format!("cycle {cycle} of {CYCLES}: installed, all cells as expected, uninstalled, as before");
        checks.needed(&name, || {
            let operator = &stage.operator;
            let installed = stage.install_green("cycle")?;
            let uninstalled = operator.landfall(&["uninstall", "-i", CLUSTER, "--yes"])?.expect(0)?;
            let seconds = [installed.took, uninstalled.took].map(|took| took.as_secs_f32());
            println!("lab: install took {:.1} s, uninstall {:.1} s", seconds[0], seconds[1]);
            stage.expect_unchanged()
        })?;
    }
    Ok(())
}
