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

/// Writes an OCI image archive of `images` to `out`; their blobs lie in `blobs` by hex digest. Each blob is written once.
pub fn write_oci_archive(images: &[Image], blobs: &Path, out: &mut impl Write) -> Result<(), BundleError> {
    let mut tar = tar::Builder::new(out);
    append(&mut tar, "oci-layout", OCI_LAYOUT).map_err(BundleError::Stream)?;
    append(
        &mut tar,
        "index.json",
        &image_index(images.iter().map(|image| (NODE_ARCHITECTURE, image))),
    )
    .map_err(BundleError::Stream)?;
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
        tar.append_data(&mut header(size), name, file)
            .map_err(BundleError::Stream)?;
    }
    tar.finish().map_err(BundleError::Stream)
}

/// Decompresses a program's blob into `to` and returns the digest of what was written.
pub fn decompress_binary(from: impl Read, to: &mut impl Write) -> Result<Digest, BundleError> {
    let mut decoder = zstd::stream::read::Decoder::new(from).map_err(BundleError::Stream)?;
    let mut hashed = Hashed::new(to);
    io::copy(&mut decoder, &mut hashed).map_err(BundleError::Stream)?;
    Ok(hashed.digest())
}
