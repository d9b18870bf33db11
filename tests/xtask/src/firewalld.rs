//! Root filesystems with firewalld for the agent's tests: nothing of it is installed on the machine itself, where it would start.

use anyhow::{Context, Result};
use landfall_lab::host::{root, run};
use std::path::{Path, PathBuf};

/// A suite of Debian, as the tests name it (`installer/agent/src/firewall/tests/firewalld.rs`).
const SUITE: &str = "bookworm";
/// firewalld reads the names of protocols, which netbase brings.
const INCLUDE: &str = "firewalld,nftables,dbus,netbase";

/// Makes the root filesystem below `cache`, unless it is there, and returns the directory that holds it.
pub fn roots(cache: &Path) -> Result<PathBuf> {
    let home = cache.join("firewalld");
    let finished = home.join(SUITE);
    if finished.exists() {
        return Ok(home);
    }
    std::fs::create_dir_all(&home).with_context(|| format!("{} cannot be made", home.display()))?;
    let part = home.join("part");
    run(root("rm").arg("-rf").arg(&part))?;
    let mut make = root("mmdebstrap");
    make.args(["--quiet", "--variant=minbase", "--format=directory"]);
    run(make.arg(format!("--include={INCLUDE}")).arg(SUITE).arg(&part))?;
    run(root("mv").arg(&part).arg(&finished))?;
    Ok(home)
}
