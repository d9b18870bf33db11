//! Writes to standard output, standard error and files. No other module writes text.
//!
//! Texts from nodes (output of programs, names in errors) may contain anything, also terminal escape sequences. This module replaces control
//! characters other than line breaks and tabs, so that no node can move the cursor or set colours on the operator's terminal.

use landfall_core::explain::{Code, Diagnosis};
use std::borrow::Cow;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Mode of files that show machines, addresses and versions to their owner alone.
pub const PRIVATE: u32 = 0o600;

/// Writes to standard output. A closed pipe (`landfall plan … | head`) is not an error.
pub fn write_stdout(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(printable(text).as_bytes()).and_then(|()| out.flush());
}

/// Writes to standard error. A failure cannot be reported anywhere.
pub fn write_stderr(text: &str) {
    let _ = io::stderr().write_all(printable(text).as_bytes());
}

/// Replaces control characters other than line breaks and tabs by U+FFFD.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_unsafe = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(is_unsafe) {
        Cow::Owned(text.replace(is_unsafe, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Writes a file through a temporary one beside it, so that it is either complete or absent.
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Diagnosis> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let write = || -> io::Result<()> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            make_folder(parent)?;
        }
        // A part left by an earlier run may have another mode.
        match std::fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    write().map_err(|error| unwritable(path, &error))
}

/// Opens a file for appending and makes it readable by its owner alone, also when it existed with another mode.
pub fn open_log(path: &Path) -> Result<File, Diagnosis> {
    let open = || -> io::Result<File> {
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(PRIVATE).open(path)?;
        file.set_permissions(std::fs::Permissions::from_mode(PRIVATE))?;
        Ok(file)
    };
    open().map_err(|error| unwritable(path, &error))
}

/// Makes a folder for its owner alone. An existing folder keeps its mode.
fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn unwritable(path: &Path, error: &io::Error) -> Diagnosis {
    Diagnosis::new(Code::FileUnreadable, format!("{} cannot be written", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_escape_sequence_reaches_a_terminal() {
        let text = "a\x1b[2J\x1b]0;title\x07b\r\u{9b}31mc\n\td\u{fc}\n";
        assert_eq!(
            printable(text),
            "a\u{fffd}[2J\u{fffd}]0;title\u{fffd}b\u{fffd}\u{fffd}31mc\n\td\u{fc}\n"
        );
        assert!(matches!(printable("plain\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_file_and_its_new_folder_are_private() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("report/install.json");
        write_whole(&path, b"{}", PRIVATE).unwrap();
        write_whole(&path, b"{1}", PRIVATE).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"{1}");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no part is left"
        );
    }

    #[test]
    fn a_log_becomes_private_and_keeps_its_lines() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("landfall.log");
        std::fs::write(&path, "earlier\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        open_log(&path).unwrap().write_all(b"later\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "earlier\nlater\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
