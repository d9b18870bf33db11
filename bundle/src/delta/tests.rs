use super::{apply, make};
use crate::tests::{key, trusted};
use crate::{Bundle, BundleWriter, Change, EntryKind, Verified, ZSTD_LEVEL, diff};
use landfall_core::bundle_index::{Binary, BinaryPlace, BundleIndex, NODE_ARCHITECTURE, Variant};
use landfall_core::explain::Code;
use landfall_core::name::Digest;
use proptest::prelude::*;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Numbers that no compression makes smaller.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// How the blob of a program was made.
#[derive(Debug, Clone, Copy)]
enum Made {
    /// As `bundle build` does.
    Here,
    /// As `bundle build` does with layers.
    Layer,
    /// By another compression.
    Elsewhere,
    /// Not compressed.
    Plain,
}

fn blob(content: &[u8], made: Made) -> Vec<u8> {
    match made {
        Made::Here => zstd::encode_all(content, ZSTD_LEVEL).unwrap(),
        Made::Layer => {
            let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL).unwrap();
            encoder.write_all(content).unwrap();
            encoder.flush().unwrap();
            encoder.finish().unwrap()
        }
        Made::Elsewhere => zstd::encode_all(content, 19).unwrap(),
        Made::Plain => content.to_vec(),
    }
}

fn bundle(folder: &Path, name: &str, programs: &[(&str, Vec<u8>, Made)]) -> PathBuf {
    let mut writer = BundleWriter::default();
    let mut binaries = Vec::new();
    for (program, content, made) in programs {
        let bytes = blob(content, *made);
        let path = folder.join(format!("{name}-{program}"));
        std::fs::write(&path, &bytes).unwrap();
        writer.add_blob(Digest::of(&bytes), path);
        binaries.push(Binary {
            name: (*program).to_owned(),
            component: (*program).to_owned(),
            version: name.to_owned(),
            blob: Digest::of(&bytes),
            digest: Digest::of(content),
            size_bytes: content.len() as u64,
            roles: Default::default(),
            place: BinaryPlace::Bin,
        });
    }
    let variant = Variant {
        architecture: NODE_ARCHITECTURE.to_owned(),
        binaries,
        images: vec![],
    };
    let output = folder.join(name);
    let index = BundleIndex::new("source", "v1.37.2", "r", variant);
    writer.write(index, Some(&key()), &output).unwrap();
    output
}

fn open(path: &Path) -> Bundle<Verified> {
    Bundle::open(path).unwrap().verify(&trusted()).unwrap()
}

/// A program of 300 KB and a later version of it, which shares most of its bytes at other places.
fn two_versions() -> (Vec<u8>, Vec<u8>) {
    let old = noise(1, 300_000);
    let mut new = noise(2, 5_000);
    new.extend(&old[..200_000]);
    new.extend(noise(3, 1_000));
    new.extend(&old[200_000..]);
    (old, new)
}

#[test]
fn a_bundle_comes_back_to_the_byte_from_little_more_than_what_is_new() {
    let home = tempfile::tempdir().unwrap();
    let (old, new) = two_versions();
    let mut wrapped = b"the same program in a layer".to_vec();
    wrapped.extend(&new);
    let a = [
        ("kept", noise(9, 50_000), Made::Here),
        ("program", old, Made::Here),
        ("gone", noise(8, 1000), Made::Here),
    ];
    let b = [
        ("kept", noise(9, 50_000), Made::Here),
        ("program", new, Made::Here),
        ("layer", wrapped, Made::Layer),
        ("plain", b"{}".to_vec(), Made::Plain),
        ("published", noise(7, 9_000), Made::Elsewhere),
    ];
    let (a, b) = (bundle(home.path(), "a", &a), bundle(home.path(), "b", &b));
    let delta = home.path().join("d");
    let size = make(&open(&a), &open(&b), &delta, &mut |_| {}).unwrap();
    assert!(size.new_bytes > 610_000, "{size:?}");
    // 6,000 new bytes of the program and 9,000 of the published one; the layer is the program.
    assert!((15_000..18_000).contains(&size.patch_bytes), "{size:?}");
    let made = home.path().join("made");
    apply(&open(&a), &delta, &made, &trusted()).unwrap();
    assert!(std::fs::read(&made).unwrap() == std::fs::read(&b).unwrap());
    // Over the old bundle itself, too.
    apply(&open(&a), &delta, &a, &trusted()).unwrap();
    assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap());
}

#[test]
fn what_cannot_be_applied_is_refused_and_leaves_no_file() {
    let home = tempfile::tempdir().unwrap();
    let (old, new) = two_versions();
    let a = bundle(home.path(), "a", &[("program", old, Made::Here)]);
    let b = bundle(home.path(), "b", &[("program", new.clone(), Made::Here)]);
    let c = bundle(home.path(), "c", &[("program", noise(5, 10), Made::Here)]);
    let (delta, out) = (home.path().join("d"), home.path().join("out"));
    make(&open(&a), &open(&b), &delta, &mut |_| {}).unwrap();
    let refused = |old: &Path, delta: &Path| {
        let error = apply(&open(old), delta, &out, &trusted()).err().unwrap();
        assert!(!out.exists() && !home.path().join("out.part").exists(), "{error:?}");
        error
    };
    let other = refused(&c, &delta);
    assert_eq!(other.code, Code::BundleMissing);
    assert!(
        other.causes[0].contains(&open(&a).index_digest().to_string()),
        "{other:?}"
    );
    assert_eq!(refused(&a, &b).code, Code::BundleFormat, "a bundle is no delta");
    let untrusted = landfall_core::trust::TrustOffer::default();
    let error = apply(&open(&a), &delta, &out, &untrusted).err().unwrap();
    assert_eq!((error.code, out.exists()), (Code::BundleSignature, false));
    // The old bundle is damaged where the patch refers to it.
    let mut bytes = std::fs::read(&a).unwrap();
    let at = bytes.len() - 100_000;
    bytes[at] ^= 1;
    let damaged = home.path().join("damaged");
    std::fs::write(&damaged, bytes).unwrap();
    assert_eq!(refused(&damaged, &delta).code, Code::BundleDigest);
}

#[test]
fn no_byte_of_a_delta_can_be_flipped_unseen() {
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let (old, new) = (noise(1, 3000), [noise(1, 2000), noise(2, 300)].concat());
    let a = bundle(home.path(), "a", &[("program", old, Made::Here)]);
    let b = bundle(home.path(), "b", &[("program", new, Made::Here)]);
    let (delta, out) = (home.path().join("d"), home.path().join("out"));
    make(&open(&a), &open(&b), &delta, &mut |_| {}).unwrap();
    let (whole, a) = (std::fs::read(&delta).unwrap(), open(&a));
    let mut bytes = whole.clone();
    for at in 0..whole.len() {
        bytes[at] ^= (at % 255 + 1) as u8;
        std::fs::write(&delta, &bytes).unwrap();
        let error = apply(&a, &delta, &out, &trusted()).err();
        let error = error.unwrap_or_else(|| panic!("byte {at} of {} can be flipped unseen", whole.len()));
        assert!(
            error.code.as_str().starts_with("LF04") && !out.exists(),
            "byte {at}: {error:?}"
        );
        bytes[at] = whole[at];
    }
    for cut in (0..whole.len()).step_by(61) {
        std::fs::write(&delta, &whole[..cut]).unwrap();
        assert!(apply(&a, &delta, &out, &trusted()).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_delta_to_the_same_bundle_has_no_patch() {
    let home = tempfile::tempdir().unwrap();
    let a = bundle(home.path(), "a", &[("program", noise(1, 70_000), Made::Here)]);
    let (delta, out) = (home.path().join("d"), home.path().join("out"));
    let size = make(&open(&a), &open(&a), &delta, &mut |_| {}).unwrap();
    assert_eq!((size.new_bytes, size.patch_bytes), (0, 0));
    apply(&open(&a), &delta, &out, &trusted()).unwrap();
    assert!(std::fs::read(&out).unwrap() == std::fs::read(&a).unwrap());
}

#[test]
fn differences_are_named_with_their_bytes() {
    let home = tempfile::tempdir().unwrap();
    let same = ("same", noise(1, 500), Made::Plain);
    let a = [
        same.clone(),
        ("changed", noise(2, 600), Made::Plain),
        ("gone", noise(3, 700), Made::Plain),
    ];
    let b = [
        same,
        ("changed", noise(4, 650), Made::Plain),
        ("new", noise(5, 800), Made::Plain),
    ];
    let (a, b) = (bundle(home.path(), "a", &a), bundle(home.path(), "b", &b));
    let found = diff(&open(&a), &open(&b));
    let short: Vec<_> = found
        .iter()
        .map(|d| (d.name.as_str(), d.change, d.bytes, d.new_bytes))
        .collect();
    let wanted = [
        ("changed", Change::Changed, 650, 650),
        ("gone", Change::Removed, 700, 0),
        ("new", Change::Added, 800, 800),
        ("same", Change::Same, 500, 0),
    ];
    assert_eq!(short, wanted);
    assert!(found.iter().all(|d| d.kind == EntryKind::Program));
    assert_eq!(
        (found[0].old.as_deref(), found[0].new.as_deref()),
        (Some("a"), Some("b"))
    );
}

fn made() -> impl Strategy<Value = Made> {
    prop_oneof![
        Just(Made::Here),
        Just(Made::Layer),
        Just(Made::Elsewhere),
        Just(Made::Plain)
    ]
}

/// Programs whose contents are pieces of a few common ones.
fn programs() -> impl Strategy<Value = Vec<(Vec<(u64, usize)>, Made)>> {
    let piece = (0..4u64, prop_oneof![Just(0usize), 1..200usize, 3000..20_000usize]);
    prop::collection::vec((prop::collection::vec(piece, 0..4), made()), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_bundle_leads_to_any_other(old in programs(), new in programs()) {
        let home = tempfile::tempdir_in("/dev/shm").unwrap();
        let write = |name: &str, programs: &[(Vec<(u64, usize)>, Made)]| {
            let names: Vec<String> = (0..programs.len()).map(|n| n.to_string()).collect();
            let programs = names.iter().zip(programs).map(|(name, (pieces, made))| {
                let content = pieces.iter().flat_map(|(seed, length)| noise(*seed, *length)).collect();
                (name.as_str(), content, *made)
            });
            bundle(home.path(), name, &programs.collect::<Vec<_>>())
        };
        let (a, b) = (write("a", &old), write("b", &new));
        let (delta, out) = (home.path().join("d"), home.path().join("out"));
        make(&open(&a), &open(&b), &delta, &mut |_| {}).unwrap();
        apply(&open(&a), &delta, &out, &trusted()).unwrap();
        prop_assert!(std::fs::read(&out).unwrap() == std::fs::read(&b).unwrap());
    }
}
