//! What landfall writes for later or for another landfall: `tests/fixtures/formats` has a file for each version of each format. They are
//! read for ever, and what is written today reads back as it was. A file of a version that is newer than the program is refused.
//!
//! Each test lists all kinds by a match without catch-all: a new kind does not compile until it is listed, and fails until it is in the
//! file. A line that is in a file already is never edited.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod journals;
mod old_journals;
mod plans;
mod wire;

use std::collections::BTreeSet;

/// Fails unless `found` has each of `count` kinds.
#[track_caller]
fn must_be_all(found: impl IntoIterator<Item = &'static str>, count: usize) {
    let found: BTreeSet<&str> = found.into_iter().collect();
    assert_eq!(found.len(), count, "{found:?}");
}
