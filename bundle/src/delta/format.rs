//! The delta's file: a tar in one form, as a bundle is.

use super::DeltaError;
use super::content::Form;
use crate::archive::{append, checksums, header};
use crate::blob::BlobReader;
use crate::reader::Scan;
use crate::writer::chunk_digests;
use crate::{CHECKSUMS_NAME, INDEX_NAME, SIGNATURE_NAME};
use landfall_core::bundle_index::{BlobEntry, BundleIndex};
use landfall_core::name::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Version of the format that this build writes; a larger one is refused.
pub(super) const VERSION: u32 = 1;
const DELTA_NAME: &str = "delta.json";
const PATCH_FOLDER: &str = "patches/";

/// What a delta says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeltaIndex {
    pub(super) version: u32,
    /// Version of the zstd library: another one may compress to other bytes.
    pub(super) zstd: String,
    /// Digest of the index of the bundle that it is applied to.
    pub(super) from: Digest,
    /// One for each blob that the old bundle lacks, in the order of their digests.
    pub(super) patches: Vec<Patch>,
}

/// How one blob is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Patch {
    /// The blob of the new bundle.
    pub(super) blob: Digest,
    /// How it is made of its content.
    pub(super) form: Form,
    /// Size of its content, in bytes.
    pub(super) content_bytes: u64,
    /// A blob of the old bundle, or one of the new bundle with a smaller digest, whose content the patch refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<Digest>,
    /// The patch itself, with the digests of its chunks.
    pub(super) patch: BlobEntry,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

/// An open delta. Its patches were not read yet.
pub(super) struct DeltaFile {
    path: PathBuf,
    file: Arc<File>,
    pub(super) index: DeltaIndex,
    /// The new bundle's index.
    pub(super) bundle: BundleIndex,
    pub(super) bundle_text: Vec<u8>,
    pub(super) signature: Option<String>,
    places: BTreeMap<Digest, u64>,
}

impl DeltaFile {
    /// Opens a delta and checks that it has the one form that its index allows, up to the content of patches.
    pub(super) fn open(path: &Path) -> Result<Self, DeltaError> {
        let mut scan = Scan::open(path)?;
        let text = scan.small(DELTA_NAME)?;
        let bundle_text = scan.small(INDEX_NAME)?;
        let listed = scan.small(CHECKSUMS_NAME)?;
        let malformed = |why: String| DeltaError::Format {
            path: path.to_owned(),
            why,
        };
        if listed != checksums(&[(DELTA_NAME, &text), (INDEX_NAME, &bundle_text)]).as_bytes() {
            let why = format!("{DELTA_NAME}, {INDEX_NAME} and {CHECKSUMS_NAME} do not fit together");
            return Err(malformed(why));
        }
        let syntax = |error: serde_json::Error| malformed(format!("{DELTA_NAME}: {error}"));
        let VersionOnly { version } = serde_json::from_slice(&text).map_err(syntax)?;
        if version > VERSION {
            let path = path.to_owned();
            return Err(DeltaError::Version { path, found: version });
        }
        let index: DeltaIndex = serde_json::from_slice(&text).map_err(syntax)?;
        let bundle = BundleIndex::parse(&bundle_text).map_err(|error| malformed(format!("{INDEX_NAME}: {error}")))?;
        index.check(&bundle).map_err(malformed)?;
        let signature = match scan.next_name()?.as_deref() {
            Some(SIGNATURE_NAME) => Some(scan.signature()?),
            _ => None,
        };
        let mut places = BTreeMap::new();
        for patch in &index.patches {
            let name = format!("{PATCH_FOLDER}{}", patch.blob.hex());
            places.insert(patch.blob, scan.member(&name, patch.patch.size_bytes)?);
        }
        scan.end()?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(scan.file),
            index,
            bundle,
            bundle_text,
            signature,
            places,
        })
    }

    /// Opens one patch. Every chunk is checked before a byte of it is handed on.
    pub(super) fn patch(&self, patch: &Patch) -> Option<BlobReader> {
        let start = self.places.get(&patch.blob)?;
        let (path, file) = (self.path.clone(), Arc::clone(&self.file));
        Some(BlobReader::new(path, file, *start, patch.patch.clone()))
    }

    /// Reads and hashes every patch.
    pub(super) fn check_patches(&self) -> io::Result<()> {
        let readers = self.index.patches.iter().filter_map(|patch| self.patch(patch));
        for mut reader in readers {
            io::copy(&mut reader, &mut io::sink())?;
        }
        Ok(())
    }
}

impl DeltaIndex {
    /// A patch belongs to a blob of the new bundle, and refers to none that comes later: making a blob then ends.
    fn check(&self, bundle: &BundleIndex) -> Result<(), String> {
        for pair in self.patches.windows(2) {
            if pair[0].blob >= pair[1].blob {
                return Err(format!("the patch of {} is listed at the wrong place", pair[1].blob));
            }
        }
        for patch in &self.patches {
            if bundle.blob(&patch.blob).is_none() {
                return Err(format!(
                    "it has a patch for {}, which is no blob of the new bundle",
                    patch.blob
                ));
            }
            let of_new = |digest: &Digest| self.patches.binary_search_by_key(digest, |p| p.blob).is_ok();
            if patch
                .reference
                .is_some_and(|digest| digest >= patch.blob && of_new(&digest))
            {
                return Err(format!("the patch of {} refers to a later blob", patch.blob));
            }
        }
        Ok(())
    }

    /// Returns the patch of a blob, if it has one.
    pub(super) fn of(&self, blob: &Digest) -> Option<&Patch> {
        let found = self.patches.binary_search_by_key(blob, |patch| patch.blob);
        found.ok().map(|at| &self.patches[at])
    }
}

/// Returns the entry of a patch that lies in memory.
pub(super) fn entry(bytes: &[u8]) -> io::Result<BlobEntry> {
    let (digest, size_bytes, chunks) = chunk_digests(&mut &*bytes)?;
    Ok(BlobEntry {
        digest,
        size_bytes,
        chunks,
    })
}

/// Writes a delta. `patch` opens the bytes of the patch of a blob.
pub(super) fn write<R: Read>(
    file: File,
    index: &DeltaIndex,
    bundle_text: &[u8],
    signature: Option<&str>,
    patch: &dyn Fn(&Digest) -> io::Result<R>,
) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(index)?;
    let mut tar = tar::Builder::new(BufWriter::with_capacity(1024 * 1024, file));
    let small = [(DELTA_NAME, &text[..]), (INDEX_NAME, bundle_text)];
    for (name, bytes) in small {
        append(&mut tar, name, bytes)?;
    }
    append(&mut tar, CHECKSUMS_NAME, checksums(&small).as_bytes())?;
    if let Some(signature) = signature {
        append(&mut tar, SIGNATURE_NAME, signature.as_bytes())?;
    }
    for entry in &index.patches {
        let name = format!("{PATCH_FOLDER}{}", entry.blob.hex());
        tar.append_data(&mut header(entry.patch.size_bytes), name, patch(&entry.blob)?)?;
    }
    let mut file = tar.into_inner()?;
    file.flush()?;
    file.get_ref().sync_all()
}
