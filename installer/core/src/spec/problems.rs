//! Collects all problems of a file, so that they are reported together.

use crate::explain::{Code, Diagnosis};

/// Collects problems of one file.
#[derive(Debug)]
pub struct Problems {
    file: String,
    found: Vec<Diagnosis>,
}

impl Problems {
    /// Returns an empty collection; each problem will name `file`.
    pub fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            found: vec![],
        }
    }

    /// Adds a wrong value: its place, and why it is wrong. The value itself is left out, because it may be secret.
    pub fn value(&mut self, place: &str, why: impl std::fmt::Display) {
        let text = format!("{}: {place}: {why}", self.file);
        self.found.push(Diagnosis::new(Code::SpecValue, text));
    }

    /// Adds a finished problem.
    pub fn push(&mut self, diagnosis: Diagnosis) {
        self.found.push(diagnosis);
    }

    /// Returns `value`, or all problems.
    pub fn or<T>(self, value: T) -> Result<T, Vec<Diagnosis>> {
        if self.found.is_empty() {
            Ok(value)
        } else {
            Err(self.found)
        }
    }
}
