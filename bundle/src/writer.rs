//! Writes a bundle: index first, blobs in order of their digest, so that the same inputs give the same bytes.

use crate::archive::{append, header, image_index};
use crate::{BLOB_FOLDER, BundleError, CHECKSUMS_NAME, CHUNK_BYTES, INDEX_NAME, OCI_LAYOUT};
use landfall_core::bundle_index::{BlobEntry, BundleIndex};
use landfall_core::name::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Collects blobs by path and writes the file at the end.
#[derive(Default)]
pub struct BundleWriter {
    blobs: BTreeMap<Digest, PathBuf>,
}

impl BundleWriter {
    /// Adds a blob that lies at `path`; it is read when the bundle is written.
    pub fn add_blob(&mut self, digest: Digest, path: PathBuf) {
        self.blobs.insert(digest, path);
    }

    /// Writes the bundle to `output`, by way of a temporary name beside it. Fills in the index's list of blobs.
    pub fn write(self, mut index: BundleIndex, output: &Path) -> Result<BundleIndex, BundleError> {
        index.blobs = Vec::new();
        for (digest, path) in &self.blobs {
            let mut file = File::open(path).map_err(|source| unreadable(path, source))?;
            let (found, size_bytes, chunks) = chunk_digests(&mut file).map_err(|source| unreadable(path, source))?;
            if found != *digest {
                return Err(BundleError::Digest {
                    name: path.display().to_string(),
                    found,
                });
            }
            index.blobs.push(BlobEntry {
                digest: *digest,
                size_bytes,
                chunks,
            });
        }
        let mut part = output.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let written = self
            .write_part(&index, &part)
            .and_then(|()| std::fs::rename(&part, output));
        if let Err(source) = written {
            // The half-written file is of no use; that it cannot be removed adds nothing to why it could not be written.
            let _ = std::fs::remove_file(&part);
            return Err(BundleError::Io {
                path: output.to_owned(),
                verb: "written",
                source,
            });
        }
        Ok(index)
    }

    fn write_part(&self, index: &BundleIndex, part: &Path) -> io::Result<()> {
        let mut tar = tar::Builder::new(BufWriter::with_capacity(1024 * 1024, File::create(part)?));
        let mut checksums = String::new();
        for (name, bytes) in [
            (INDEX_NAME, serde_json::to_vec_pretty(index)?),
            ("oci-layout", OCI_LAYOUT.to_vec()),
            ("index.json", image_index(&index.images)),
        ] {
            checksums += &format!("{}  {name}\n", Digest::of(&bytes).hex());
            append(&mut tar, name, &bytes)?;
        }
        append(&mut tar, CHECKSUMS_NAME, checksums.as_bytes())?;
        for (digest, path) in &self.blobs {
            let file = File::open(path)?;
            let mut header = header(file.metadata()?.len());
            tar.append_data(&mut header, format!("{BLOB_FOLDER}{}", digest.hex()), file)?;
        }
        let mut file = tar.into_inner()?;
        file.flush()?;
        file.get_ref().sync_all()
    }
}

fn unreadable(path: &Path, source: io::Error) -> BundleError {
    BundleError::Io {
        path: path.to_owned(),
        verb: "read",
        source,
    }
}

/// Reads a stream to its end; returns its digest, its size and the digests of its chunks.
pub fn chunk_digests(reader: &mut impl Read) -> io::Result<(Digest, u64, Vec<Digest>)> {
    let mut whole = Sha256::new();
    let (mut size, mut chunks, mut buffer) = (0, Vec::new(), Vec::with_capacity(CHUNK_BYTES));
    loop {
        buffer.clear();
        reader.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut buffer)?;
        if buffer.is_empty() {
            return Ok((Digest::from_bytes(whole.finalize().into()), size, chunks));
        }
        whole.update(&buffer);
        chunks.push(Digest::of(&buffer));
        size += buffer.len() as u64;
    }
}
