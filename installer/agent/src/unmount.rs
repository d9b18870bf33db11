//! Taking mounts away.

use crate::child::Children;
use crate::mounts::{self, Mount};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::time::Duration;

/// Takes away the mounts that `wanted` says, newest first. Returns a line for each that stays.
pub fn take_away(wanted: impl Fn(&Mount) -> bool, children: &Children) -> Vec<String> {
    let mut residue = Vec::new();
    // The newest first: a mount on top of another must go before it.
    for mount in mounts::all().into_iter().rev().filter(|m| wanted(m)) {
        if let Err(errno) = unmount_patiently(&mount, children) {
            residue.push(format!(
                "the mount {} ({}) stays: {errno}",
                mount.point.display(),
                mount.kind
            ));
        }
    }
    residue
}

fn unmount_patiently(mount: &Mount, children: &Children) -> Result<(), Errno> {
    // A process that was just killed may hold its files some milliseconds longer.
    for _ in 0..20 {
        match unmount(&mount.point, UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) => {
                if children.sleep(Duration::from_millis(50)).is_err() {
                    return Err(Errno::BUSY);
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    if mount.is_remote() {
        return Err(Errno::BUSY);
    }
    unmount(&mount.point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
}
