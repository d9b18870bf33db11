//! Runs a ProxyCommand, whose standard input and output are the connection to a machine.

use crate::pump::pair;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Connect;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Most bytes of a proxy's standard error that an error shows.
const MAX_STDERR_BYTES: u64 = 4 * 1024;
/// How long to wait for the end of the standard error of a proxy that failed.
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);

/// A running ProxyCommand. Dropping it ends the process.
pub struct ProxyProcess {
    child: Child,
    stderr: Arc<Mutex<String>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Drop for ProxyProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl ProxyProcess {
    /// Starts the command by `sh`, as ssh does, and returns the socket that is its standard input and output.
    pub fn start(command: &str, connect: &Connect) -> Result<(Self, UnixStream), Diagnosis> {
        let line = format!("exec {}", expand(command, connect));
        let failed = |error: &std::io::Error| {
            Diagnosis::new(
                Code::Unreachable,
                format!("the proxy command for {} cannot be started", connect.host),
            )
            .because(error)
        };
        let (theirs, ours) = pair().map_err(|e| failed(&e))?;
        theirs.set_nonblocking(false).map_err(|e| failed(&e))?;
        let output = theirs.try_clone().map_err(|e| failed(&e))?;
        let mut child = Command::new("/bin/sh")
            .args(["-c", &line])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(OwnedFd::from(output)))
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| failed(&e))?;
        let stderr = Arc::new(Mutex::new(String::new()));
        let reader = child
            .stderr
            .take()
            .map(|pipe| collect_stderr(pipe, Arc::clone(&stderr)));
        Ok((Self { child, stderr, reader }, ours))
    }

    /// Returns the command's standard error so far. Blocks for a second at most.
    pub fn stderr_text(&self) -> String {
        // The end of its standard error may not have been read yet. A command that still runs is not waited for.
        let until = Instant::now() + STDERR_TIMEOUT;
        while self.reader.as_ref().is_some_and(|r| !r.is_finished()) && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        self.stderr
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .trim()
            .to_owned()
    }
}

fn collect_stderr(mut pipe: impl Read + Send + 'static, text: Arc<Mutex<String>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0u8; 1024];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
            if (text.len() as u64) < MAX_STDERR_BYTES {
                text.push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        }
    })
}

/// Expands the command's tokens (ssh_config(5), TOKENS): `%h` host, `%n` the name that was given, `%p` port, `%r` user, `%%`.
fn expand(command: &str, connect: &Connect) -> String {
    let mut expanded = String::new();
    let mut characters = command.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            expanded.push(character);
            continue;
        }
        match characters.next() {
            Some('h' | 'n') => expanded.push_str(&connect.host),
            Some('p') => expanded.push_str(&connect.port.to_string()),
            Some('r') => expanded.push_str(&connect.user),
            Some('%') => expanded.push('%'),
            other => {
                expanded.push('%');
                expanded.extend(other);
            }
        }
    }
    expanded
}
