//! The sweeps over the real bundle, played on small ones: what they need of the simulation works.

use landfall_test_sim::real_bundle::{CUTS, RealBundle, cuts, flips};
use landfall_test_support::{bundle, machine};
use std::path::Path;

fn signed(path: &Path) -> RealBundle {
    std::fs::write(path.with_extension("pub"), bundle::key().public().to_text()).unwrap();
    RealBundle::at(path).unwrap()
}

#[test]
fn a_push_is_cut_at_several_places() {
    let directory = machine::memory_dir().unwrap();
    let path = directory.path().join("bulky.bundle");
    bundle::write_bulky(&path, bundle::VERSION).unwrap();
    let report = cuts(&signed(&path), 1, 1, &|_| {});
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert_eq!(report.cuts as u64, CUTS);
    assert!(report.within_blobs > 0 && report.blob_bytes > 9_000_000, "{report:?}");
}

#[test]
fn flipped_bytes_of_every_part_are_named() {
    let directory = machine::memory_dir().unwrap();
    let path = directory.path().join("tiny.bundle");
    bundle::write_tiny(&path, bundle::VERSION).unwrap();
    let report = flips(&signed(&path), 1, 200, &|_| {});
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert!(report.parts.len() == 5 && report.pushed > 0, "{report:?}");
}
