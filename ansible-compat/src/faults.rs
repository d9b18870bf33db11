//! Collects the problems and notices of one inventory, with their places. An inventory may have several files.

use landfall_core::explain::Diagnosis;
use landfall_core::spec::Problems;
use std::rc::Rc;

/// A place in an inventory: a file, and a line or a path of keys in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as the user knows it.
    pub file: Rc<str>,
    /// Line or path of keys, for instance `line 4` or `all.vars.landfall`.
    pub at: String,
}

impl Place {
    /// Names a place.
    pub fn new(file: &Rc<str>, at: impl Into<String>) -> Self {
        Self {
            file: Rc::clone(file),
            at: at.into(),
        }
    }
}

/// Collects problems and notices; the same one seen from several machines is kept once.
#[derive(Debug, Default)]
pub struct Faults {
    found: Vec<Diagnosis>,
    notices: Vec<String>,
}

impl Faults {
    /// Adds a wrong value. `why` must not repeat a value that may be secret.
    pub fn value(&mut self, place: &Place, why: impl std::fmt::Display) {
        let mut problems = Problems::new(&place.file);
        problems.value(&place.at, why);
        self.take(problems);
    }

    /// Adds a finished problem.
    pub fn push(&mut self, diagnosis: Diagnosis) {
        if !self.found.contains(&diagnosis) {
            self.found.push(diagnosis);
        }
    }

    /// Adds what was collected for one file.
    pub fn take(&mut self, problems: Problems) {
        for diagnosis in problems.or(()).err().into_iter().flatten() {
            self.push(diagnosis);
        }
    }

    /// Adds a notice, which the user should know and need not act on. It must not repeat a value that may be secret.
    pub fn notice(&mut self, text: impl std::fmt::Display) {
        let text = text.to_string();
        if !self.notices.contains(&text) {
            self.notices.push(text);
        }
    }

    /// Returns the problems so far.
    pub fn found(&mut self) -> &mut Vec<Diagnosis> {
        &mut self.found
    }

    /// Returns all notices.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Returns all problems.
    pub fn into_list(self) -> Vec<Diagnosis> {
        self.found
    }
}
