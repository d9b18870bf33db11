//! OpenSSH of other releases for the tests of logins: packages that are unpacked, not installed. The tests start the programs with the libraries beside them.

use crate::debian;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Suites of Debian, as the test names them (`installer/ssh/src/tests/releases.rs`): OpenSSH 8.4 and 10.0.
const SUITES: [&str; 2] = ["bullseye", "trixie"];

/// Unpacks what is not there below `cache`, and returns the directory that holds a directory of each suite. Blocks on the network.
pub fn releases(cache: &Path) -> Result<PathBuf> {
    debian::roots(cache.join("openssh"), &SUITES, "extract", "openssh-server")
}
