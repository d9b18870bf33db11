//! A process of this machine as the command that a transport starts.

use landfall_core::transport::{RemoteChild, RemoteExit};
use rustix::process::Pid;
use std::io;
use std::process::{Child, Command, Stdio};

/// Starts a program with pipes for its three streams; returns its process id too.
pub fn spawn(command: &mut Command) -> io::Result<(RemoteChild, Pid)> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = streams else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let id = Pid::from_child(&child);
    let streams = RemoteChild {
        stdin: Box::new(stdin),
        stdout: Box::new(stdout),
        stderr: Box::new(stderr),
        exit: Box::new(ProcessExit(child)),
    };
    Ok((streams, id))
}

struct ProcessExit(Child);

impl RemoteExit for ProcessExit {
    fn wait(&mut self) -> Option<i32> {
        self.0.wait().ok()?.code()
    }
}
