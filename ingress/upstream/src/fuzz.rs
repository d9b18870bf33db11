//! Answers of hostile endpoints, fed with mutated corpora: `tests/fuzz/corpus/answer/`. How, is in `tests/fuzz/harness.rs`.

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;
pub(crate) use harness::fuzz;
