//! sudo-rs for the tests of logins: built from its crate into the cache. Nothing of it is installed on the machine itself, whose own sudo it would replace.

use anyhow::Result;
use landfall_lab::host::run;
use std::path::{Path, PathBuf};
use std::process::Command;

/// As the test names them (`installer/ssh/src/tests/shells.rs`): Debian 13's version and the newest on 2026-11-30. Ubuntu has had sudo-rs in the place of sudo since 25.10 (documentation.ubuntu.com, sudo-rs).
const VERSIONS: [&str; 2] = ["0.2.5", "0.2.13"];

/// Builds the versions that are not there below `cache`, and returns the directory that holds a directory of each.
pub fn programs(cache: &Path) -> Result<PathBuf> {
    let home = cache.join("sudo-rs");
    for version in VERSIONS {
        let root = home.join(version);
        if root.join("bin/sudo").exists() {
            continue;
        }
        let mut install = Command::new("cargo");
        install.args(["install", "sudo-rs", "--version", version, "--bin", "sudo"]);
        run(install.args(["--locked", "--quiet", "--debug", "--root"]).arg(&root))?;
    }
    Ok(home)
}
