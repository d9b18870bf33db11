//! What turns one bundle into another, for those who carry a stick: each new blob as its difference to what the old bundle has.
//!
//! Differences are made between contents, not between compressed blobs, which share nothing. A blob comes back to the byte because
//! landfall's own compression is made again; one that was compressed elsewhere travels as it is.

pub(crate) mod content;
mod format;
mod similar;
#[cfg(test)]
mod tests;

use crate::reader::{Bundle, Verified};
use crate::trust::judge;
use crate::writer::{write_members, write_whole};
use crate::{BlobReader, BundleError};
use content::{Form, apply_patch, content, content_and_form, make_patch, pack};
use format::{DeltaFile, DeltaIndex, Patch, VERSION};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::Digest;
use landfall_core::trust::TrustOffer;
use similar::Sample;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

/// Why a delta cannot be made or applied.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// A file cannot be read or written, or is damaged.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The file is no delta.
    #[error("{path} is no delta of bundles: {why}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A newer landfall made it.
    #[error("{path} has version {found} of the delta's format, this landfall reads up to {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Version found.
        found: u32,
    },
    /// It is for another bundle.
    #[error("{path} is applied to the bundle with index {wanted}, and this one has index {found}")]
    OtherBundle {
        /// The delta.
        path: PathBuf,
        /// Digest of the index of the bundle that it is for.
        wanted: Digest,
        /// Digest of the index of the bundle that was named.
        found: Digest,
    },
    /// This program compresses by another version of zstd.
    #[error("{path} was made with zstd {made}, and this landfall has zstd {here}, which may compress to other bytes")]
    OtherZstd {
        /// The delta.
        path: PathBuf,
        /// Version that made it.
        made: String,
        /// Version of this program.
        here: String,
    },
    /// A blob of the new bundle cannot be had.
    #[error("{path} leads to no blob {digest}: it is in neither the old bundle nor the delta")]
    Missing {
        /// The delta.
        path: PathBuf,
        /// The blob.
        digest: Digest,
    },
    /// What a patch leads to is not the blob.
    #[error("{path} leads to other bytes than the blob {digest}: their digest is {found}")]
    OtherBytes {
        /// The delta.
        path: PathBuf,
        /// The blob.
        digest: Digest,
        /// Digest of what came out.
        found: Digest,
    },
}

impl From<DeltaError> for Diagnosis {
    fn from(error: DeltaError) -> Self {
        let (code, next) = match error {
            DeltaError::Bundle(error) => return error.into(),
            DeltaError::Version { .. } => (
                Code::BundleFormat,
                "use the landfall that made the delta, or a newer one",
            ),
            DeltaError::OtherBundle { .. } => (
                Code::BundleMissing,
                "`landfall bundle inspect` shows the digest of a bundle's index; make the delta from the bundle that is there",
            ),
            DeltaError::OtherZstd { .. } => (Code::BundleFormat, "apply it with the landfall that made it"),
            DeltaError::Format { .. } | DeltaError::Missing { .. } | DeltaError::OtherBytes { .. } => {
                (Code::BundleFormat, "copy the delta again, or make it again")
            }
        };
        Self::new(code, "the delta is not usable").because(&error).next(next)
    }
}

/// How large a delta is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaSize {
    /// Bytes of the new bundle's blobs that the old one lacks.
    pub new_bytes: u64,
    /// Bytes of the patches that lead to them.
    pub patch_bytes: u64,
}

/// Makes the delta from `old` to `new` and writes it to `output`. Blocks for minutes when many large programs changed. Holds two contents in
/// memory, and zstd's tables. `progress` takes a line for each blob.
pub fn make(
    old: &Bundle<Verified>,
    new: &Bundle<Verified>,
    output: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<DeltaSize, Diagnosis> {
    whole(old)?;
    whole(new)?;
    let blobs = new.index().blobs.iter().map(|blob| blob.digest);
    let absent: Vec<Digest> = blobs.filter(|digest| old.index().blob(digest).is_none()).collect();
    let mut candidates = Vec::new();
    if !absent.is_empty() {
        for blob in &old.index().blobs {
            let content = content(old.blob(&blob.digest)?).map_err(|error| old.blob_fault(error))?;
            candidates.push((blob.digest, Sample::of(&content)));
        }
    }
    let (mut patches, mut bytes) = (Vec::new(), BTreeMap::new());
    for digest in absent {
        let mut stored = Vec::new();
        let read = new.blob(&digest)?.read_to_end(&mut stored);
        read.map_err(|error| new.blob_fault(error))?;
        let (inner, form) = content_and_form(stored).map_err(BundleError::Stream)?;
        let sample = Sample::of(&inner);
        let reference = most_similar(&sample, &candidates);
        let refers_to = match reference {
            Some(digest) => {
                let of = if old.index().blob(&digest).is_some() { old } else { new };
                content(of.blob(&digest)?).map_err(|error| of.blob_fault(error))?
            }
            None => vec![],
        };
        let patch = make_patch(&inner, &refers_to).map_err(BundleError::Stream)?;
        progress(&format!("{digest}: {} bytes by {}", patch.len(), said(reference)));
        patches.push(Patch {
            blob: digest,
            form,
            content_bytes: inner.len() as u64,
            reference,
            patch: format::entry(&patch).map_err(BundleError::Stream)?,
        });
        bytes.insert(digest, patch);
        candidates.push((digest, sample));
    }
    let size = DeltaSize {
        new_bytes: patches
            .iter()
            .filter_map(|p| new.index().blob(&p.blob))
            .map(|b| b.size_bytes)
            .sum(),
        patch_bytes: patches.iter().map(|p| p.patch.size_bytes).sum(),
    };
    let index = DeltaIndex {
        version: VERSION,
        zstd: zstd::zstd_safe::version_string().to_owned(),
        from: old.index_digest(),
        patches,
    };
    write_whole(output, |file| {
        let patch = |digest: &Digest| Ok(bytes[digest].as_slice());
        format::write(file, &index, new.index_text(), new.signature(), &patch)
    })?;
    Ok(size)
}

/// A bundle that was exported for one role lacks blobs of its index.
fn whole<S>(bundle: &Bundle<S>) -> Result<(), BundleError> {
    let Some(role) = bundle.role() else { return Ok(()) };
    let blobs = bundle.index().blobs.iter();
    let count = blobs.filter(|blob| !bundle.index().is_for(role, &blob.digest)).count();
    let path = bundle.path().to_owned();
    Err(BundleError::OtherRole { path, role, count })
}

fn said(reference: Option<Digest>) -> String {
    reference.map_or_else(|| "itself".to_owned(), |digest| format!("its difference to {digest}"))
}

/// Returns the candidate that has most in common; none when all have nothing.
fn most_similar(sample: &Sample, candidates: &[(Digest, Sample)]) -> Option<Digest> {
    let scored = candidates.iter().map(|(digest, other)| (sample.shared(other), *digest));
    scored.filter(|(shared, _)| *shared > 0).max().map(|(_, digest)| digest)
}

/// Makes the new bundle of the old one and a delta, to the byte. The delta and the signature of the new bundle are checked before a byte is
/// written, each blob as it is made, and the whole bundle once more before it has its name.
pub fn apply(
    old: &Bundle<Verified>,
    delta: &Path,
    output: &Path,
    offer: &TrustOffer,
) -> Result<Bundle<Verified>, Diagnosis> {
    whole(old)?;
    let file = DeltaFile::open(delta)?;
    usable(&file, old, delta)?;
    judge(offer, None, &file.bundle_text, file.signature.as_deref())?;
    let damaged = |error: io::Error| old.blob_fault(error);
    file.check_patches().map_err(damaged)?;
    old.check_some_blobs(needed(&file, old).iter(), &mut |_, _| {})
        .map_err(|mut all| all.remove(0))?;
    let source = Source {
        old,
        delta,
        file: &file,
    };
    let mut refused = None;
    let written = write_whole(output, |part| {
        let blob = |digest: &Digest| source.blob(digest).map_err(io::Error::other);
        write_members(
            part,
            &file.bundle,
            &file.bundle_text,
            file.signature.as_deref(),
            None,
            &blob,
        )?;
        let mut part = output.as_os_str().to_owned();
        part.push(".part");
        let checked = Bundle::open(Path::new(&part)).and_then(|bundle| bundle.verify(offer));
        checked.map(drop).map_err(|diagnosis| {
            let text = diagnosis.what.clone();
            refused = Some(diagnosis);
            io::Error::other(text)
        })
    });
    match (refused, written) {
        (Some(diagnosis), _) => Err(diagnosis),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(())) => Bundle::open(output)?.verify(offer),
    }
}

fn usable(file: &DeltaFile, old: &Bundle<Verified>, delta: &Path) -> Result<(), DeltaError> {
    let path = delta.to_owned();
    let (wanted, found) = (file.index.from, old.index_digest());
    if wanted != found {
        return Err(DeltaError::OtherBundle { path, wanted, found });
    }
    let here = zstd::zstd_safe::version_string();
    let packs = file.index.patches.iter().any(|patch| patch.form != Form::Stored);
    if packs && file.index.zstd != here {
        return Err(DeltaError::OtherZstd {
            path,
            made: file.index.zstd.clone(),
            here: here.to_owned(),
        });
    }
    let absent = |digest: &&Digest| file.index.of(digest).is_none() && old.index().blob(digest).is_none();
    let blobs = file.bundle.blobs.iter().map(|blob| &blob.digest);
    let references = file.index.patches.iter().filter_map(|patch| patch.reference.as_ref());
    match blobs.chain(references).find(absent) {
        Some(digest) => Err(DeltaError::Missing { path, digest: *digest }),
        None => Ok(()),
    }
}

/// Blobs of the old bundle that the new one is made of.
fn needed(file: &DeltaFile, old: &Bundle<Verified>) -> BTreeSet<Digest> {
    let kept = file.bundle.blobs.iter().map(|blob| blob.digest);
    let references = file.index.patches.iter().filter_map(|patch| patch.reference);
    let all = kept.chain(references);
    all.filter(|digest| old.index().blob(digest).is_some()).collect()
}

/// Where the blobs of a new bundle come from.
struct Source<'a> {
    old: &'a Bundle<Verified>,
    delta: &'a Path,
    file: &'a DeltaFile,
}

impl Source<'_> {
    /// Opens a blob of the new bundle. One that has a patch is made in memory.
    fn blob(&self, digest: &Digest) -> Result<Either, Diagnosis> {
        match self.file.index.of(digest) {
            Some(patch) => Ok(Either::Made(Cursor::new(self.make(patch)?))),
            None => Ok(Either::Kept(self.old.blob(digest)?)),
        }
    }

    fn make(&self, patch: &Patch) -> Result<Vec<u8>, Diagnosis> {
        let missing = || DeltaError::Missing {
            path: self.delta.to_owned(),
            digest: patch.blob,
        };
        let refers_to = match &patch.reference {
            Some(digest) => content(self.blob(digest)?).map_err(|error| self.old.blob_fault(error))?,
            None => vec![],
        };
        let reader = self.file.patch(patch).ok_or_else(missing)?;
        let inner = apply_patch(reader, &refers_to, patch.content_bytes).map_err(BundleError::Stream)?;
        let made = pack(&inner, patch.form).map_err(BundleError::Stream)?;
        let found = Digest::of(&made);
        if found != patch.blob {
            let other = DeltaError::OtherBytes {
                path: self.delta.to_owned(),
                digest: patch.blob,
                found,
            };
            return Err(other.into());
        }
        Ok(made)
    }
}

/// A blob from the old bundle, or one that was made.
enum Either {
    Kept(BlobReader),
    Made(Cursor<Vec<u8>>),
}

impl Read for Either {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Kept(blob) => blob.read(buffer),
            Self::Made(bytes) => bytes.read(buffer),
        }
    }
}
