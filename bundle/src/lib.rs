//! The bundle file: one uncompressed tar that holds an OCI image layout, programs as zstd blobs, and an index of both.
//!
//! [`BundleFile`] opens one on the operator, [`BundleWriter`] makes one; [`write_oci_archive`] and [`decompress_binary`] are the
//! node's side. [`source`] alone starts programs; the rest opens no socket and starts nothing.

#![forbid(unsafe_code)]

mod archive;
mod error;
mod node;
mod reader;
pub mod source;
mod writer;

pub use error::BundleError;
pub use node::{decompress_binary, write_oci_archive};
pub use reader::{BlobReader, BundleFile};
pub use writer::{BundleWriter, chunk_digests};

/// Size of the pieces whose digests the index records, in bytes.
pub const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// Name of the index inside the file.
pub(crate) const INDEX_NAME: &str = "bundle.json";
/// Digests of the files before it that are no blobs, in the form of `sha256sum`: a flipped byte in them is noticed too.
pub(crate) const CHECKSUMS_NAME: &str = "checksums";
/// Folder of blobs inside the file.
pub(crate) const BLOB_FOLDER: &str = "blobs/sha256/";
/// Content of `oci-layout` (OCI image-spec 1.1, image-layout.md).
pub(crate) const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

#[cfg(test)]
mod tests;
