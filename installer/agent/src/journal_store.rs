//! The journal on disk: one file, one line per record, written and fsynced before the act that it speaks of.
//!
//! INVARIANT: what is in memory is what [`replay`](landfall_core::journal::replay) makes of the file; an illegal record is refused
//! before it is written.

use crate::error::{Result, io_at};
use crate::files;
use landfall_core::journal::{JournalError, Ownership, Record, parse_journal, render_line, replay};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Whether a record must be on disk before the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Written and fsynced: the record allows an act.
    OnDisk,
    /// Written; a power cut may lose it. Only for records whose loss makes a step be repeated, never for one that allows an act.
    Buffered,
}

/// An open journal.
#[derive(Debug)]
pub struct JournalStore {
    path: PathBuf,
    file: Option<File>,
    own: Ownership,
    records: usize,
}

impl JournalStore {
    /// Reads the journal, if there is one, and cuts off a torn last line. Makes no file.
    pub fn load(path: PathBuf) -> Result<Self> {
        let text = files::read(&path)?.unwrap_or_default();
        let records = parse_journal(&text)?;
        let own = replay(&records)?;
        let mut store = Self {
            path,
            file: None,
            own,
            records: records.len(),
        };
        let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            let tail_is_a_record = parse_journal(&text[..whole])?.len() < records.len();
            let mut file = store.open()?;
            if tail_is_a_record {
                file.write_all(b"\n").map_err(io_at("writing", &store.path))?;
            } else {
                file.set_len(whole as u64).map_err(io_at("cutting", &store.path))?;
            }
            file.sync_all().map_err(io_at("writing to disk", &store.path))?;
            store.file = Some(file);
        }
        Ok(store)
    }

    /// Returns what is ours.
    pub fn own(&self) -> &Ownership {
        &self.own
    }

    /// Appends records with one write and at most one fsync; without records, puts earlier ones on disk.
    pub fn append(&mut self, records: &[Record], durability: Durability) -> Result<()> {
        if records.is_empty() && self.file.is_none() {
            return Ok(());
        }
        let mut next = self.own.clone();
        let mut text = String::new();
        for (offset, record) in records.iter().enumerate() {
            next.take(self.records + offset, record)?;
            text.push_str(&render_line(record));
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        let before = file.metadata().map_err(io_at("looking at", &self.path))?.len();
        let written = file.write_all(text.as_bytes()).and_then(|()| match durability {
            Durability::OnDisk => file.sync_data(),
            Durability::Buffered => Ok(()),
        });
        if let Err(error) = written {
            // A full disk must not leave half a line in the middle of the journal.
            let _ = file.set_len(before);
            return Err(io_at("writing", &self.path)(error));
        }
        self.file = Some(file);
        self.own = next;
        self.records += records.len();
        Ok(())
    }

    fn open(&self) -> Result<File> {
        if let Some(parent) = self.path.parent() {
            files::make_private_dir(parent)?;
        }
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(io_at("opening", &self.path))
    }

    /// Removes the file; only when nothing is ours.
    pub fn remove(&mut self) -> Result<()> {
        if let Some(entry) = self.own.entries.first() {
            return Err(JournalError::Illegal {
                index: self.records,
                what: "removal",
                step: entry.step.clone(),
            }
            .into());
        }
        self.file = None;
        self.own = Ownership::default();
        self.records = 0;
        files::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_core::action::Undo;
    use landfall_core::name::Digest;

    fn intent(step: &str) -> Record {
        Record::Intent {
            run: "r1".parse().unwrap(),
            step: step.parse().unwrap(),
            action: Digest::of(b"x"),
            undo: Undo::Nothing,
            wanted: None,
        }
    }

    #[test]
    fn a_torn_tail_is_cut_and_writing_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut store = JournalStore::load(path.clone()).unwrap();
        assert!(!path.exists(), "reading makes no file");
        store.append(&[intent("a"), intent("b")], Durability::OnDisk).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let first = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
        for cut in first..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut store = JournalStore::load(path.clone()).unwrap();
            // The newline alone may be missing: then the record is whole.
            let expected = if cut + 1 == whole.len() { 2 } else { 1 };
            assert_eq!(store.own().entries.len(), expected, "cut at {cut}");
            store.append(&[intent("c")], Durability::OnDisk).unwrap();
            let again = JournalStore::load(path.clone()).unwrap();
            assert_eq!(again.own(), store.own(), "cut at {cut}");
        }
    }

    #[test]
    fn an_illegal_record_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut store = JournalStore::load(path.clone()).unwrap();
        store.append(&[intent("a")], Durability::OnDisk).unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(store.append(&[intent("a")], Durability::OnDisk).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert!(store.remove().is_err(), "a journal with entries stays");
    }
}
