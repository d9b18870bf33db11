//! What is wrong with a file: everything at once.

use crate::explain::{Code, Diagnosis};

/// Collects problems of one file.
#[derive(Debug)]
pub struct Problems {
    file: String,
    found: Vec<Diagnosis>,
}

impl Problems {
    /// Starts with none; `file` is named in each.
    pub fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            found: vec![],
        }
    }

    /// Adds a wrong value: where it stands, and why it is wrong. Values are not repeated here: they may be secret.
    pub fn value(&mut self, place: &str, why: impl std::fmt::Display) {
        let text = format!("{}: {place}: {why}", self.file);
        self.found.push(Diagnosis::new(Code::SpecValue, text));
    }

    /// Adds a finished problem.
    pub fn push(&mut self, diagnosis: Diagnosis) {
        self.found.push(diagnosis);
    }

    /// Hands out `value`, or all problems.
    pub fn or<T>(self, value: T) -> Result<T, Vec<Diagnosis>> {
        if self.found.is_empty() {
            Ok(value)
        } else {
            Err(self.found)
        }
    }
}
