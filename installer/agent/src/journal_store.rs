//! The journal on disk: one file, one line per record, written and fsynced before the act that it speaks of.
//!
//! ```text
//! load (reads only; a torn last line is not looked at) ──► append (cuts the torn line off first; needs the node's lease)
//! ```
//! Beside it lies a reserve of disk space, made before the first intent and given back when an undo starts, so that a full disk cannot keep
//! the undo from being recorded.
//!
//! INVARIANT: what is in memory is what [`replay`](landfall_core::journal::replay) makes of the file; an illegal record is refused
//! before it is written. INVARIANT: who only reads never writes: another agent may be writing at this moment.

use crate::error::{AgentError, Result, errno_at, io_at};
use crate::files::{self, Meta};
use landfall_core::journal::repair::{self, JournalReading, Repair};
use landfall_core::journal::{JournalError, Ownership, Record, RunStart, parse_journal, render_line, replay};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Disk space kept for an undo, in bytes. Taking an entry back appends two records of about 150 bytes, or three with the reason when it
/// cannot be; a control plane has about 150 entries (2026-11-28). This is room for over 2,000.
const RESERVE_BYTES: u64 = 1024 * 1024;

/// Longest journal that [`read_as_found`] reads, in bytes. One of a control plane has about 150 KB.
const LONGEST_JOURNAL: u64 = 64 * 1024 * 1024;

/// Whether a record must be on disk before the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Written and fsynced: the record allows an act.
    OnDisk,
    /// Written; a power cut may lose it. Only for records whose loss makes a step be repeated, never for one that allows an act.
    Buffered,
}

/// How the file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// With a whole line, or it is empty.
    Whole,
    /// With a record that lacks its newline alone.
    NoNewline,
    /// With half a record, which begins at this byte.
    Torn(u64),
}

/// An open journal.
#[derive(Debug)]
pub struct JournalStore {
    path: PathBuf,
    file: Option<File>,
    tail: Tail,
    own: Ownership,
    records: usize,
}

impl JournalStore {
    /// Reads the journal, if there is one. A torn last line is not looked at. Makes and changes no file.
    pub fn load(path: PathBuf) -> Result<Self> {
        let text = files::read(&path)?.unwrap_or_default();
        let records = parse_journal(&text)?;
        let own = replay(&records)?;
        let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let tail = if whole == text.len() {
            Tail::Whole
        } else if parse_journal(&text[..whole])?.len() < records.len() {
            Tail::NoNewline
        } else {
            Tail::Torn(whole as u64)
        };
        Ok(Self {
            path,
            file: None,
            tail,
            own,
            records: records.len(),
        })
    }

    /// Returns what is ours.
    pub fn own(&self) -> &Ownership {
        &self.own
    }

    /// Appends records with one write and at most one fsync; without records, puts earlier ones on disk. Needs the node's lease, for nobody
    /// else may write at the same time. An intent is refused when there is no room for the reserve.
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
        if records.iter().any(|record| matches!(record, Record::Intent { .. })) {
            self.make_reserve()?;
        }
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

    /// Opens the file for appending, makes it when it is not there, and mends its end.
    fn open(&mut self) -> Result<File> {
        if let Some(parent) = self.path.parent() {
            files::make_private_dir(parent)?;
        }
        let is_new = !self.path.exists();
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(io_at("opening", &self.path))?;
        if is_new {
            files::sync_parent(&self.path)?;
        }
        match self.tail {
            Tail::Whole => return Ok(file),
            Tail::NoNewline => file.write_all(b"\n").map_err(io_at("writing", &self.path))?,
            Tail::Torn(at) => file.set_len(at).map_err(io_at("cutting", &self.path))?,
        }
        file.sync_all().map_err(io_at("writing to disk", &self.path))?;
        self.tail = Tail::Whole;
        Ok(file)
    }

    fn reserve(&self) -> PathBuf {
        self.path.with_extension("reserve")
    }

    /// Takes the reserve from the disk, when it is not there. Its length stays 0; only its blocks are wanted.
    fn make_reserve(&self) -> Result<()> {
        let path = self.reserve();
        if path.exists() {
            return Ok(());
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_at("creating", &path))?;
        let made = match fallocate(&file, FallocateFlags::KEEP_SIZE, 0, RESERVE_BYTES) {
            // A file system that cannot set blocks aside (ZFS, NFS before 4.2) has them written.
            Err(Errno::OPNOTSUPP) => file
                .write_all(&vec![0xa5; RESERVE_BYTES as usize])
                .and_then(|()| file.sync_all())
                .map_err(io_at("setting aside disk space in", &path)),
            other => other.map_err(errno_at("setting aside disk space in", &path)),
        };
        if made.is_err() {
            // Best effort: the first error is the one that is reported.
            let _ = std::fs::remove_file(&path);
        }
        made
    }

    /// Gives the reserve back to the disk, because an undo starts. The next intent takes it again.
    pub fn release_reserve(&self) -> Result<()> {
        files::remove_file(&self.reserve())
    }

    /// Removes the file, its reserve and damaged journals that were kept; only when nothing is ours.
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
        self.tail = Tail::Whole;
        self.own = Ownership::default();
        self.records = 0;
        self.release_reserve()?;
        for kept in all_kept(&self.path) {
            files::remove_file(&kept)?;
        }
        if self.path.exists() {
            files::remove_file(&self.path)?;
            files::sync_parent(&self.path)?;
        }
        Ok(())
    }
}

/// Returns where the `n`th damaged journal is kept.
fn kept(path: &Path, n: usize) -> PathBuf {
    path.with_extension(format!("damaged-{n}"))
}

/// Returns all damaged journals that are kept.
fn all_kept(path: &Path) -> Vec<PathBuf> {
    let beside = path.parent().into_iter().flat_map(std::fs::read_dir);
    let files = beside.flatten().flatten().map(|entry| entry.path());
    let stem = path.with_extension("damaged-");
    files
        .filter(|file| {
            file.as_os_str()
                .as_encoded_bytes()
                .starts_with(stem.as_os_str().as_encoded_bytes())
        })
        .collect()
}

/// Reads a journal as far as its lines are whole, also a damaged one. Makes and changes no file.
pub fn read_whole_lines(path: &Path, runs: &[RunStart]) -> Result<Repair> {
    let text = files::read(path)?.unwrap_or_default();
    Ok(repair::repair(&text, runs)?)
}

/// Reads what a journal records, for what goes on whatever its state: of a damaged one the whole lines count, and the damage is returned with
/// them. Makes and changes no file.
pub fn read_as_found(path: &Path) -> Result<(Ownership, Option<JournalError>)> {
    let size_bytes = std::fs::metadata(path).map_or(0, |found| found.len());
    if size_bytes > LONGEST_JOURNAL {
        return Err(AgentError::Refused(format!("it has more than {LONGEST_JOURNAL} bytes")));
    }
    let records = parse_journal(&files::read(path)?.unwrap_or_default());
    match records.and_then(|records| replay(&records)) {
        Ok(own) => Ok((own, None)),
        Err(damage) => Ok((read_whole_lines(path, &[])?.reading.own, Some(damage))),
    }
}

/// Replaces a damaged journal by one of its whole lines, and keeps the damaged one beside it; a good one stays as it is. At any moment the
/// journal is the old one or the new one, whole. Needs the node's lease.
pub fn repair(path: &Path, runs: &[RunStart]) -> Result<JournalReading> {
    let Repair { text, mut reading } = read_whole_lines(path, runs)?;
    if reading.lost.is_empty() {
        return Ok(reading);
    }
    let mut n = 1;
    while kept(path, n).exists() {
        n += 1;
    }
    let kept = kept(path, n);
    std::fs::hard_link(path, &kept).map_err(io_at("keeping the damaged journal as", &kept))?;
    files::write_bytes(path, Meta::mode(0o600), &text)?;
    reading.kept = Some(kept);
    Ok(reading)
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

    #[test]
    fn a_reader_beside_a_writer_never_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut writer = JournalStore::load(path.clone()).unwrap();
        writer.append(&[intent("a"), intent("b")], Durability::OnDisk).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let reader = JournalStore::load(path.clone()).unwrap();
            assert!(reader.own().entries.len() <= 2);
            assert_eq!(std::fs::read(&path).unwrap(), &whole[..cut], "cut at {cut}");
        }
    }
}
