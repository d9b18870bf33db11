//! Members of the tar archives that bundles, image archives and layers are.

use landfall_core::bundle_index::{BundleIndex, Image, Variant};
use landfall_core::name::Digest;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

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

/// The whole header of a member, in the only form that a bundle may have.
pub(crate) fn member_header(name: &str, size: u64) -> io::Result<tar::Header> {
    let mut header = header(size);
    header.set_path(name)?;
    header.set_cksum();
    Ok(header)
}

pub(crate) fn append(tar: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(bytes.len() as u64), name, bytes)
}

/// The OCI index of images of some architectures, with the names that containerd takes (its annotation comes before the standard one there).
pub(crate) fn image_index<'a>(images: impl Iterator<Item = (&'a str, &'a Image)>) -> Vec<u8> {
    let manifests: Vec<_> = images
        .map(|(architecture, image)| {
            let reference = image.reference.as_str();
            let tag = reference.rsplit_once(':').map_or("", |(_, tag)| tag);
            serde_json::json!({
                "mediaType": image.media_type,
                "digest": image.manifest.to_string(),
                "size": image.manifest_size_bytes,
                "platform": { "architecture": architecture, "os": "linux" },
                "annotations": { "io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag },
            })
        })
        .collect();
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
    });
    index.to_string().into_bytes()
}

/// The images of all architectures, with the architecture.
pub(crate) fn all_images<'a>(index: &'a BundleIndex) -> impl Iterator<Item = (&'a str, &'a Image)> {
    let of_one = |v: &'a Variant| {
        let Variant {
            architecture, images, ..
        } = v;
        images.iter().map(|image| (architecture.as_str(), image))
    };
    index.variants.iter().flat_map(of_one)
}

/// Digests of the files that are no blobs, in the form of `sha256sum`.
pub(crate) fn checksums(files: &[(&str, &[u8])]) -> String {
    let line = |(name, bytes): &(&str, &[u8])| format!("{}  {name}\n", Digest::of(bytes).hex());
    files.iter().map(line).collect()
}

/// Returns a reader of the tar inside a file, plain or compressed by gzip or zstd, by the first bytes of the file (RFC 1952, 2.3.1; RFC 8878, 3.1.1).
pub(crate) fn decompressed(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut magic = [0; 4];
    let known = File::open(path)?.read(&mut magic)?;
    let file = BufReader::new(File::open(path)?);
    Ok(match &magic[..known] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::with_buffer(file)?),
        _ => Box::new(file),
    })
}
