//! The node's side: an archive that containerd imports, and programs out of their compressed blobs.

use crate::archive::{append, header, image_index};
use crate::hashed::Hashed;
use crate::{BLOB_FOLDER, BundleError, OCI_LAYOUT};
use landfall_core::bundle_index::{Image, NODE_ARCHITECTURE};
use landfall_core::name::Digest;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Writes an OCI image archive of `images` to `out`; their blobs lie in `blobs` by hex digest. Each blob is written once, and hashed on the way. Where one
/// is not what its digest says, or anything fails, the archive is broken off within its last entry: no reader can take it for a whole one.
pub fn write_oci_archive(images: &[Image], blobs: &Path, out: &mut impl Write) -> Result<(), BundleError> {
    let mut tar = tar::Builder::new(Unfinished {
        out,
        written: 0,
        is_broken: false,
    });
    let written = write_entries(&mut tar, images, blobs);
    if written.is_err() {
        tar.get_mut().break_off();
        return written;
    }
    tar.finish().map_err(BundleError::Stream)
}

fn write_entries(tar: &mut tar::Builder<impl Write>, images: &[Image], blobs: &Path) -> Result<(), BundleError> {
    append(tar, "oci-layout", OCI_LAYOUT).map_err(BundleError::Stream)?;
    let index = image_index(images.iter().map(|image| (NODE_ARCHITECTURE, image)));
    append(tar, "index.json", &index).map_err(BundleError::Stream)?;
    let wanted: BTreeSet<Digest> = images.iter().flat_map(|i| i.blobs.iter().copied()).collect();
    for digest in wanted {
        let path = blobs.join(digest.hex());
        let unreadable = |source| BundleError::Io {
            path: path.clone(),
            verb: "read",
            source,
        };
        let file = File::open(&path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let name = format!("{BLOB_FOLDER}{}", digest.hex());
        let mut blob = Checked::new(file, digest);
        let appended = tar.append_data(&mut header(size), name, &mut blob);
        if let Some(found) = blob.damaged {
            return Err(BundleError::StoredBlob { digest, found });
        }
        appended.map_err(BundleError::Stream)?;
    }
    Ok(())
}

/// Bytes of a tar archive's blocks.
const BLOCK: u64 = 512;

/// Takes an archive that may have to be broken off. Its writer ends an archive whenever it is dropped, and readers take one that stops between two
/// blocks for a whole one.
struct Unfinished<W> {
    out: W,
    written: u64,
    is_broken: bool,
}

impl<W: Write> Unfinished<W> {
    /// Takes nothing more, and lets what was written end within a block.
    fn break_off(&mut self) {
        self.is_broken = true;
        if self.written.is_multiple_of(BLOCK) {
            // A reader that is gone has no whole archive either.
            let _ = self.out.write_all(&[0xff]).and_then(|()| self.out.flush());
        }
    }
}

impl<W: Write> Write for Unfinished<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_broken {
            return Err(io::Error::other("the archive was broken off"));
        }
        let written = self.out.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Bytes of a blob that are read at once, and held back until it is known that they are not the last, or that the blob is whole.
const HELD_BACK: usize = 64 * 1024;

/// Reads a blob, of which the last bytes come only when all together have its digest.
struct Checked<R> {
    inner: Hashed<R>,
    digest: Digest,
    /// What was read and not given out yet; all of it has been hashed.
    held: Vec<u8>,
    given: usize,
    /// What was read behind `held`.
    ahead: Vec<u8>,
    /// The digest that was found, when it is another one.
    damaged: Option<Digest>,
}

impl<R: Read> Checked<R> {
    fn new(inner: R, digest: Digest) -> Self {
        Self {
            inner: Hashed::new(inner),
            digest,
            held: Vec::new(),
            given: 0,
            ahead: Vec::new(),
            damaged: None,
        }
    }

    fn read_ahead(&mut self) -> io::Result<()> {
        self.ahead.clear();
        self.inner
            .by_ref()
            .take(HELD_BACK as u64)
            .read_to_end(&mut self.ahead)?;
        Ok(())
    }

    /// Reads on when everything was given out.
    fn fill(&mut self) -> io::Result<()> {
        if self.given < self.held.len() {
            return Ok(());
        }
        if self.ahead.is_empty() {
            self.read_ahead()?;
        }
        self.given = 0;
        std::mem::swap(&mut self.held, &mut self.ahead);
        self.read_ahead()?;
        if self.ahead.is_empty() {
            let found = self.inner.digest();
            if found != self.digest {
                self.held.clear();
                self.damaged = Some(found);
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it has another digest"));
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let read = buffer.len().min(self.held.len() - self.given);
        buffer[..read].copy_from_slice(&self.held[self.given..self.given + read]);
        self.given += read;
        Ok(read)
    }
}

/// Decompresses a program's blob into `to` and returns the digest of what was written.
pub fn decompress_binary(from: impl Read, to: &mut impl Write) -> Result<Digest, BundleError> {
    let mut decoder = zstd::stream::read::Decoder::new(from).map_err(BundleError::Stream)?;
    let mut hashed = Hashed::new(to);
    io::copy(&mut decoder, &mut hashed).map_err(BundleError::Stream)?;
    Ok(hashed.digest())
}
