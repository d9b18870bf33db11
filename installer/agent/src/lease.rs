//! The lease of a node: a locked file in /run that says who is there. The kernel gives it back when the agent ends, however it ends.

use crate::error::{AgentError, Result, errno_at, io_at};
use crate::host::{Host, now_ms};
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
    /// Takes the lease or says who has it.
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
                utc(now_ms() / 1000)
            );
            file.set_len(0)
                .and_then(|()| file.write_all(text.as_bytes()))
                .map_err(io_at("writing", &path))?;
            return Ok(Self { path, _file: file });
        }
    }
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

/// Writes seconds since the epoch as a date people can read (proleptic Gregorian, after Howard Hinnant's days algorithm).
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
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
    fn dates_are_right() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_827_696), "2000-02-29 12:34:56 UTC");
        assert_eq!(utc(1_795_471_200), "2026-11-23 22:00:00 UTC");
    }
}
