//! Root filesystems with firewalld for the agent's tests: nothing of it is installed on the machine itself, where it would start.

use anyhow::{Context, Result};
use landfall_lab::host::{root, run};
use std::path::{Path, PathBuf};

/// Suites of Debian, as the tests name them (`installer/agent/src/firewall/tests/firewalld.rs`): firewalld 1.3.3 and 2.3.1.
const SUITES: [&str; 2] = ["bookworm", "trixie"];
/// firewalld reads the names of protocols, which netbase brings.
const INCLUDE: &str = "firewalld,nftables,dbus,netbase";

/// Makes the root filesystems below `cache` that are not there, and returns the directory that holds them.
pub fn roots(cache: &Path) -> Result<PathBuf> {
    let home = cache.join("firewalld");
    std::fs::create_dir_all(&home).with_context(|| format!("{} cannot be made", home.display()))?;
    for suite in SUITES {
        let finished = home.join(suite);
        if finished.exists() {
            continue;
        }
        let part = home.join("part");
        run(root("rm").arg("-rf").arg(&part))?;
        let mut make = root("mmdebstrap");
        make.args(["--quiet", "--variant=minbase", "--format=directory"]);
        run(make.arg(format!("--include={INCLUDE}")).arg(suite).arg(&part))?;
        run(root("mv").arg(&part).arg(&finished))?;
    }
    Ok(home)
}
