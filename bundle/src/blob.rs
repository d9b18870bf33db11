//! Reads blobs out of a bundle, chunk by chunk: no byte is handed on before its chunk has the digest that the index says.

use landfall_core::bundle_index::{BlobEntry, CHUNK_BYTES};
use landfall_core::name::Digest;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// A chunk of a blob does not have its digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: bytes {from} to {to} of blobs/sha256/{} are damaged: their digest is {found}", path.display(), blob.hex())]
pub struct DamagedChunk {
    /// The bundle.
    pub path: PathBuf,
    /// The blob.
    pub blob: Digest,
    /// First byte of the chunk, counted from the blob's beginning.
    pub from: u64,
    /// The byte behind its last one.
    pub to: u64,
    /// Digest of the bytes that are there.
    pub found: Digest,
}

/// Reads one blob; independent of every other reader. Holds one chunk in memory, 4 MiB at most.
pub struct BlobReader {
    path: PathBuf,
    file: Arc<File>,
    /// Place of the blob in the file.
    start: u64,
    entry: BlobEntry,
    /// Chunks that were read, and how much of the last one was handed on.
    next: usize,
    chunk: Vec<u8>,
    given: usize,
}

impl BlobReader {
    pub(crate) fn new(path: PathBuf, file: Arc<File>, start: u64, entry: BlobEntry) -> Self {
        Self {
            path,
            file,
            start,
            entry,
            next: 0,
            chunk: Vec::new(),
            given: 0,
        }
    }

    /// Reads and checks the next chunk. Returns its size in bytes; `None` behind the last one. Blocks on disk. A damaged chunk is an error
    /// with a [`DamagedChunk`] inside; the next call goes on behind it.
    pub(crate) fn next_chunk(&mut self) -> io::Result<Option<u64>> {
        let Some(wanted) = self.entry.chunks.get(self.next) else {
            return Ok(None);
        };
        let from = self.next as u64 * CHUNK_BYTES;
        let to = (from + CHUNK_BYTES).min(self.entry.size_bytes);
        self.next += 1;
        self.given = 0;
        // 4 MiB at most.
        self.chunk.resize(usize::try_from(to - from).unwrap_or(usize::MAX), 0);
        let read = self.file.read_exact_at(&mut self.chunk, self.start + from);
        let found = Digest::of(&self.chunk);
        if read.is_ok() && found == *wanted {
            return Ok(Some(to - from));
        }
        self.given = self.chunk.len();
        read?;
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            DamagedChunk {
                path: self.path.clone(),
                blob: self.entry.digest,
                from,
                to,
                found,
            },
        ))
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.chunk.len() && self.next_chunk()?.is_none() {
            return Ok(0);
        }
        let rest = &self.chunk[self.given..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        Ok(count)
    }
}
