//! The programs that verify: found in PATH, run with a time limit, their last lines kept.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often a running program is looked at; a signature takes longer to fetch.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What is kept of each output.
const OUTPUT_BYTES: u64 = 64 * 1024;
/// Lines for the error.
const LINES: usize = 15;

/// How a program ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub success: bool,
    /// For people: `exit status: 1`.
    pub status: String,
    pub stdout: String,
    /// Of standard error.
    pub last_lines: Vec<String>,
}

/// Finds a program in the folders of PATH.
pub(super) fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    // A relative folder in PATH would make another program of it in another working directory.
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    folders
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// Runs a program, which gets no input, until it ends, or kills it behind the time limit. Its output lies in `folder` meanwhile. The environment
/// is this process' own, as users of cosign set it.
pub(super) fn run(command: &mut Command, folder: &Path, limit: Duration) -> io::Result<Ended> {
    let deadline = Instant::now() + limit;
    let (stdout, stderr) = (output(&folder.join("stdout"))?, output(&folder.join("stderr"))?);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let lines = text(stderr)?;
    let lines: Vec<&str> = lines.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    Ok(Ended {
        success: status.is_some_and(|status| status.success()),
        status: status.map_or_else(
            || format!("it was killed: it had not ended within {} s", limit.as_secs()),
            |status| status.to_string(),
        ),
        stdout: text(stdout)?,
        last_lines: last.iter().map(|line| (*line).to_owned()).collect(),
    })
}

fn output(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
}

fn text(mut file: File) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Ended {
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("/bin/sh").args(["-c", script]), folder.path(), limit).unwrap()
    }

    #[test]
    fn output_and_status_are_kept() {
        let ended = shell("echo out; seq 1 20 >&2; exit 3", Duration::from_secs(60));
        assert_eq!((ended.success, ended.stdout.as_str()), (false, "out\n"));
        assert_eq!(ended.last_lines.first().map(String::as_str), Some("6"));
        assert_eq!(ended.status, "exit status: 3");
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let before = Instant::now();
        let ended = shell("echo waiting >&2; exec sleep 1000", Duration::from_millis(300));
        assert!(!ended.success && before.elapsed() < Duration::from_secs(100));
        assert!(ended.status.starts_with("it was killed"), "{}", ended.status);
        assert_eq!(ended.last_lines, ["waiting"]);
    }

    #[test]
    fn programs_are_found_by_path_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cosign"), "").unwrap();
        let path = std::env::join_paths([Path::new("relative"), folder.path()]).unwrap();
        assert_eq!(find("cosign", &path), Some(folder.path().join("cosign")));
        assert_eq!(find("gpgv", &path), None);
    }
}
