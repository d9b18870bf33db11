//! What can be wrong with a bundle.

use crate::blob::DamagedChunk;
use landfall_core::bundle_index::{BundleRole, INDEX_VERSION};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::Digest;
use std::path::PathBuf;

/// Why a bundle cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Reading or writing failed.
    #[error("{path} cannot be {verb}")]
    Io {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no bundle.
    #[error("{path} is no bundle: {why}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A newer landfall built it.
    #[error("{path} has version {found} of the bundle's format, this landfall reads up to {INDEX_VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Version found.
        found: u32,
    },
    /// The index does not fit what is in the file.
    #[error("{path} does not hold what its index says: blob {digest} is {what}")]
    Blob {
        /// The file.
        path: PathBuf,
        /// The blob.
        digest: Digest,
        /// `missing`, or of another size.
        what: String,
    },
    /// Blobs are asked for that an exported bundle does not hold.
    #[error("{path} was exported for the role {role}, and {count} blobs that are asked for are for other nodes alone")]
    OtherRole {
        /// The file.
        path: PathBuf,
        /// The role that it was exported for.
        role: BundleRole,
        /// How many blobs it lacks.
        count: usize,
    },
    /// A part of a blob does not have its digest.
    #[error(transparent)]
    Chunk(#[from] DamagedChunk),
    /// A file that is to be a blob does not have its digest.
    #[error("{name} has digest {found}")]
    Digest {
        /// The file.
        name: String,
        /// Digest of the bytes that are there.
        found: Digest,
    },
    /// A blob in a node's store is not what it was when it came.
    #[error("the stored blob {digest} is damaged: it has the digest {found}")]
    StoredBlob {
        /// The blob.
        digest: Digest,
        /// Digest of the bytes that are there.
        found: Digest,
    },
    /// A stream failed.
    #[error("a blob could not be processed")]
    Stream(#[source] std::io::Error),
}

impl From<BundleError> for Diagnosis {
    fn from(error: BundleError) -> Self {
        let code = match error {
            BundleError::Io { .. } => Code::FileUnreadable,
            BundleError::Format { .. } | BundleError::Version { .. } | BundleError::Stream(_) => Code::BundleFormat,
            BundleError::Blob { .. } | BundleError::OtherRole { .. } => Code::BundleMissing,
            BundleError::Digest { .. } | BundleError::Chunk(_) | BundleError::StoredBlob { .. } => Code::BundleDigest,
        };
        let diagnosis = Diagnosis::new(code, "the bundle is not usable").because(&error);
        if matches!(error, BundleError::Version { .. }) {
            return diagnosis.next("use the landfall that built the bundle, or a newer one");
        }
        if matches!(error, BundleError::OtherRole { .. }) {
            return diagnosis.next("use the whole bundle");
        }
        diagnosis.next("copy the bundle again from where it was built")
    }
}
