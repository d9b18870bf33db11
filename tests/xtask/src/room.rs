//! Room on the disk for the lab: what can be made again goes when there is too little of it. Where there is enough, nothing is touched.

use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// What the lab takes at most: its machines had 9.8 GB (2026-11-29), of which each unpacks the images.
const LAB_BYTES: u64 = 12_000_000_000;

/// Things that nothing in the lab needs, with what removes them: the quickest to make again first.
type Removal = (&'static str, fn() -> Result<()>);
const REMOVALS: [Removal; 3] = [
    ("the test programs that ran before", remove_test_programs),
    ("Go's build cache", || go_clean("-cache")),
    ("Go's modules", || go_clean("-modcache")),
];

/// Returns the free bytes on the file system of the checkout.
pub fn free_bytes() -> std::io::Result<u64> {
    let found = rustix::fs::statvfs(".")?;
    Ok(found.f_bavail * found.f_frsize)
}

/// Removes what it takes until the lab has room, and says so. That there is still too little is said too: the lab names what fails for it.
pub fn make_for_lab() -> Result<()> {
    for (what, remove) in REMOVALS {
        if free_bytes()? >= LAB_BYTES {
            return Ok(());
        }
        remove()?;
        println!(
            "the lab needs room on the disk: {what} are gone, {} MB are free",
            free_bytes()? / 1_000_000
        );
    }
    if free_bytes()? < LAB_BYTES {
        println!(
            "the lab needs {} MB on the disk and may not find them",
            LAB_BYTES / 1_000_000
        );
    }
    Ok(())
}

/// cargo keeps every test program it has linked; the libraries beside them are what takes long to build.
fn remove_test_programs() -> Result<()> {
    let folder = std::env::current_exe()?.with_file_name("deps");
    for entry in fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let path = entry?.path();
        let found = path.metadata()?;
        let is_program = found.is_file() && path.extension().is_none() && found.permissions().mode() & 0o100 != 0;
        if is_program {
            fs::remove_file(&path).with_context(|| format!("{} cannot be removed", path.display()))?;
        }
    }
    Ok(())
}

fn go_clean(what: &str) -> Result<()> {
    landfall_lab::host::run(Command::new("go").args(["clean", what])).map(drop)
}
