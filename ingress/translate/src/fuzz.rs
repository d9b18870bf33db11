//! Annotations of hostile users, fed with a mutated corpus: `tests/fuzz/corpus/annotation/`. How, is in `tests/fuzz/harness.rs`.

use crate::annotations;
use crate::object::{Annotations, OWN};
use crate::options::Options;
use crate::secrets::lookup::NoSecrets;

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;
use harness::fuzz;

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
