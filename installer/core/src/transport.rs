//! The interface between the engine and a connection to a node. `landfall-ssh` and the fakes of the tests implement it.

use crate::explain::Diagnosis;
use std::io::{Read, Write};

/// A running remote command with its three streams.
pub struct RemoteChild {
    /// Goes to the command's standard input; dropping it sends end of file.
    pub stdin: Box<dyn Write + Send>,
    /// The command's standard output.
    pub stdout: Box<dyn Read + Send>,
    /// The command's standard error.
    pub stderr: Box<dyn Read + Send>,
    /// Waits for the end and the exit status.
    pub exit: Box<dyn RemoteExit>,
}

/// The exit of a remote command.
pub trait RemoteExit: Send {
    /// Blocks until the command has ended and returns its exit status; `None` when a signal or a cut line ended it.
    fn wait(&mut self) -> Option<i32>;
}

/// A logged-in connection to one machine.
pub trait Transport: Send {
    /// Starts `command` (a POSIX shell line, given to `sh -c`) as the login user. Blocks until the far end accepted it.
    fn spawn(&mut self, command: &str) -> Result<RemoteChild, Diagnosis>;

    /// Starts `command` as root: directly when the login user is root, else through sudo. Blocks until the command runs;
    /// a wrong or missing sudo password is a [`Diagnosis`] with its own code.
    fn spawn_root(&mut self, command: &str) -> Result<RemoteChild, Diagnosis>;
}
