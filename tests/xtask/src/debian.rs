//! Root filesystems of Debian's releases for tests: nothing of them is installed on the machine itself.

use anyhow::{Context, Result};
use landfall_lab::host::{root, run};
use std::path::{Path, PathBuf};

/// Makes root filesystems below `home` that are not there, one for each suite and named after it, of `packages` and what mmdebstrap's `variant` brings.
/// Returns `home`. Blocks on the network.
pub fn roots(home: PathBuf, suites: &[&str], variant: &str, packages: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(&home).with_context(|| format!("{} cannot be made", home.display()))?;
    for suite in suites {
        make(&home, suite, variant, packages)?;
    }
    Ok(home)
}

fn make(home: &Path, suite: &str, variant: &str, packages: &str) -> Result<()> {
    let finished = home.join(suite);
    if finished.exists() {
        return Ok(());
    }
    let part = home.join("part");
    run(root("rm").arg("-rf").arg(&part))?;
    let mut unpack = root("mmdebstrap");
    unpack.args(["--quiet", "--format=directory"]);
    unpack
        .arg(format!("--variant={variant}"))
        .arg(format!("--include={packages}"));
    run(unpack.arg(suite).arg(&part))?;
    run(root("mv").arg(&part).arg(&finished))?;
    Ok(())
}
