//! Bundles: a good one, and every way in which one can be broken.

use crate::program::Home;
use landfall_test_support::bundle;

const CLUSTER: &str = "name: ship\nnodes:\n  - {name: cp-1, role: control-plane, host: 127.0.0.1, port: 1}\n";

#[test]
fn a_good_bundle_is_described_and_found_whole() {
    let home = Home::new();
    let index = bundle::write_tiny(&home.path("tiny.bundle"), bundle::VERSION).unwrap();
    let shown = home.run(&["bundle", "inspect", "tiny.bundle"]).ends(0);
    assert!(
        shown.out.contains("Kubernetes v1.37.0, recipe source, amd64"),
        "{}",
        shown.out
    );
    for name in index.binaries.iter().map(|b| b.name.as_str()) {
        assert!(shown.out.contains(&format!("\n  {name} ")), "{name}: {}", shown.out);
    }
    for image in &index.images {
        assert!(shown.out.contains(image.reference.as_str()), "{}", shown.out);
    }
    let json = home.run(&["bundle", "inspect", "--json", "tiny.bundle"]).ends(0);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["kubernetes_version"], "v1.37.0");
    assert_eq!(json["blobs"].as_array().unwrap().len(), index.blobs.len());
    let verified = home.run(&["bundle", "verify", "tiny.bundle"]).ends(0);
    assert_eq!(
        (verified.out.as_str(), verified.err.as_str()),
        ("tiny.bundle: every byte is as the index says\n", "")
    );
}

#[test]
fn what_is_no_bundle_is_refused_by_every_command() {
    let home = Home::new();
    home.write("cluster.yaml", CLUSTER);
    bundle::write_tiny(&home.path("tiny.bundle"), bundle::VERSION).unwrap();
    let good = std::fs::read(home.path("tiny.bundle")).unwrap();
    home.write("empty", b"");
    home.write("garbage", vec![0xa5; 100_000]);
    home.write("text", "this is no bundle\n".repeat(1000));
    home.write("half", &good[..good.len() / 2]);
    home.write("index-only", &good[..1024]);
    for name in ["empty", "garbage", "text", "half", "index-only"] {
        for args in [
            &["bundle", "inspect", name][..],
            &["bundle", "verify", name],
            &["install", "-i", "cluster.yaml", name],
            &["plan", "-i", "cluster.yaml", name],
        ] {
            let ran = home.run(args).ends(5).complains(&["error[LF04", name]);
            assert_eq!(ran.out, "", "{args:?}");
        }
    }
}

#[test]
fn a_missing_bundle_is_named() {
    let home = Home::new();
    home.write("cluster.yaml", CLUSTER);
    for args in [
        &["bundle", "verify", "no.bundle"][..],
        &["install", "-i", "cluster.yaml", "no.bundle"],
    ] {
        let ran = home.run(args).complains(&["error[LF", "no.bundle", "why: "]);
        assert!([3, 5].contains(&ran.status), "{}: {}", ran.status, ran.err);
    }
}

#[test]
fn a_flipped_byte_is_found_and_named() {
    let home = Home::new();
    let index = bundle::write_tiny(&home.path("tiny.bundle"), bundle::VERSION).unwrap();
    let good = std::fs::read(home.path("tiny.bundle")).unwrap();
    let blob = index.image_named("etcd").unwrap().blobs[1];
    let content = b"configuration of etcd";
    let at = good.windows(content.len()).position(|w| w == content).unwrap();
    for offset in [0, content.len() - 1] {
        let mut broken = good.clone();
        broken[at + offset] ^= 0x10;
        home.write("broken.bundle", &broken);
        let ran = home.run(&["bundle", "verify", "broken.bundle"]).ends(5);
        let ran = ran.complains(&["error[LF0402]", &blob.hex()]);
        assert_eq!(ran.out, "", "a broken bundle is not praised");
    }
}

/// Bytes before the first blob are those of the index, which nothing but a signature could protect; bytes that are zero fill up the
/// archive's blocks, and nothing reads them.
#[test]
fn no_flipped_byte_of_a_blob_or_its_header_goes_unseen() {
    let home = Home::new();
    bundle::write_tiny(&home.path("tiny.bundle"), bundle::VERSION).unwrap();
    let good = std::fs::read(home.path("tiny.bundle")).unwrap();
    let folder = b"blobs/sha256/";
    let first = good.windows(folder.len()).position(|w| w == folder).unwrap();
    let places: Vec<usize> = (first..good.len()).filter(|at| good[*at] != 0).collect();
    for at in places.iter().step_by((places.len() / 60).max(1)) {
        let mut broken = good.clone();
        broken[*at] ^= 0x41;
        home.write("broken.bundle", &broken);
        home.run(&["bundle", "verify", "broken.bundle"]).ends(5);
    }
}
