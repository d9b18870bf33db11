//! Prometheus text format 0.0.4.

use std::fmt::{Display, Write};

/// Series as they are written.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// One name with all its values; labels stand in braces, or are empty.
    pub fn series<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (String, V)>,
    ) {
        // Writing to a String does not fail, here and below.
        let _ = writeln!(
            self.0,
            "# HELP landfall_ingress_{name} {help}\n# TYPE landfall_ingress_{name} {kind}"
        );
        for (labels, value) in values {
            self.sample(name, &labels, value);
        }
    }

    /// One value of a series that was begun.
    pub fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "landfall_ingress_{name}{labels} {value}");
    }

    /// All that was written.
    pub fn finish(self) -> String {
        self.0
    }
}

/// A label's value: backslash, quote and line feed are escaped, so that names from objects cannot make series of their own.
pub fn label(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_cannot_leave_their_quotes() {
        assert_eq!(label("a\"} 1\nb\\"), "a\\\"} 1\\nb\\\\");
    }
}
