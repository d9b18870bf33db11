//! Bundles, keys and signatures of any bytes. `tests/fuzz/harness.rs` describes how.

use crate::Bundle;
use crate::minisign::{PublicKey, Signature};
use crate::tests::{key, trusted};
use landfall_core::name::Digest;
use std::collections::BTreeSet;
use std::path::Path;

#[path = "../../tests/fuzz/harness.rs"]
mod harness;
use harness::{fuzz, fuzz_up_to};

/// Some more than the bundles of the corpus have.
const LONGEST_BUNDLE: usize = 16 * 1024;

/// Inserted, removed, copied and changed bytes: beside those of the corpus there is no bundle that is verified and whole.
#[test]
fn a_file_of_any_bytes_is_the_signed_bundle_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/bundle");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let signed: BTreeSet<Digest> = files
        .filter(|file| {
            file.file_name()
                .is_some_and(|name| ["00", "01", "02"].iter().any(|known| name == *known))
        })
        .map(|file| Digest::of(&std::fs::read(file).unwrap()))
        .collect();
    assert_eq!(signed.len(), 3);
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = directory.path().join("a.bundle");
    let read = |input: &[u8]| {
        std::fs::write(&path, input).unwrap();
        let bundle = Bundle::open(&path).ok()?.verify(&trusted()).ok()?;
        bundle.check_blobs(&mut |_, _| {}).ok()
    };
    fuzz_up_to("bundle", LONGEST_BUNDLE, |input| {
        assert_eq!(read(input).is_some(), signed.contains(&Digest::of(input)));
    });
}

#[test]
fn keys_and_signatures_of_any_text_are_refused_or_stay_the_same_when_they_are_written() {
    fuzz("minisign", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(read) = PublicKey::parse(text) {
            assert_eq!(
                PublicKey::parse(&read.to_text()).map(|key| key.id()),
                Ok(read.id()),
                "{text:?}"
            );
        }
        if let Ok(read) = Signature::parse(text) {
            assert_eq!(
                Signature::parse(&read.to_text()).map(|s| s.to_text()),
                Ok(read.to_text()),
                "{text:?}"
            );
            assert!(key().public().verify(b"another file", &read).is_err(), "{text:?}");
        }
    });
}
