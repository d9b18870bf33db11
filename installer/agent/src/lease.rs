//! The lease of a node: a locked file in /run that names its holder. The kernel releases the lock when the agent ends, even when it is killed.

use crate::error::{AgentError, Result, errno_at, io_at};
use crate::host::Host;
use jiff::Timestamp;
use landfall_core::layout;
use landfall_core::name::RunId;
use rustix::fs::{FlockOperation, flock, fstat, stat};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Who holds the lease in this session.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The run.
    pub run: RunId,
    /// `install`, `uninstall`, …
    pub command: String,
    /// Name of the cluster.
    pub cluster: String,
}

/// A held lease. Dropping it gives it back and leaves nothing in /run.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    // Closing the file ends the lock, so that must come after the removal in `drop`.
    _file: File,
}

impl Lease {
    /// Takes the lease, or returns an error that names its holder.
    pub fn take(host: &Host, owner: &str, holder: &Holder) -> Result<Self> {
        let directory = host.at(layout::RUN_DIR);
        let path = directory.join("lease");
        loop {
            crate::files::make_private_dir(&directory)?;
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path);
            let mut file = match opened {
                Ok(file) => file,
                // The last holder removed the directory between the two calls.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io_at("opening", &path)(error)),
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::AGAIN) => {
                    let text = crate::files::text(&path);
                    return Err(AgentError::Locked(text.trim().to_owned()));
                }
                Err(errno) => return Err(errno_at("locking", &path)(errno)),
            }
            // The holder before us may have removed the file after we opened it: then the lock is on a file without a name.
            let mine = fstat(&file).map(|s| (s.st_dev, s.st_ino));
            if mine != stat(&path).map(|s| (s.st_dev, s.st_ino)) {
                continue;
            }
            let text = format!(
                "{owner} runs `{}` (run {}) on cluster {} since {}\n",
                holder.command,
                holder.run,
                holder.cluster,
                utc(host.now_ms())
            );
            file.set_len(0)
                .and_then(|()| file.write_all(text.as_bytes()))
                .map_err(io_at("writing", &path))?;
            return Ok(Self { path, _file: file });
        }
    }
}

/// Says whether some agent holds the lease of this machine, without taking it: the kernel's list of locks tells. The file alone says
/// nothing, for an agent that was killed leaves it. (`/proc/locks` names a lock's file by device and inode, proc_locks(5); the inode is enough,
/// because a stray match only delays the asker.)
pub fn is_held(host: &Host) -> bool {
    let Ok(file) = stat(host.at(layout::RUN_DIR).join("lease")) else {
        return false;
    };
    let inode = file.st_ino.to_string();
    let locks = crate::files::text("/proc/locks");
    locks.lines().any(|line| {
        let mut words = line.split_whitespace();
        let is_flock = words.nth(1) == Some("FLOCK");
        is_flock && words.any(|word| word.rsplit(':').next() == Some(&inode) && word.contains(':'))
    })
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Best effort: /run is gone with the next boot, and the lock ends with the file in any case.
        let _ = std::fs::remove_file(&self.path);
        if let Some(parent) = self.path.parent() {
            let _ = std::fs::remove_dir(parent);
        }
    }
}

/// Writes milliseconds since the epoch as a date for people.
fn utc(ms: u64) -> String {
    let time = i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let text = |time: Timestamp| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    time.map_or_else(|| format!("a time that is no date ({ms} ms)"), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> Holder {
        Holder {
            run: "r1".parse().unwrap(),
            command: "install".into(),
            cluster: "c".into(),
        }
    }

    #[test]
    fn two_runs_collide_and_the_second_learns_who_is_there() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::under(root.path());
        let lease = Lease::take(&host, "ann@desk", &holder()).unwrap();
        let error = Lease::take(&host, "bob@desk", &holder()).unwrap_err();
        assert!(
            matches!(&error, AgentError::Locked(who) if who.starts_with("ann@desk runs `install`")),
            "{error:?}"
        );
        drop(lease);
        assert!(!host.at(layout::RUN_DIR).exists(), "nothing is left in /run");
        Lease::take(&host, "bob@desk", &holder()).unwrap();
    }

    #[test]
    fn who_only_looks_sees_whether_it_is_held() {
        // In memory, as /run is: file systems of several layers show other inodes to programs than in the list of locks.
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let host = Host::under(root.path());
        assert!(!is_held(&host));
        let lease = Lease::take(&host, "ann@desk", &holder()).unwrap();
        assert!(is_held(&host));
        let path = host.at(layout::RUN_DIR).join("lease");
        drop(lease);
        assert!(!is_held(&host));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "an agent that was killed").unwrap();
        assert!(!is_held(&host));
    }

    #[test]
    fn dates_are_right() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_827_696_000), "2000-02-29 12:34:56 UTC");
        assert_eq!(utc(1_795_471_200_999), "2026-11-23 22:00:00 UTC");
        assert!(utc(u64::MAX).starts_with("a time that is no date"));
    }
}
