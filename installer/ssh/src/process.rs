//! A process of this machine as the command that a transport starts.

use landfall_core::transport::{RemoteChild, RemoteExit};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a process may take to end after it has closed its output.
const ENDING: Duration = Duration::from_secs(2);

/// A process that was started. It is collected after its end, also when nobody waits for it.
#[derive(Clone)]
pub struct Process(Arc<Mutex<Owned>>);

/// Starts a program with pipes for its three streams.
pub fn spawn(command: &mut Command) -> io::Result<(RemoteChild, Process)> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let process = Process::new(child);
    let (Some(stdin), Some(stdout), Some(stderr)) = streams else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let child = RemoteChild {
        stdin: Box::new(stdin),
        stdout: Box::new(stdout),
        stderr: Box::new(stderr),
        exit: Box::new(process.clone()),
    };
    Ok((child, process))
}

/// Starts a program whose three streams are a new terminal. Reading from it is an error once nothing has it open (Linux, `EIO`).
pub fn spawn_on_terminal(command: &mut Command) -> io::Result<(RemoteChild, Process)> {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&near)?;
    unlockpt(&near)?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let far = rustix::fs::open(ptsname(&near, Vec::new())?, flags, Mode::empty())?;
    command.stdin(far.try_clone()?).stdout(far.try_clone()?).stderr(far);
    let process = Process::new(command.spawn()?);
    // The command keeps the far end open otherwise, and the terminal would not end.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = RemoteChild {
        stdin: Box::new(TerminalInput(File::from(near.try_clone()?), process.clone())),
        stdout: Box::new(File::from(near)),
        stderr: Box::new(io::empty()),
        exit: Box::new(process.clone()),
    };
    Ok((child, process))
}

/// Writes to a terminal, and ends the process to which it belongs when it is dropped: the terminal then hangs up, on all that read from it.
struct TerminalInput(File, Process);

impl Write for TerminalInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for TerminalInput {
    fn drop(&mut self) {
        let mut owned = self.1.child();
        if let Some(child) = &mut owned.0
            && matches!(child.try_wait(), Ok(None))
        {
            terminate(child);
        }
    }
}

impl Process {
    fn new(child: Child) -> Self {
        Self(Arc::new(Mutex::new(Owned(Some(child)))))
    }

    fn child(&self) -> MutexGuard<'_, Owned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether it runs. Blocks while another thread waits for its end.
    pub fn is_running(&self) -> bool {
        let mut owned = self.child();
        owned
            .0
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Returns its exit status when it has ended by itself, and terminates it otherwise: `None`, as when a signal ended it before. Blocks until it has
    /// ended.
    pub fn end(&self) -> Option<i32> {
        let mut owned = self.child();
        let child = owned.0.as_mut()?;
        let until = Instant::now() + ENDING;
        loop {
            if let Some(ended) = child.try_wait().ok()? {
                return ended.code();
            }
            if Instant::now() >= until {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        terminate(child);
        let _ = child.wait();
        None
    }
}

/// It may end at this moment; no other process gets its id before it is waited for.
fn terminate(child: &Child) {
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
}

impl RemoteExit for Process {
    fn wait(&mut self) -> Option<i32> {
        self.child().0.as_mut()?.wait().ok()?.code()
    }
}

struct Owned(Option<Child>);

impl Drop for Owned {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        if matches!(child.try_wait(), Ok(None)) {
            thread::spawn(move || child.wait());
        }
    }
}
