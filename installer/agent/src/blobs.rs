//! The blob store of the node: files named by their digest. A file with its final name was hashed on the way in.

use crate::agent::Agent;
use crate::error::{AgentError, Result, if_there, io_at};
use crate::files;
use landfall_core::action::{Prior, Undo};
use landfall_core::name::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;

/// Returns which of these blobs are there.
pub fn have(agent: &Agent, digests: &BTreeSet<Digest>) -> BTreeSet<Digest> {
    digests
        .iter()
        .filter(|d| agent.host.blob(d).is_file())
        .copied()
        .collect()
}

/// Takes a blob in: part file, hash on the way, fsync, rename. Blocks until `size_bytes` have come or the stream ends.
pub fn put(agent: &Agent, digest: &Digest, size_bytes: u64, from: &mut impl Read) -> Result<()> {
    agent.holder()?;
    let path = agent.host.blob(digest);
    let part = path.with_extension("part");
    files::make_private_dir(&agent.host.state("blobs"))?;
    let taken = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)
            .map_err(io_at("creating", &part))?;
        let mut hash = Sha256::new();
        let mut left = size_bytes;
        let mut buffer = vec![0u8; 256 * 1024];
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = from.read(&mut buffer[..want]).map_err(io_at("receiving", &part))?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            file.write_all(&buffer[..read]).map_err(io_at("writing", &part))?;
            left -= read as u64;
        }
        if left > 0 || Digest::from_bytes(hash.finalize().into()) != *digest {
            return Err(AgentError::WrongDigest {
                what: "a blob that was sent".to_owned(),
                digest: *digest,
            });
        }
        file.sync_data().map_err(io_at("writing to disk", &part))?;
        std::fs::rename(&part, &path).map_err(io_at("putting in place", &path))?;
        files::sync_parent(&path)
    })();
    if taken.is_err() {
        // A part whose digest was not checked is removed.
        let _ = std::fs::remove_file(&part);
    }
    taken
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
    if own.open_run().is_none() {
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
