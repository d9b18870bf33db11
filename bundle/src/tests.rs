use crate::{BundleFile, BundleWriter, chunk_digests, decompress_binary, write_oci_archive};
use landfall_core::bundle_index::{BundleIndex, INDEX_VERSION, Image};
use landfall_core::explain::Code;
use landfall_core::name::Digest;
use std::io::Read;
use std::path::{Path, PathBuf};

fn index(images: Vec<Image>) -> BundleIndex {
    BundleIndex {
        version: INDEX_VERSION,
        recipe: "source".into(),
        architecture: "amd64".into(),
        kubernetes_version: "v1.37.2".into(),
        image_repository: "registry.landfall.internal".into(),
        binaries: vec![],
        images,
        components: vec![],
        packages: vec![],
        blobs: vec![],
    }
}

fn bundle(directory: &Path, contents: &[&[u8]]) -> PathBuf {
    let mut writer = BundleWriter::default();
    for (n, bytes) in contents.iter().enumerate() {
        let path = directory.join(format!("blob-{n}"));
        std::fs::write(&path, bytes).unwrap();
        writer.add_blob(Digest::of(bytes), path);
    }
    let output = directory.join("test.bundle");
    writer.write(index(vec![]), &output).unwrap();
    output
}

#[test]
fn blobs_come_back_as_they_went_in() {
    let directory = tempfile::tempdir().unwrap();
    let path = bundle(directory.path(), &[b"one", b"two two", &[7; 9_000_000]]);
    let opened = BundleFile::open(&path).unwrap();
    assert_eq!(opened.index().blobs.len(), 3);
    assert_eq!(
        opened.index().blob(&Digest::of(&[7; 9_000_000])).unwrap().chunks.len(),
        3
    );
    let mut text = String::new();
    opened
        .blob(&Digest::of(b"two two"))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "two two");
    let mut last = (0, 0);
    opened.verify(&mut |done, total| last = (done, total)).unwrap();
    assert_eq!(last, (9_000_010, 9_000_010));
    assert!(opened.blob(&Digest::of(b"absent")).is_err());
}

#[test]
fn a_flipped_byte_is_named_by_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = bundle(directory.path(), &[b"aaaaaaaaaaaaaaaaaaaa", b"bbbbbbbbbbbbbbbbbbbb"]);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(20).position(|w| w == b"bbbbbbbbbbbbbbbbbbbb").unwrap();
    bytes[at + 3] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let faults = BundleFile::open(&path).unwrap().verify(&mut |_, _| {}).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].code, Code::BundleDigest);
    assert!(faults[0].causes[0].contains(&Digest::of(b"bbbbbbbbbbbbbbbbbbbb").hex()));
}

#[test]
fn a_flipped_byte_in_any_file_that_is_no_blob_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = bundle(directory.path(), &[b"some blob"]);
    let whole = std::fs::read(&path).unwrap();
    for text in ["\"recipe\"", "imageLayoutVersion", "schemaVersion", "  oci-layout"] {
        let at = whole.windows(text.len()).position(|w| w == text.as_bytes());
        let mut bytes = whole.clone();
        // Another letter: what is there can still be parsed.
        bytes[at.unwrap() + 3] ^= 0x20;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(
            BundleFile::open(&path).err().unwrap().code,
            Code::BundleFormat,
            "{text}"
        );
    }
}

#[test]
fn every_truncation_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = bundle(directory.path(), &[b"some blob"]);
    let bytes = std::fs::read(&path).unwrap();
    // A tar ends in two empty blocks; what is before them must all be there.
    for cut in (0..bytes.len() - 1024 - 512).step_by(97) {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        assert!(BundleFile::open(&path).is_err(), "cut at {cut} of {}", bytes.len());
    }
}

#[test]
fn garbage_and_newer_formats_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    std::fs::write(&path, b"no tar at all").unwrap();
    assert_eq!(BundleFile::open(&path).err().unwrap().code, Code::BundleFormat);
    let newer = BundleIndex {
        version: INDEX_VERSION + 1,
        ..index(vec![])
    };
    BundleWriter::default().write(newer, &path).unwrap();
    let error = BundleFile::open(&path).err().unwrap();
    assert_eq!(error.code, Code::BundleFormat);
    assert!(
        error.causes[0].contains("has version 2 of the bundle's format"),
        "{error:?}"
    );
    assert_eq!(error.next, ["use the landfall that built the bundle, or a newer one"]);
    assert_eq!(
        BundleFile::open(&directory.path().join("absent")).err().unwrap().code,
        Code::FileUnreadable
    );
}

#[test]
fn same_inputs_give_same_bytes() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let contents: [&[u8]; 2] = [b"x", b"y"];
    let first = std::fs::read(bundle(a.path(), &contents)).unwrap();
    assert!(first == std::fs::read(bundle(b.path(), &contents)).unwrap());
}

#[test]
fn an_archive_for_containerd_names_its_images_and_holds_each_blob_once() {
    let directory = tempfile::tempdir().unwrap();
    let layer = b"layer";
    std::fs::write(directory.path().join(Digest::of(layer).hex()), layer).unwrap();
    let image = |name: &str| Image {
        reference: name.parse().unwrap(),
        manifest: Digest::of(layer),
        manifest_size_bytes: 5,
        blobs: vec![Digest::of(layer)],
        roles: Default::default(),
    };
    let mut out = Vec::new();
    write_oci_archive(&[image("r/a:1"), image("r/b:2")], directory.path(), &mut out).unwrap();
    let mut names = Vec::new();
    for entry in tar::Archive::new(&out[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        if name == "index.json" {
            let index: serde_json::Value = serde_json::from_reader(&mut entry).unwrap();
            assert_eq!(
                index["manifests"][1]["annotations"]["io.containerd.image.name"],
                "r/b:2"
            );
        }
        names.push(name);
    }
    assert_eq!(names.len(), 3);
}

#[test]
fn programs_come_out_with_their_own_digest() {
    let program = vec![42; 100_000];
    let packed = zstd::encode_all(&program[..], 3).unwrap();
    let mut out = Vec::new();
    assert_eq!(decompress_binary(&packed[..], &mut out).unwrap(), Digest::of(&program));
    assert_eq!(out, program);
    assert!(decompress_binary(&packed[..packed.len() / 2], &mut Vec::new()).is_err());
    assert_eq!(chunk_digests(&mut &packed[..]).unwrap().1, packed.len() as u64);
}
