//! Parsers of hostile input, fed with mutated corpora: `tests/fuzz/corpus/PARSER/`, one input a file. What is private to a module is fed
//! by a module `fuzz` of its own.
//!
//! How, is in `tests/fuzz/harness.rs`.

use crate::annotations;
use crate::object::{Annotations, OWN};
use crate::options::Options;
use crate::secrets::lookup::NoSecrets;

#[path = "../../tests/fuzz/harness.rs"]
mod harness;
pub(crate) use harness::fuzz;

/// Cuts an input into so many texts, at line feeds; what is missing is empty, what is too much stays in the last.
pub(crate) fn lines<const N: usize>(input: &[u8]) -> Option<[&str; N]> {
    let text = std::str::from_utf8(input).ok()?;
    let mut lines = text.splitn(N, '\n');
    Some([(); N].map(|()| lines.next().unwrap_or_default()))
}

#[test]
fn annotations_of_any_value_are_read_without_a_panic() {
    fuzz("annotation", |input| {
        // The first byte chooses the name, the rest is the value.
        let Some((first, value)) = input.split_first() else {
            return;
        };
        let (name, _) = &annotations::NAMES[usize::from(*first) % annotations::NAMES.len()];
        let value = String::from_utf8_lossy(value).into_owned();
        let read = |value: String| {
            let all = Annotations::from_iter([(format!("{OWN}{name}"), value)]);
            annotations::read(&all, "default", &NoSecrets, &Options::default())
        };
        let (once, again) = (read(value.clone()), read(value));
        assert_eq!(once.faults, again.faults);
    });
}
