use super::contents::both;
use super::layer::LayerBuilder;
use super::oci::{ImageSettings, Store};
use super::{failed, tag_of};
use crate::delta::content::{Form, content_and_form};
use landfall_core::explain::Diagnosis;
use landfall_core::name::Digest;
use std::io::Read;

#[test]
fn a_layer_is_the_same_in_any_order_and_names_its_content() {
    let mut one = LayerBuilder::default();
    one.file("/usr/bin/a", 0o755, "a");
    one.link("/bin/a", "../usr/bin/a");
    let mut other = LayerBuilder::default();
    other.link("/bin/a", "../usr/bin/a");
    other.file("/usr/bin/a", 0o755, "a");
    assert_eq!(one.key(), other.key());
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    let layer = store.layer(&one).unwrap();
    let bytes = std::fs::read(&layer.path).unwrap();
    assert_eq!(Digest::of(&bytes), layer.blob);
    let mut tar = Vec::new();
    zstd::Decoder::new(bytes.as_slice())
        .unwrap()
        .read_to_end(&mut tar)
        .unwrap();
    assert_eq!(Digest::of(&tar), layer.diff_id);
    let names: Vec<_> = tar::Archive::new(tar.as_slice())
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["bin", "bin/a", "usr", "usr/bin", "usr/bin/a"]);
    other.file("/usr/bin/a", 0o755, "b");
    assert_ne!(one.key(), other.key());
}

/// What a delta needs: blobs of this recipe come back from their content to the byte.
#[test]
fn programs_and_layers_are_made_again_from_their_content() {
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    // Several blocks of zstd and many writes of tar.
    let bytes: Vec<u8> = (0..200_000u32)
        .flat_map(|n| (n / 3).wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let program = cache.path().join("program");
    std::fs::write(&program, &bytes).unwrap();
    let mut builder = LayerBuilder::default();
    builder.file("/usr/bin/a", 0o755, bytes);
    builder.link("/bin/a", "../usr/bin/a");
    let blobs = [
        (store.pack(&program).unwrap().path, Form::Packed),
        (store.layer(&builder).unwrap().path, Form::PackedLayer),
    ];
    for (path, wanted) in blobs {
        let (content, form) = content_and_form(std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((form, content.len() > 800_000 - 1), (wanted, true), "{path:?}");
    }
}

#[test]
fn packages_lose_their_documentation_keep_hard_links_and_are_merged_into_usr() {
    let mut tar = tar::Builder::new(Vec::new());
    let add = |tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]| {
        let mut header = crate::archive::header(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    add(&mut tar, "./usr/share/doc/x/copyright", b"words");
    add(&mut tar, "./bin/x", b"program");
    let mut header = crate::archive::header(0);
    header.set_entry_type(tar::EntryType::Link);
    tar.append_link(&mut header, "./usr/bin/y", "./bin/x").unwrap();
    let tar = tar.into_inner().unwrap();
    for below in ["", "opt/newer"] {
        let mut layer = LayerBuilder::default();
        layer.unpack(tar.as_slice(), below).unwrap();
        let mut wanted = LayerBuilder::default();
        wanted.file(&format!("{below}/usr/bin/x"), 0o644, "program");
        wanted.file(&format!("{below}/usr/bin/y"), 0o644, "program");
        assert_eq!(layer.key(), wanted.key());
    }
}

#[test]
fn what_is_put_over_a_layer_takes_the_place_of_what_is_there() {
    let mut layer = LayerBuilder::default();
    layer.file("/etc/a", 0o644, "of a package");
    layer.file("/etc/b", 0o644, "of a package");
    let mut own = LayerBuilder::default();
    own.file("/etc/b", 0o600, "own");
    layer.put_over(own);
    let mut wanted = LayerBuilder::default();
    wanted.file("/etc/a", 0o644, "of a package");
    wanted.file("/etc/b", 0o600, "own");
    assert_eq!(layer.key(), wanted.key());
}

#[test]
fn an_image_hands_over_every_blob_it_names() {
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    let mut layer = LayerBuilder::default();
    layer.file("/x", 0o755, "x");
    let layer = store.layer(&layer).unwrap();
    let mut added = std::collections::BTreeMap::new();
    let image = store
        .image(
            "registry.landfall.internal/x:1".parse().unwrap(),
            &[layer],
            &ImageSettings::program("/x"),
            both(),
            &mut |digest, path| {
                added.insert(digest, path);
            },
        )
        .unwrap();
    assert_eq!(image.blobs.len(), 3);
    for digest in &image.blobs {
        assert_eq!(Digest::of(&std::fs::read(&added[digest]).unwrap()), *digest);
    }
}

#[test]
fn debian_versions_become_tags() {
    assert_eq!(tag_of("1.22.1-9+deb12u3"), "1.22.1-9-deb12u3");
    assert_eq!(tag_of("2:1.0~rc1"), "2-1.0-rc1");
}

#[test]
fn what_was_checked_once_is_not_checked_again() {
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    let checks = std::cell::Cell::new(0);
    let check = |name: &str, result: Result<(), Diagnosis>| {
        let counted = || {
            checks.set(checks.get() + 1);
            result
        };
        store.once_passed(name, counted)
    };
    assert!(check("libraries-a", Err(failed("a library is missing"))).is_err());
    check("libraries-a", Ok(())).unwrap();
    assert_eq!(checks.get(), 2, "what failed is checked again");
    check("libraries-a", Err(failed("nobody looks"))).unwrap();
    assert_eq!(checks.get(), 2);
    check("libraries-b", Ok(())).unwrap();
    assert_eq!(checks.get(), 3, "another layer is another check");
}
