//! `ssh` and `scp` as child processes: one connection per command, as in a shell script.

use crate::host::run;
use crate::lab::Machine;
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Logs in as root on lab machines.
pub struct Remote {
    key: PathBuf,
}

impl Remote {
    /// Logs in by the private key in that file.
    pub fn new(key: PathBuf) -> Self {
        Self { key }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-i").arg(&self.key);
        // The machines are made anew for every round, and so are their host keys.
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "BatchMode=yes",
        ] {
            command.args(["-o", option]);
        }
        command
    }

    /// Runs a shell line; returns what it wrote. Fails when it fails.
    pub fn on(&self, machine: &Machine, line: &str) -> Result<String> {
        let mut ssh = self.command("ssh");
        ssh.arg(format!("root@{}", machine.address)).arg(line);
        run(&mut ssh).with_context(|| machine.name.clone())
    }

    /// Runs a shell line that reads `input`.
    pub fn feed(&self, machine: &Machine, line: &str, input: &str) -> Result<()> {
        let mut ssh = self.command("ssh");
        ssh.arg(format!("root@{}", machine.address)).arg(line);
        let mut child = ssh
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // A few kilobytes at most: they fit into the pipe whatever the other side does.
        let written = child
            .stdin
            .take()
            .context("ssh takes no input")?
            .write_all(input.as_bytes());
        let output = child.wait_with_output()?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{} {line}: {}\n{words}",
            machine.name,
            output.status
        );
        written.context("ssh ended before it took its input")
    }

    /// Copies files into a folder of the machine.
    pub fn copy(&self, machine: &Machine, files: &[&Path], to: &str) -> Result<()> {
        let mut scp = self.command("scp");
        scp.arg("-q").args(files).arg(format!("root@{}:{to}", machine.address));
        run(&mut scp).map(drop)
    }
}
