//! Reads passwords from the terminal or from files. No password comes from an argument, and none is printed.

use landfall_core::explain::{Code, Diagnosis};
use landfall_core::secret::Secret;
use rustix::termios::{self, LocalModes, OptionalActions};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Asks on the terminal, without echo. Blocks until a line is typed.
///
/// # Errors
/// There is no terminal.
pub fn ask(what: &str) -> Result<Secret, Diagnosis> {
    let refuse = |error: std::io::Error| {
        Diagnosis::new(Code::Usage, format!("{what}: cannot be asked for without a terminal"))
            .because(&error)
            .next("put it into the inventory, encrypted by ansible-vault, and give --vault-password-file")
    };
    let mut terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(refuse)?;
    let before = termios::tcgetattr(&terminal).map_err(|e| refuse(e.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    write!(terminal, "{what}: ").map_err(refuse)?;
    termios::tcsetattr(&terminal, OptionalActions::Flush, &silent).map_err(|e| refuse(e.into()))?;
    let mut line = String::new();
    let read = BufReader::new(&terminal).read_line(&mut line);
    let _ = termios::tcsetattr(&terminal, OptionalActions::Flush, &before);
    let _ = writeln!(terminal);
    read.map_err(refuse)?;
    Ok(Secret::new(line.trim_end_matches(['\n', '\r'])))
}

/// Reads a password from a file; an executable file is run and prints it, as in Ansible. `what` names the password in errors; `vault_id` is for
/// scripts that know several vaults. Blocks until the program ends.
///
/// # Errors
/// The file cannot be read or run, or is empty.
pub fn from_file(path: &Path, what: &str, vault_id: Option<&str>) -> Result<Secret, Diagnosis> {
    use std::os::unix::fs::PermissionsExt;
    let shown = path.display();
    let refuse = |error: std::io::Error| {
        Diagnosis::new(Code::FileUnreadable, format!("{shown} cannot be read"))
            .because(&error)
            .next(format!("name a file that holds the {what}"))
    };
    let mode = std::fs::metadata(path).map_err(refuse)?.permissions().mode();
    let text = if mode & 0o111 != 0 {
        let absolute = std::path::absolute(path).map_err(refuse)?;
        let mut script = Command::new(absolute);
        // Ansible passes the id to scripts whose names end like this.
        let client = path
            .file_stem()
            .is_some_and(|stem| stem.to_string_lossy().ends_with("-client"));
        if let (true, Some(id)) = (client, vault_id) {
            script.args(["--vault-id", id]);
        }
        let output = script
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(refuse)?;
        if !output.status.success() {
            let failed = format!("{shown}, which prints the {what}, failed: {}", output.status);
            return Err(Diagnosis::new(Code::FileUnreadable, failed).next("run it by hand and see what it says"));
        }
        output.stdout
    } else {
        std::fs::read(path).map_err(refuse)?
    };
    let text = text.trim_ascii();
    if text.is_empty() {
        let empty = format!("{shown} holds no password");
        return Err(Diagnosis::new(Code::FileUnreadable, empty).next(format!("write the {what} into it")));
    }
    Ok(Secret::new(text))
}
