//! The blob store of the node: files named by their digest. A file with its final name was hashed on the way in; a `.part` is what came
//! of a blob before a connection ended.

use crate::actions::on_disk;
use crate::agent::Agent;
use crate::error::{AgentError, Result, if_there, io_at};
use crate::files;
use landfall_core::action::{Prior, Undo};
use landfall_core::bundle_index::CHUNK_BYTES;
use landfall_core::name::Digest;
use landfall_core::plan::key::keeps_blobs;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Opens a blob of the store in `directory`, or what has come of it. A file that is renamed in between is found under its final name.
pub fn open(directory: &Path, digest: &Digest) -> std::io::Result<Option<File>> {
    let blob = directory.join(digest.hex());
    for path in [&part_of(&blob), &blob] {
        match File::open(path) {
            Ok(file) => return Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Returns which of these blobs are there.
pub fn have(agent: &Agent, digests: &BTreeSet<Digest>) -> BTreeSet<Digest> {
    digests
        .iter()
        .filter(|d| agent.host.blob(d).is_file())
        .copied()
        .collect()
}

/// Returns how many bytes of each of these blobs came before a connection ended. Nothing is said of what they are: they are hashed before
/// the rest is taken.
pub fn parts(agent: &Agent, digests: &BTreeSet<Digest>) -> BTreeMap<Digest, u64> {
    let parts = digests.iter().map(|digest| (*digest, part_bytes(agent, digest)));
    parts.filter(|(_, bytes)| *bytes > 0).collect()
}

/// Returns how many bytes of a blob came before a connection ended.
pub fn part_bytes(agent: &Agent, digest: &Digest) -> u64 {
    std::fs::metadata(part_of(&agent.host.blob(digest))).map_or(0, |m| m.len())
}

fn part_of(blob: &Path) -> PathBuf {
    blob.with_extension("part")
}

/// Takes a blob of the checked bundle in: part file, each chunk hashed as it comes, fsync, rename. `range` are the bytes that come; those
/// before it are in the part file and hashed again. Blocks until all have come or the stream ends. A damaged chunk ends it at once, and is
/// named; the chunks before it stay for the next time. Of a stream that ends early all stays that came.
pub fn put(agent: &Agent, digest: &Digest, range: Range<u64>, from: &mut impl Read) -> Result<()> {
    agent.holder()?;
    let mut from = Touching { agent, digest, from };
    let taken = take_in(agent, digest, range, &mut from);
    agent.arriving().end(digest);
    taken
}

/// A blob's bytes as they come: each that is read shows that the blob still comes.
struct Touching<'a, R> {
    agent: &'a Agent,
    digest: &'a Digest,
    from: &'a mut R,
}

impl<R: Read> Read for Touching<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.agent.arriving().touch(self.digest);
        Ok(read)
    }
}

fn take_in(agent: &Agent, digest: &Digest, range: Range<u64>, from: &mut impl Read) -> Result<()> {
    let entry = agent.blob_entry(digest)?;
    if entry.size_bytes != range.end {
        let text = format!(
            "the blob {digest} has {} bytes in the bundle, not {}",
            entry.size_bytes, range.end
        );
        return Err(AgentError::Unchecked(text));
    }
    let path = agent.host.blob(digest);
    let part = part_of(&path);
    files::make_private_dir(&agent.host.state("blobs"))?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&part)
        .map_err(io_at("opening", &part))?;
    agent.arriving().set(digest, 0);
    let ends = (CHUNK_BYTES..range.end).step_by(usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX));
    let mut at = 0;
    for (end, chunk) in ends.chain([range.end]).zip(&entry.chunks) {
        let mut hash = Sha256::new();
        let there = range.start.clamp(at, end);
        let is_there = copy(&mut file, None, there - at, &mut hash).map_err(io_at("reading", &part))?;
        let is_whole =
            is_there && copy(from, Some(&mut file), end - there, &mut hash).map_err(io_at("receiving", &part))?;
        if !is_whole || Digest::from_bytes(hash.finalize().into()) != *chunk {
            // What there is of a chunk whose end did not come may be right.
            if is_whole || !is_there {
                file.set_len(at).map_err(io_at("shortening", &part))?;
            }
            return Err(AgentError::WrongDigest {
                what: format!("what came as bytes {at} to {end} of the blob {digest}"),
                digest: *chunk,
            });
        }
        at = end;
        agent.arriving().set(digest, at);
    }
    file.set_len(at).map_err(io_at("shortening", &part))?;
    file.sync_data().map_err(io_at("writing to disk", &part))?;
    std::fs::rename(&part, &path).map_err(io_at("putting in place", &path))?;
    files::sync_parent(&path)
}

/// Hashes so many bytes, and writes them where there is somewhere to. Says whether there were so many.
fn copy(from: &mut impl Read, mut to: Option<&mut File>, bytes: u64, hash: &mut Sha256) -> std::io::Result<bool> {
    let (mut from, mut buffer) = (from.take(bytes), vec![0u8; 256 * 1024]);
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(from.limit() == 0);
        }
        hash.update(&buffer[..read]);
        if let Some(to) = &mut to {
            to.write_all(&buffer[..read])?;
        }
    }
}

/// Removes all blobs, before an undo: they take room on a full disk, and no undo needs them.
pub fn drop_all(agent: &Agent) -> Result<()> {
    remove_dir(agent, "blobs")
}

/// Removes what no step needs any more; when nothing is ours, landfall's whole state with the agent's own program.
pub fn tidy(agent: &Agent) -> Result<()> {
    let own = agent.ownership()?;
    if own.is_empty() {
        return remove_state(agent);
    }
    if own.open_run().is_none() && !keeps_blobs(&own) {
        remove_dir(agent, "blobs")?;
    } else {
        for digest in agent.consumed() {
            files::remove_file(&agent.host.blob(&digest))?;
        }
    }
    if own.entries.iter().any(|e| e.undo.is_lost()) {
        // A line that was lost may have named any of them.
        return Ok(());
    }
    let wanted: BTreeSet<String> = own
        .entries
        .iter()
        .filter_map(|e| match &e.undo {
            Undo::RestorePath {
                prior: Prior::File { content, .. },
                ..
            } => Some(content.hex()),
            _ => None,
        })
        .collect();
    let prior = agent.host.state("prior");
    for entry in std::fs::read_dir(&prior).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(|name| wanted.contains(name)) {
            files::remove_file(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_state(agent: &Agent) -> Result<()> {
    if agent.journal(|journal| Ok(journal.own().open_run().is_some()))? {
        // An undo that stays open elsewhere, or whose end could not be recorded: what it removed here must not come back without a journal.
        on_disk::put_undone(&agent.host)?;
    }
    agent.journal(|journal| journal.remove())?;
    for name in ["blobs", "prior", "logs", "bin"] {
        remove_dir(agent, name)?;
    }
    let state = agent.host.state("");
    match if_there(std::fs::remove_dir(&state)) {
        // Somebody else's file in our directory keeps it.
        Err(error) if error.kind() != std::io::ErrorKind::DirectoryNotEmpty => Err(io_at("removing", &state)(error)),
        _ => Ok(()),
    }
}

fn remove_dir(agent: &Agent, name: &str) -> Result<()> {
    let residue = crate::safe_delete::remove_tree(&agent.host.state(name));
    if residue.is_empty() {
        Ok(())
    } else {
        Err(AgentError::Residue(residue))
    }
}
