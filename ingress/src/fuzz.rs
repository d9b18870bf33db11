//! Parsers of hostile input, fed with mutated corpora: `tests/fuzz/corpus/PARSER/`, one input a file. Each module is fed by
//! a module `fuzz` of its own.
//!
//! How, is in `tests/fuzz/harness.rs`.

#[path = "../../tests/fuzz/harness.rs"]
mod harness;
pub(crate) use harness::fuzz;

/// Cuts an input into so many texts, at line feeds; what is missing is empty, what is too much stays in the last.
pub(crate) fn lines<const N: usize>(input: &[u8]) -> Option<[&str; N]> {
    let text = std::str::from_utf8(input).ok()?;
    let mut lines = text.splitn(N, '\n');
    Some([(); N].map(|()| lines.next().unwrap_or_default()))
}
