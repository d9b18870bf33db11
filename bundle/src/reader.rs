//! Opens a bundle on the operator: finds every blob by the tar's own headers, without reading the blobs.

use crate::{BLOB_FOLDER, BundleError, CHECKSUMS_NAME, INDEX_NAME};
use landfall_core::bundle_index::{BundleIndex, INDEX_VERSION};
use landfall_core::explain::Diagnosis;
use landfall_core::name::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An index is some tens of kilobytes; anything above this is no bundle of ours.
const MAX_INDEX_BYTES: u64 = 64 * 1024 * 1024;

/// An open bundle. Blobs can be read from many threads at once.
pub struct BundleFile {
    path: PathBuf,
    file: Arc<File>,
    index: BundleIndex,
    index_digest: Digest,
    places: BTreeMap<Digest, (u64, u64)>,
}

/// Reads one blob; independent of every other reader.
pub struct BlobReader {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..want], self.at)?;
        if read == 0 && want > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the bundle is shorter than its headers say",
            ));
        }
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

impl BundleFile {
    /// Opens a bundle and checks that its index is understood and every blob of it is there with its size.
    pub fn open(path: &Path) -> Result<Self, Diagnosis> {
        Ok(Self::open_file(path)?)
    }

    fn open_file(path: &Path) -> Result<Self, BundleError> {
        let unreadable = |source| BundleError::Io {
            path: path.to_owned(),
            verb: "read",
            source,
        };
        let malformed = |why: String| BundleError::Format {
            path: path.to_owned(),
            why,
        };
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let mut places = BTreeMap::new();
        let mut small = BTreeMap::new();
        let mut archive = tar::Archive::new(&file);
        for entry in archive.entries_with_seek().map_err(|e| malformed(e.to_string()))? {
            let mut entry = entry.map_err(|e| malformed(e.to_string()))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let (at, size) = (entry.raw_file_position(), entry.size());
            if at.checked_add(size).is_none_or(|end| end > length) {
                return Err(malformed(format!("it ends within {name}")));
            }
            if let Some(hex) = name.strip_prefix(BLOB_FOLDER) {
                let digest = format!("sha256:{hex}")
                    .parse()
                    .map_err(|_| malformed(format!("{name} is no blob name")))?;
                places.insert(digest, (at, size));
            } else if size > MAX_INDEX_BYTES {
                return Err(malformed(format!("{name} has {size} bytes")));
            } else {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(|e| malformed(e.to_string()))?;
                small.insert(name, bytes);
            }
        }
        check_checksums(&small).map_err(malformed)?;
        let text = small
            .remove(INDEX_NAME)
            .ok_or_else(|| malformed(format!("it holds no {INDEX_NAME}")))?;
        let version: VersionOnly = serde_json::from_slice(&text).map_err(|e| malformed(e.to_string()))?;
        if version.version > INDEX_VERSION {
            return Err(BundleError::Version {
                path: path.to_owned(),
                found: version.version,
            });
        }
        let parsed: BundleIndex = serde_json::from_slice(&text).map_err(|e| malformed(e.to_string()))?;
        for blob in &parsed.blobs {
            match places.get(&blob.digest) {
                Some((_, size)) if *size == blob.size_bytes => {}
                Some((_, size)) => {
                    let what = format!("of {size} bytes, the index says {}", blob.size_bytes);
                    return Err(BundleError::Blob {
                        path: path.to_owned(),
                        digest: blob.digest,
                        what,
                    });
                }
                None => {
                    return Err(BundleError::Blob {
                        path: path.to_owned(),
                        digest: blob.digest,
                        what: "missing".to_owned(),
                    });
                }
            }
        }
        let index_digest = Digest::of(&text);
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            index: parsed,
            index_digest,
            places,
        })
    }

    /// Returns the file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what the bundle contains.
    pub fn index(&self) -> &BundleIndex {
        &self.index
    }

    /// Returns the digest of the index, which names the bundle's whole content.
    pub fn index_digest(&self) -> Digest {
        self.index_digest
    }

    /// Opens one blob. The reader does not check the digest: the node does, and [`BundleFile::verify`].
    pub fn blob(&self, digest: &Digest) -> Result<BlobReader, Diagnosis> {
        let found = self.places.get(digest);
        let (at, left) = *found.ok_or_else(|| BundleError::Blob {
            path: self.path.clone(),
            digest: *digest,
            what: "missing".to_owned(),
        })?;
        Ok(BlobReader {
            file: Arc::clone(&self.file),
            at,
            left,
        })
    }

    /// Reads and hashes every blob; names each that does not have its digest. Blocks on disk; says `(done, total)` in bytes.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Vec<Diagnosis>> {
        self.verify_blobs(self.places.keys(), progress)
    }

    /// Like [`BundleFile::verify`], for some of the blobs.
    pub fn verify_blobs<'a>(
        &self,
        digests: impl Iterator<Item = &'a Digest> + Clone,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Vec<Diagnosis>> {
        let size = |digest| self.places.get(digest).map_or(0, |(_, size)| *size);
        let total = digests.clone().map(size).sum();
        let mut done = 0;
        let mut faults = Vec::new();
        let mut buffer = vec![0; 1024 * 1024];
        for digest in digests {
            let name = format!("{BLOB_FOLDER}{}", digest.hex());
            let mut reader = match self.blob(digest) {
                Ok(reader) => reader,
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            };
            let mut hash = Sha256::new();
            loop {
                match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => {
                        hash.update(&buffer[..read]);
                        done += read as u64;
                        progress(done, total);
                    }
                    Err(source) => {
                        faults.push(
                            BundleError::Io {
                                path: self.path.clone(),
                                verb: "read",
                                source,
                            }
                            .into(),
                        );
                        break;
                    }
                }
            }
            let found = Digest::from_bytes(hash.finalize().into());
            if found != *digest {
                faults.push(BundleError::Digest { name, found }.into());
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

/// Compares the files that are no blobs with the digests that were written with them.
fn check_checksums(small: &BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    let checksums = small
        .get(CHECKSUMS_NAME)
        .ok_or_else(|| format!("it holds no {CHECKSUMS_NAME}"))?;
    for line in String::from_utf8_lossy(checksums).lines() {
        let (hex, name) = line.split_once("  ").ok_or("its checksums cannot be read")?;
        let bytes = small.get(name).ok_or_else(|| format!("it holds no {name}"))?;
        let found = Digest::of(bytes).hex();
        if found != hex {
            return Err(format!("{name} has digest {found}, {hex} was written"));
        }
    }
    Ok(())
}

#[derive(serde::Deserialize)]
struct VersionOnly {
    version: u32,
}
