//! Writes a bundle: index first, blobs in order of their digest, so that the same inputs give the same bytes.

use crate::archive::{all_images, append, checksums, header, image_index};
use crate::minisign::SecretKey;
use crate::reader::{Bundle, Verified, held};
use crate::{BLOB_FOLDER, BundleError, CHECKSUMS_NAME, INDEX_NAME, OCI_LAYOUT, ROLE_NAME, SIGNATURE_NAME};
use landfall_core::bundle_index::{BlobEntry, BundleIndex, BundleRole, CHUNK_BYTES};
use landfall_core::name::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// What a signature says of itself. There is no time in it: the same index and key give the same bytes.
const TRUSTED_COMMENT: &str = "file:bundle.json";

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

    /// Writes the bundle to `output`, by way of a temporary name beside it, and signs it where a key is given. Fills in the index's list of
    /// blobs.
    pub fn write(
        self,
        mut index: BundleIndex,
        key: Option<&SecretKey>,
        output: &Path,
    ) -> Result<BundleIndex, BundleError> {
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
        let text = serde_json::to_vec_pretty(&index).map_err(|error| BundleError::Stream(error.into()))?;
        let signature = key.map(|key| key.sign(&text, TRUSTED_COMMENT).to_text());
        let blobs = |digest: &Digest| File::open(&self.blobs[digest]);
        write_whole(output, |part| {
            write_members(part, &index, &text, signature.as_deref(), None, &blobs)
        })?;
        Ok(index)
    }
}

/// Signs a bundle, or signs it anew, whatever its signature was. Every blob is checked on the way. `output` may be the bundle itself.
pub fn sign<S>(bundle: &Bundle<S>, key: &SecretKey, output: &Path) -> Result<(), BundleError> {
    let signature = key.sign(bundle.index_text(), TRUSTED_COMMENT).to_text();
    let blobs = |digest: &Digest| bundle.reader(digest).map_err(io::Error::other);
    write_whole(output, |part| {
        write_members(
            part,
            bundle.index(),
            bundle.index_text(),
            Some(&signature),
            bundle.role(),
            &blobs,
        )
    })
}

/// Writes the bundle anew with the blobs alone that nodes of one role need, under the signed index of the whole. Every blob is checked on
/// the way. `output` may be the bundle itself.
pub fn export(bundle: &Bundle<Verified>, role: BundleRole, output: &Path) -> Result<(), BundleError> {
    if let Some(other) = bundle.role().filter(|other| *other != role) {
        let path = bundle.path().to_owned();
        let lacking = held(bundle.index(), Some(role)).filter(|blob| !bundle.index().is_for(other, &blob.digest));
        return Err(BundleError::OtherRole {
            path,
            role: other,
            count: lacking.count(),
        });
    }
    let blobs = |digest: &Digest| bundle.reader(digest).map_err(io::Error::other);
    let (index, text) = (bundle.index(), bundle.index_text());
    write_whole(output, |part| {
        write_members(part, index, text, bundle.signature(), Some(role), &blobs)
    })
}

/// Writes a file by way of a temporary name beside it; it has its name only when it is whole and on disk.
pub(crate) fn write_whole(output: &Path, write: impl FnOnce(File) -> io::Result<()>) -> Result<(), BundleError> {
    let mut part = output.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = File::create(&part)
        .and_then(write)
        .and_then(|()| std::fs::rename(&part, output));
    written.map_err(|source| {
        // The half-written file is of no use; that it cannot be removed adds nothing to why it could not be written.
        let _ = std::fs::remove_file(&part);
        unwritable(output, source)
    })
}

pub(crate) fn unwritable(path: &Path, source: io::Error) -> BundleError {
    BundleError::Io {
        path: path.to_owned(),
        verb: "written",
        source,
    }
}

pub(crate) fn write_members<R: Read>(
    file: File,
    index: &BundleIndex,
    text: &[u8],
    signature: Option<&str>,
    role: Option<BundleRole>,
    blob: &dyn Fn(&Digest) -> io::Result<R>,
) -> io::Result<()> {
    let mut tar = tar::Builder::new(BufWriter::with_capacity(1024 * 1024, file));
    let images = image_index(all_images(index));
    let small = [(INDEX_NAME, text), ("oci-layout", OCI_LAYOUT), ("index.json", &images)];
    for (name, bytes) in small {
        append(&mut tar, name, bytes)?;
    }
    append(&mut tar, CHECKSUMS_NAME, checksums(&small).as_bytes())?;
    if let Some(signature) = signature {
        append(&mut tar, SIGNATURE_NAME, signature.as_bytes())?;
    }
    if let Some(role) = role {
        append(&mut tar, ROLE_NAME, format!("{role}\n").as_bytes())?;
    }
    for entry in held(index, role) {
        let name = format!("{BLOB_FOLDER}{}", entry.digest.hex());
        tar.append_data(&mut header(entry.size_bytes), name, blob(&entry.digest)?)?;
    }
    let mut file = tar.into_inner()?;
    file.flush()?;
    file.get_ref().sync_all()
}

pub(crate) fn unreadable(path: &Path, source: io::Error) -> BundleError {
    BundleError::Io {
        path: path.to_owned(),
        verb: "read",
        source,
    }
}

/// Reads a stream to its end; returns its digest, its size and the digests of its chunks.
pub fn chunk_digests(reader: &mut impl Read) -> io::Result<(Digest, u64, Vec<Digest>)> {
    let mut whole = Sha256::new();
    let (mut size, mut chunks, mut buffer) = (0, Vec::new(), Vec::new());
    loop {
        buffer.clear();
        reader.by_ref().take(CHUNK_BYTES).read_to_end(&mut buffer)?;
        if buffer.is_empty() {
            return Ok((Digest::from_bytes(whole.finalize().into()), size, chunks));
        }
        whole.update(&buffer);
        chunks.push(Digest::of(&buffer));
        size += buffer.len() as u64;
    }
}
