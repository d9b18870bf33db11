//! A bundle that a released program made of what publishers have, with an image and objects of its builder's own: installed, verified,
//! taken away.

use super::whole::kubectl;
use super::{Broken, Checks, Release, Stage};
use crate::operator::CLUSTER;
use anyhow::{Result, ensure};

/// Shows it. The operator has the program and the bundle of this commit at the end.
pub fn show(stage: &Stage<'_>, now: &Release, upstream: &Release, checks: &mut Checks) -> Result<(), Broken> {
    checks.needed(
        "a bundle made of publishers' files installs, and every path is green",
        || {
            stage.lab.put(&upstream.program, &upstream.bundle)?;
            stage.install_green("upstream").map(drop)
        },
    )?;
    checks.check("the builder's own Deployment runs on the builder's own image", || {
        own_objects(stage)
    });
    checks.needed("uninstall of the upstream bundle's cluster: as before", || {
        stage
            .operator
            .landfall(&["uninstall", "-i", CLUSTER, "--yes"])?
            .expect(0)?;
        stage.expect_unchanged()?;
        stage.lab.put(&now.program, &now.bundle)
    })
}

fn own_objects(stage: &Stage<'_>) -> Result<()> {
    let seen = kubectl(stage.lab, &["-n", "shop", "get", "deployment", "web", "-o", "json"])?;
    let image = &seen["spec"]["template"]["spec"]["containers"][0]["image"];
    let ready = &seen["status"]["readyReplicas"];
    ensure!(
        *ready == 2 && *image == "nginx:1.28.3",
        "{ready} Pods of {image} are ready"
    );
    Ok(())
}
