//! OpenSSH of other releases for the tests of logins: packages that are unpacked, not installed. The tests start the programs with the libraries beside them.

use anyhow::{Context, Result};
use landfall_lab::host::{root, run};
use std::path::{Path, PathBuf};

/// Suites of Debian, as the test names them (`installer/ssh/src/tests/releases.rs`): OpenSSH 8.4 and 10.0.
const SUITES: [&str; 2] = ["bullseye", "trixie"];

/// Unpacks what is not there below `cache`, and returns the directory that holds a directory of each suite. Blocks on the network.
pub fn releases(cache: &Path) -> Result<PathBuf> {
    let home = cache.join("openssh");
    std::fs::create_dir_all(&home).with_context(|| format!("{} cannot be made", home.display()))?;
    for suite in SUITES {
        let finished = home.join(suite);
        if finished.exists() {
            continue;
        }
        let part = home.join("part");
        run(root("rm").arg("-rf").arg(&part))?;
        let mut unpack = root("mmdebstrap");
        unpack.args(["--quiet", "--variant=extract", "--format=directory"]);
        run(unpack.args(["--include=openssh-server", suite]).arg(&part))?;
        run(root("mv").arg(&part).arg(&finished))?;
    }
    Ok(home)
}
