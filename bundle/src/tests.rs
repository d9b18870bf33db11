use crate::minisign::SecretKey;
use crate::{
    Bundle, BundleError, BundleWriter, Unverified, Verified, chunk_digests, decompress_binary, export, sign,
    write_oci_archive,
};
use landfall_core::bundle_index::{
    BundleIndex, BundleRole, INDEX_VERSION, Image, NODE_ARCHITECTURE, OCI_MANIFEST, Variant,
};
use landfall_core::explain::Code;
use landfall_core::name::Digest;
use landfall_core::trust::{OfferedKey, TrustOffer};
use proptest::prelude::*;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

fn index(images: Vec<Image>) -> BundleIndex {
    let variant = Variant {
        architecture: NODE_ARCHITECTURE.to_owned(),
        binaries: vec![],
        images,
    };
    BundleIndex::new("source", "v1.37.2", "registry.landfall.internal", variant)
}

pub(crate) fn key() -> SecretKey {
    SecretKey::from_random(&Zeroizing::new([1; 40]))
}

pub(crate) fn trusted() -> TrustOffer {
    let offered = OfferedKey {
        key: key().public().to_text(),
        endorsement: None,
    };
    TrustOffer {
        keys: vec![offered],
        ..TrustOffer::default()
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
    writer.write(index(vec![]), Some(&key()), &output).unwrap();
    output
}

fn open(path: &Path) -> Bundle<Verified> {
    Bundle::open(path).unwrap().verify(&trusted()).unwrap()
}

#[test]
fn blobs_come_back_as_they_went_in() {
    let directory = tempfile::tempdir().unwrap();
    let path = bundle(directory.path(), &[b"one", b"two two", &[7; 9_000_000]]);
    let opened = open(&path);
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
    opened.check_blobs(&mut |done, total| last = (done, total)).unwrap();
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
    let faults = open(&path).check_blobs(&mut |_, _| {}).unwrap_err();
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
            Bundle::<Unverified>::open(&path).err().unwrap().code,
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
    for cut in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        assert!(
            Bundle::<Unverified>::open(&path).is_err(),
            "cut at {cut} of {}",
            bytes.len()
        );
    }
}

#[test]
fn garbage_and_newer_formats_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    std::fs::write(&path, b"no tar at all").unwrap();
    assert_eq!(
        Bundle::<Unverified>::open(&path).err().unwrap().code,
        Code::BundleFormat
    );
    let newer = BundleIndex {
        version: INDEX_VERSION + 1,
        ..index(vec![])
    };
    BundleWriter::default().write(newer, None, &path).unwrap();
    let error = Bundle::<Unverified>::open(&path).err().unwrap();
    assert_eq!(error.code, Code::BundleFormat);
    assert!(
        error.causes[0].contains("has version 3 of the bundle's format"),
        "{error:?}"
    );
    assert_eq!(error.next, ["use the landfall that built the bundle, or a newer one"]);
    assert_eq!(
        Bundle::<Unverified>::open(&directory.path().join("absent"))
            .err()
            .unwrap()
            .code,
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
        media_type: OCI_MANIFEST.to_owned(),
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

/// Blobs of every length relative to the blocks of a tar archive and to what is read at once: damaged, too short, too long, empty and not there, at each
/// place of the archive.
#[test]
fn an_archive_with_a_damaged_blob_ends_early_and_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let sizes = [1, 300, 512, 1000, 1024, 64 * 1024, 64 * 1024 + 1, 128 * 1024, 150_000];
    let contents: Vec<Vec<u8>> = sizes
        .map(|size: usize| vec![u8::try_from(size % 251).unwrap(); size])
        .into();
    let digests: Vec<Digest> = contents.iter().map(|content| Digest::of(content)).collect();
    let at = |digest: &Digest| directory.path().join(digest.hex());
    for (digest, content) in digests.iter().zip(&contents) {
        std::fs::write(at(digest), content).unwrap();
    }
    let image = Image {
        reference: "r/a:1".parse().unwrap(),
        manifest: digests[0],
        media_type: OCI_MANIFEST.to_owned(),
        manifest_size_bytes: 1,
        blobs: digests.clone(),
        roles: Default::default(),
    };
    let write = || {
        let mut out = Vec::new();
        let written = write_oci_archive(std::slice::from_ref(&image), directory.path(), &mut out);
        (written, out)
    };
    let (whole, good) = write();
    whole.unwrap();
    assert!(good.len().is_multiple_of(512) && good.ends_with(&[0; 1024]));
    for (digest, content) in digests.iter().zip(&contents) {
        let mut flipped = content.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let mut longer = content.clone();
        longer.push(0);
        let shorter = content[..content.len() - 1].to_vec();
        for (what, damaged) in [
            ("flipped", &flipped),
            ("longer", &longer),
            ("shorter", &shorter),
            ("empty", &vec![]),
        ] {
            std::fs::write(at(digest), damaged).unwrap();
            let (written, out) = write();
            let case = format!("{} bytes, {what}", content.len());
            match written {
                Err(BundleError::StoredBlob { digest: named, found }) => {
                    assert_eq!((named, found), (*digest, Digest::of(damaged)), "{case}");
                }
                other => panic!("{case}: {other:?}"),
            }
            assert!(
                !out.len().is_multiple_of(512),
                "{case}: a reader would take it for a whole archive"
            );
        }
        std::fs::remove_file(at(digest)).unwrap();
        let (written, out) = write();
        assert!(matches!(written, Err(BundleError::Io { .. })), "{written:?}");
        assert!(!out.len().is_multiple_of(512));
        std::fs::write(at(digest), content).unwrap();
    }
    assert_eq!(write().1, good);
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

/// A bundle of 64 KiB: two blobs, an image, a signature.
fn bundle_of_64_kib(directory: &Path) -> PathBuf {
    let noise: Vec<u8> = (0..14_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let image = Image {
        reference: "r/a:1".parse().unwrap(),
        manifest: Digest::of(b"manifest"),
        media_type: OCI_MANIFEST.to_owned(),
        manifest_size_bytes: 8,
        blobs: vec![Digest::of(b"manifest")],
        roles: Default::default(),
    };
    let mut writer = BundleWriter::default();
    for (name, bytes) in [("noise", &noise[..]), ("manifest", b"manifest")] {
        let path = directory.join(name);
        std::fs::write(&path, bytes).unwrap();
        writer.add_blob(Digest::of(bytes), path);
    }
    let path = directory.join("64k.bundle");
    writer.write(index(vec![image]), Some(&key()), &path).unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    assert!((60 * 1024..72 * 1024).contains(&size), "{size}");
    path
}

#[test]
fn no_byte_of_a_bundle_can_be_flipped_unseen() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = bundle_of_64_kib(directory.path());
    let trusted = trusted();
    let fault = || -> Result<(), String> {
        let text = |d: landfall_core::explain::Diagnosis| format!("{} {:?}", d.code, d.causes);
        let opened = Bundle::open(&path).map_err(text)?.verify(&trusted).map_err(text)?;
        opened
            .check_blobs(&mut |_, _| {})
            .map_err(|mut all| text(all.remove(0)))
    };
    fault().unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut file = std::fs::File::options().write(true).open(&path).unwrap();
    for (at, byte) in whole.iter().enumerate() {
        let mut put = |byte: u8| {
            file.seek(SeekFrom::Start(at as u64)).unwrap();
            file.write_all(&[byte]).unwrap();
        };
        // Another mask at each place: a flipped bit, or several.
        put(byte ^ (at % 255 + 1) as u8);
        let named = fault();
        put(*byte);
        let named = named.expect_err(&format!("byte {at} can be flipped unseen"));
        assert!(named.starts_with("LF04"), "byte {at}: {named}");
        let member = [
            "bundle.json",
            "oci-layout",
            "index.json",
            "checksums",
            "blobs/sha256/",
            "behind",
            "blob sha256:",
        ];
        assert!(
            member.iter().any(|name| named.contains(name)),
            "byte {at} is not named: {named}"
        );
    }
    fault().unwrap();
}

#[test]
fn members_that_do_not_belong_there_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = bundle(directory.path(), &[b"some blob"]);
    let whole = std::fs::read(&path).unwrap();
    let mut extra = tar::Builder::new(Vec::new());
    let blob = format!("blobs/sha256/{}", Digest::of(b"stowaway").hex());
    for (name, bytes) in [("notes.txt", &b"hello"[..]), (blob.as_str(), b"stowaway")] {
        extra
            .append(&crate::archive::member_header(name, bytes.len() as u64).unwrap(), bytes)
            .unwrap();
        let mut file = whole[..whole.len() - 1024].to_vec();
        file.extend(extra.get_ref());
        file.extend([0; 1024]);
        std::fs::write(&path, file).unwrap();
        let error = Bundle::<Unverified>::open(&path).err().unwrap();
        assert_eq!(error.code, Code::BundleFormat, "{name}");
        extra = tar::Builder::new(Vec::new());
    }
    let mut longer = whole;
    longer.extend([0; 512]);
    std::fs::write(&path, longer).unwrap();
    let error = Bundle::<Unverified>::open(&path).err().unwrap();
    assert!(error.causes[0].contains("512 bytes follow its end"), "{error:?}");
}

#[test]
fn a_signature_can_be_put_in_and_replaced_and_changes_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = bundle(directory.path(), &[b"some blob"]);
    let before = open(&path).index_digest();
    let signed = std::fs::read(&path).unwrap();
    let other = SecretKey::from_random(&Zeroizing::new([2; 40]));
    sign(&Bundle::<Unverified>::open(&path).unwrap(), &other, &path).unwrap();
    let refused = Bundle::open(&path).unwrap().verify(&trusted()).err().unwrap();
    assert_eq!(refused.code, Code::BundleSignature);
    assert!(
        refused.causes[0].contains(&other.public().id().to_string()),
        "{refused:?}"
    );
    sign(&Bundle::<Unverified>::open(&path).unwrap(), &key(), &path).unwrap();
    assert_eq!(open(&path).index_digest(), before);
    assert_eq!(open(&path).signer(), Some(&key().public().id()));
    assert!(std::fs::read(&path).unwrap() == signed);
}

#[test]
fn a_damaged_chunk_is_named_and_nothing_of_it_is_handed_on() {
    let directory = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..9_000_000u32).map(|n| (n / 7) as u8).collect();
    let path = bundle(directory.path(), &[&content]);
    let mut bytes = std::fs::read(&path).unwrap();
    let start = bytes.windows(64).position(|w| w == &content[..64]).unwrap();
    bytes[start + 5_000_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let opened = open(&path);
    let mut read = Vec::new();
    let error = opened
        .blob(&Digest::of(&content))
        .unwrap()
        .read_to_end(&mut read)
        .unwrap_err();
    assert!(read == content[..4 * 1024 * 1024], "{} bytes", read.len());
    let named = opened.blob_fault(error);
    assert_eq!(named.code, Code::BundleDigest);
    assert!(
        named.causes[0].contains("bytes 4194304 to 8388608 of blobs/sha256/"),
        "{named:?}"
    );
    assert_eq!(opened.check_blobs(&mut |_, _| {}).unwrap_err().len(), 1);
}

/// A bundle with an image for each role, which share a blob, and a blob for people.
fn bundle_of_roles(directory: &Path) -> PathBuf {
    let mut writer = BundleWriter::default();
    let mut add = |bytes: &[u8]| {
        let path = directory.join(Digest::of(bytes).hex());
        std::fs::write(&path, bytes).unwrap();
        writer.add_blob(Digest::of(bytes), path);
        Digest::of(bytes)
    };
    let (shared, people) = (add(b"shared"), add(b"for people"));
    let mut image = |name: &str, role| {
        let own = add(name.as_bytes());
        Image {
            reference: format!("r/{name}:1").parse().unwrap(),
            manifest: own,
            manifest_size_bytes: name.len() as u64,
            media_type: OCI_MANIFEST.to_owned(),
            blobs: vec![own, shared],
            roles: [role].into(),
        }
    };
    let images = vec![image("cp", BundleRole::ControlPlane), image("w", BundleRole::Worker)];
    let mut index = index(images);
    index.sbom = Some(people);
    let path = directory.join("roles.bundle");
    writer.write(index, Some(&key()), &path).unwrap();
    path
}

#[test]
fn a_bundle_for_one_role_keeps_its_signature_and_lacks_what_others_need() {
    let directory = tempfile::tempdir().unwrap();
    let whole = bundle_of_roles(directory.path());
    let out = directory.path().join("worker.bundle");
    export(&open(&whole), BundleRole::Worker, &out).unwrap();
    let exported = open(&out);
    assert_eq!(exported.role(), Some(BundleRole::Worker));
    assert_eq!(exported.index_digest(), open(&whole).index_digest());
    exported.check_blobs(&mut |_, _| {}).unwrap();
    assert_eq!(exported.sbom().unwrap().unwrap(), b"for people");
    for held in [&b"shared"[..], b"w"] {
        assert!(exported.blob(&Digest::of(held)).is_ok());
    }
    let lacking = exported.blob(&Digest::of(b"cp")).err().unwrap();
    assert_eq!(lacking.code, Code::BundleMissing);
    assert!(
        lacking.causes[0].contains("exported for the role worker"),
        "{lacking:?}"
    );
    let all = [Digest::of(b"cp"), Digest::of(b"w")];
    assert_eq!(
        exported.check_some_blobs(all.iter(), &mut |_, _| {}).unwrap_err().len(),
        1
    );
    // It cannot become the bundle of another role, nor the old or new one of a delta.
    assert!(export(&exported, BundleRole::ControlPlane, &directory.path().join("x")).is_err());
    let made = crate::delta::make(&exported, &open(&whole), &directory.path().join("d"), &mut |_| {});
    assert_eq!(made.unwrap_err().code, Code::BundleMissing);
    // Exported or signed again, it is the same.
    let bytes = std::fs::read(&out).unwrap();
    export(&exported, BundleRole::Worker, &out).unwrap();
    sign(&exported, &key(), &out).unwrap();
    assert!(std::fs::read(&out).unwrap() == bytes);
}

#[test]
fn no_blob_can_go_under_the_cover_of_a_role() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let whole = bundle_of_roles(directory.path());
    let out = directory.path().join("worker.bundle");
    export(&open(&whole), BundleRole::Worker, &out).unwrap();
    let bytes = std::fs::read(&out).unwrap();
    let mut flipped = bytes.clone();
    for at in 0..bytes.len() {
        flipped[at] ^= (at % 255 + 1) as u8;
        std::fs::write(&out, &flipped).unwrap();
        let opened = Bundle::open(&out).and_then(|bundle| bundle.verify(&trusted()));
        let seen = opened.is_err() || opened.is_ok_and(|bundle| bundle.check_blobs(&mut |_, _| {}).is_err());
        assert!(seen, "byte {at} can be flipped unseen");
        flipped[at] = bytes[at];
    }
    // Another role's name where this one's stands: other blobs would have to be there.
    let at = bytes.windows(7).position(|w| w == b"worker\n").unwrap();
    let mut other = bytes[..at - 512].to_vec();
    other.extend(crate::archive::member_header("role", 14).unwrap().as_bytes());
    other.extend(b"control-plane\n");
    other.resize(at + 512, 0);
    other.extend(&bytes[at + 512..]);
    std::fs::write(&out, other).unwrap();
    assert!(Bundle::<Unverified>::open(&out).is_err());
}

/// Something that happens to a file: kind, where, how much, and a byte.
type Mishap = (u8, prop::sample::Index, prop::sample::Index, u8);

fn befall(bytes: &mut Vec<u8>, (kind, at, other, byte): &Mishap) {
    if bytes.is_empty() {
        return;
    }
    let (at, other) = (at.index(bytes.len()), other.index(bytes.len()));
    let (from, to) = (at.min(other), at.max(other));
    match kind {
        0 => bytes[at] ^= byte | 1,
        1 => bytes.insert(at, *byte),
        2 => drop(bytes.remove(at)),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(from..to)),
        5 => {
            let copy = bytes[from..to].to_vec();
            bytes.splice(at..at, copy);
        }
        // Whole blocks of the tar trade places.
        6 => {
            let (a, b) = (at / 512 * 512, other / 512 * 512);
            for n in 0..512 {
                if a + n < bytes.len() && b + n < bytes.len() {
                    bytes.swap(a + n, b + n);
                }
            }
        }
        _ => bytes.extend_from_slice(&[*byte; 512]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_mishap_of_a_bundle_goes_unseen(
        mishaps in prop::collection::vec((0u8..8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = bundle_of_roles(directory.path());
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        mishaps.iter().for_each(|mishap| befall(&mut bytes, mishap));
        std::fs::write(&path, &bytes).unwrap();
        let opened = Bundle::open(&path).and_then(|bundle| bundle.verify(&trusted()));
        let is_good = opened.is_ok_and(|bundle| bundle.check_blobs(&mut |_, _| {}).is_ok());
        prop_assert_eq!(is_good, bytes == whole);
    }

    #[test]
    fn no_mishap_breaks_the_reader_of_an_index(
        mishaps in prop::collection::vec((0u8..8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut text = include_bytes!("../../tests/fixtures/formats/bundle-index-2.json").to_vec();
        mishaps.iter().for_each(|mishap| befall(&mut text, mishap));
        if let Ok(index) = BundleIndex::parse(&text) {
            let again = serde_json::to_vec(&index).unwrap();
            prop_assert_eq!(BundleIndex::parse(&again), Ok(index));
        }
    }
}
