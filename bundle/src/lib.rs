//! The bundle file: one uncompressed tar that holds an OCI image layout, programs as zstd blobs, and an index of both.
//!
//! [`Bundle`] opens one on the operator, [`BundleWriter`] makes one; [`write_oci_archive`] and [`decompress_binary`] are the
//! node's side. Two recipes make what is inside: [`source`] starts compilers, [`upstream`] opens connections and starts
//! programs that verify signatures; the rest does neither.

#![forbid(unsafe_code)]

mod archive;
mod blob;
pub mod delta;
mod diff;
mod error;
pub mod hashed;
pub mod minisign;
mod node;
pub mod own_parts;
pub mod parts;
mod reader;
pub mod sbom;
pub mod source;
pub mod trust;
pub mod upstream;
mod writer;

pub use blob::{BlobReader, DamagedChunk};
pub use diff::{Change, Difference, EntryKind, diff};
pub use error::BundleError;
pub use node::{decompress_binary, write_oci_archive};
pub use reader::{Bundle, Unverified, Verified};
pub use source::image_archive::{Additions, ImageArchive};
pub use writer::{BundleWriter, chunk_digests, export, sign};

/// zstd level of layers and programs: 3 is its default; 19 saves 12 % more bytes for twenty times the time (zstd's own tables).
pub(crate) const ZSTD_LEVEL: i32 = 3;
/// Name of the index inside the file.
pub(crate) const INDEX_NAME: &str = "bundle.json";
/// Digests of the files before it that are no blobs, in the form of `sha256sum`: a flipped byte in them is noticed too.
pub(crate) const CHECKSUMS_NAME: &str = "checksums";
/// Signature of the index, in minisign's form.
pub(crate) const SIGNATURE_NAME: &str = "bundle.json.minisig";
/// Says for which role alone the file has blobs. It is bound by the blobs that then must be there, not by the signature.
pub(crate) const ROLE_NAME: &str = "role";
/// Folder of blobs inside the file.
pub(crate) const BLOB_FOLDER: &str = "blobs/sha256/";
/// Content of `oci-layout` (OCI image-spec 1.1, image-layout.md).
pub(crate) const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
