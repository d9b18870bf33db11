//! Members of the tar archives that bundles and image archives are.

use landfall_core::bundle_index::Image;
use std::io::{self, Write};

/// A header that depends on nothing but the size.
pub(crate) fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

pub(crate) fn append(tar: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(bytes.len() as u64), name, bytes)
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
