//! Tests of bundles: a good one, and damaged ones.

use crate::program::Home;
use landfall_test_support::bundle;

const CLUSTER: &str = "name: ship\nnodes:\n  - {name: cp-1, role: control-plane, host: 127.0.0.1, port: 1}\n";

#[test]
fn a_good_bundle_is_described_and_verified() {
    let home = Home::new();
    let index = home.write_bundle("tiny.bundle");
    let shown = home.run(&["bundle", "inspect", "tiny.bundle"]).ends(0);
    assert!(
        shown.out.contains("Kubernetes v1.37.0, recipe source, amd64"),
        "{}",
        shown.out
    );
    for name in index.binaries().iter().map(|b| b.name.as_str()) {
        assert!(shown.out.contains(&format!("\n  {name} ")), "{name}: {}", shown.out);
    }
    for image in index.images() {
        assert!(shown.out.contains(image.reference.as_str()), "{}", shown.out);
    }
    let json = home.run(&["bundle", "inspect", "--json", "tiny.bundle"]).ends(0);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["kubernetes_version"], "v1.37.0");
    assert_eq!(json["blobs"].as_array().unwrap().len(), index.blobs.len());
    let verified = home.run(&["bundle", "verify", "tiny.bundle"]).ends(0);
    assert_eq!(
        (verified.out.as_str(), verified.err.as_str()),
        (
            format!(
                "tiny.bundle: every byte is as the index says; signed by {}\n",
                bundle::key().public().id()
            )
            .as_str(),
            ""
        )
    );
}

#[test]
fn every_command_refuses_a_file_that_is_no_bundle() {
    let home = Home::new();
    home.write("cluster.yaml", CLUSTER);
    home.write_bundle("tiny.bundle");
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
    let index = home.write_bundle("tiny.bundle");
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

/// The library's own tests flip every byte; this one flips 60 bytes and runs the program.
#[test]
fn every_flipped_byte_is_detected() {
    let home = Home::new();
    home.write_bundle("tiny.bundle");
    let good = std::fs::read(home.path("tiny.bundle")).unwrap();
    for at in (0..good.len()).step_by(good.len() / 60) {
        let mut broken = good.clone();
        broken[at] ^= 0x41;
        home.write("broken.bundle", &broken);
        let ran = home.run(&["bundle", "verify", "broken.bundle"]).ends(5);
        ran.complains(&["error[LF04"]);
    }
}

/// Two bundles, a delta between them, its parts on a stick, and the new bundle out of all that.
#[test]
fn a_new_bundle_travels_as_the_parts_of_a_delta() {
    let home = Home::new();
    home.write_bundle("old.bundle");
    bundle::write_build(&home.path("new.bundle"), "v1.37.1", 2).unwrap();
    let shown = home.run(&["bundle", "diff", "old.bundle", "new.bundle"]).ends(0);
    let etcd = format!("changed  {:48} v1.37.0 -> v1.37.1", "bundle.landfall.internal/etcd");
    assert!(shown.out.contains(&etcd), "{}", shown.out);
    assert!(shown.out.contains(" changed, 0 added, 0 removed; "), "{}", shown.out);
    assert!(!shown.out.contains("base-files"), "what is the same is not shown");
    let json = home
        .run(&["bundle", "diff", "--json", "old.bundle", "new.bundle"])
        .ends(0);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert!(
        json.as_array()
            .unwrap()
            .iter()
            .any(|d| d["name"] == "base-files" && d["change"] == "same")
    );

    home.run(&["bundle", "delta", "old.bundle", "new.bundle", "-o", "delta"])
        .ends(0);
    home.run(&["bundle", "split", "--size", "3kB", "delta", "-o", "stick"])
        .ends(0);
    home.run(&["bundle", "join", "stick", "-o", "joined"]).ends(0);
    let made = home
        .run(&["bundle", "apply", "old.bundle", "joined", "-o", "made.bundle"])
        .ends(0);
    assert!(made.out.contains("made to the byte; signed by"), "{}", made.out);
    let read = |name: &str| std::fs::read(home.path(name)).unwrap();
    assert!(read("made.bundle") == read("new.bundle"));

    std::fs::remove_file(home.path("stick/delta.002")).unwrap();
    home.write("stick/delta.001", read("stick/delta.003"));
    let ran = home.run(&["bundle", "join", "stick", "-o", "again"]).ends(5);
    ran.complains(&["delta.001 holds what belongs in delta.003", "delta.002 is missing"]);
    assert!(!home.path("again").exists());
    let ran = home
        .run(&["bundle", "apply", "new.bundle", "joined", "-o", "again"])
        .ends(5);
    ran.complains(&["error[LF0403]", "joined"]);
    assert!(!home.path("again").exists());
}

#[test]
fn a_bundle_for_workers_says_so_and_is_signed() {
    let home = Home::new();
    home.write_bundle("tiny.bundle");
    let ran = home
        .run(&["bundle", "export", "--role", "worker", "tiny.bundle", "-o", "w.bundle"])
        .ends(0);
    assert!(ran.out.contains("for the role worker; signed by"), "{}", ran.out);
    let size = |name: &str| std::fs::metadata(home.path(name)).unwrap().len();
    assert!(size("w.bundle") < size("tiny.bundle"));
    let ran = home.run(&["bundle", "verify", "w.bundle"]).ends(0);
    assert!(ran.out.ends_with("; for the role worker alone\n"), "{}", ran.out);
    let ran = home.run(&["bundle", "inspect", "w.bundle"]).ends(0);
    assert!(ran.out.contains("exported for the role worker"), "{}", ran.out);
    home.run(&["bundle", "sbom", "w.bundle"])
        .ends(5)
        .complains(&["error[LF0403]", "no bill of materials"]);
}
