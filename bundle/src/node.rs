//! The node's side: an archive that containerd imports, and programs out of their compressed blobs.

use crate::writer::{append, header};
use crate::{BLOB_FOLDER, BundleError, OCI_LAYOUT};
use landfall_core::bundle_index::Image;
use landfall_core::name::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Writes an OCI image archive of `images` to `out`; their blobs lie in `blobs` by hex digest. Each blob is written once.
pub fn write_oci_archive(images: &[Image], blobs: &Path, out: &mut impl Write) -> Result<(), BundleError> {
    let mut tar = tar::Builder::new(out);
    append(&mut tar, "oci-layout", OCI_LAYOUT).map_err(BundleError::Stream)?;
    append(&mut tar, "index.json", &image_index(images)).map_err(BundleError::Stream)?;
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

/// The OCI index of images, with the names that containerd takes (its annotation comes before the standard one there).
pub(crate) fn image_index(images: &[Image]) -> Vec<u8> {
    let manifests: Vec<_> = images
        .iter()
        .map(|image| {
            let reference = image.reference.as_str();
            let tag = reference.rsplit_once(':').map_or("", |(_, tag)| tag);
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": image.manifest.to_string(),
                "size": image.manifest_size_bytes,
                "platform": { "architecture": "amd64", "os": "linux" },
                "annotations": { "io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag },
            })
        })
        .collect();
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
    });
    index.to_string().into_bytes()
}

/// Decompresses a program's blob into `to` and returns the digest of what was written.
pub fn decompress_binary(from: impl Read, to: &mut impl Write) -> Result<Digest, BundleError> {
    let mut decoder = zstd::stream::read::Decoder::new(from).map_err(BundleError::Stream)?;
    let mut hashed = Hashed {
        to,
        hash: Sha256::new(),
    };
    io::copy(&mut decoder, &mut hashed).map_err(BundleError::Stream)?;
    Ok(Digest::from_bytes(hashed.hash.finalize().into()))
}

struct Hashed<'a, W> {
    to: &'a mut W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
