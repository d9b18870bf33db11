//! Root filesystems with firewalld for the agent's tests: nothing of it is installed on the machine itself, where it would start.

use crate::debian;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Suites of Debian, as the tests name them (`installer/agent/src/firewall/tests/firewalld.rs`): firewalld 1.3.3 and 2.3.1.
const SUITES: [&str; 2] = ["bookworm", "trixie"];
/// firewalld reads the names of protocols, which netbase brings.
const INCLUDE: &str = "firewalld,nftables,dbus,netbase";

/// Makes the root filesystems below `cache` that are not there, and returns the directory that holds them.
pub fn roots(cache: &Path) -> Result<PathBuf> {
    debian::roots(cache.join("firewalld"), &SUITES, "minbase", INCLUDE)
}
