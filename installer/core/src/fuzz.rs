//! What comes from outside, hostile: a bundle's index here, frames of the channel to an agent in [`crate::wire::mux`]. `tests/fuzz/harness.rs`
//! describes how.

use crate::bundle_index::{BundleIndex, INDEX_VERSION};

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;
pub(crate) use harness::fuzz;

#[test]
fn an_index_of_any_bytes_is_refused_or_stays_the_same_when_it_is_written() {
    fuzz("bundle-index", |input| {
        let Ok(index) = BundleIndex::parse(input) else { return };
        // Older ones are read, and never written.
        if index.version < INDEX_VERSION {
            return;
        }
        let text = serde_json::to_vec(&index).unwrap();
        assert_eq!(
            BundleIndex::parse(&text).as_ref(),
            Ok(&index),
            "{}",
            String::from_utf8_lossy(&text)
        );
    });
}
