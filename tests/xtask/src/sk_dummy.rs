//! OpenSSH's security token in software, with which its own tests log in: a library of Debian's package openssh-tests. The package itself, which needs
//! fifteen others, is not installed.

use anyhow::{Context, Result};
use landfall_lab::host::{run, sudo};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the package has it.
const LIBRARY: &str = "usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so";

/// Fetches the library when it is not there below `cache`, and returns its file. Blocks on the network.
pub fn library(cache: &Path) -> Result<PathBuf> {
    let folder = cache.join("sk-dummy");
    let library = folder.join("sk-dummy.so");
    if library.exists() {
        return Ok(library);
    }
    let work = tempfile::tempdir().context("no temporary folder can be made")?;
    let download = || {
        let mut apt = Command::new("apt-get");
        run(apt.current_dir(&work).args(["download", "-qq", "openssh-tests"]))
    };
    // The lists of packages may be absent or old.
    if download().is_err() {
        sudo("apt-get", &["update", "-qq"])?;
        download()?;
    }
    let package = fs::read_dir(&work)?
        .next()
        .context("apt-get has downloaded nothing")??
        .path();
    run(Command::new("dpkg-deb")
        .arg("-x")
        .arg(&package)
        .arg(work.path().join("files")))?;
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let part = folder.join("part");
    fs::copy(work.path().join("files").join(LIBRARY), &part)
        .with_context(|| format!("the package has no {LIBRARY}"))?;
    fs::rename(&part, &library).with_context(|| format!("{} cannot be made", library.display()))?;
    Ok(library)
}
