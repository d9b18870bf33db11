//! Runs other programs without showing their output; the last lines are kept for the error.

use super::failed;
use landfall_core::explain::Diagnosis;
use std::path::Path;
use std::process::{Command, Stdio};

/// What the build needs on the machine, and the Debian package that has it.
const NEEDED: [(&str, &str); 6] = [
    ("go", "Go 1.26 or newer from go.dev or your package registry"),
    ("cargo", "Rust by rustup"),
    ("cc", "gcc"),
    ("apt-get", "apt (a Debian-like machine)"),
    ("apt-config", "apt (a Debian-like machine)"),
    ("dpkg-deb", "dpkg (a Debian-like machine)"),
];

/// Returns one error that names everything that is missing.
pub(super) fn require() -> Result<(), Diagnosis> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |program: &str| std::env::split_paths(&path).any(|d| d.join(program).is_file());
    let mut missing: Vec<String> = NEEDED
        .iter()
        .filter(|(program, _)| !has(program))
        .map(|(program, from)| format!("{program}: install {from}"))
        .collect();
    if !Path::new("/usr/include/seccomp.h").exists() {
        missing.push("seccomp.h: install libseccomp-dev".to_owned());
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut diagnosis = failed("this machine lacks what the build needs");
    for line in missing {
        diagnosis = diagnosis.saw(line);
    }
    Err(diagnosis.next("`cargo xtask demo` installs all of it"))
}

/// Runs a command; returns its output. The error holds the last lines it wrote.
pub(super) fn run(command: &mut Command, doing: &str) -> Result<Vec<u8>, Diagnosis> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("{doing}: {:?} cannot be started", command.get_program())).because(&error))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = text.lines().collect();
    let mut diagnosis = failed(format!("{doing} failed ({})", output.status));
    for line in lines.iter().skip(lines.len().saturating_sub(15)) {
        diagnosis = diagnosis.saw(*line);
    }
    Err(diagnosis)
}
