//! Regular expressions from objects, bounded. Matching takes linear time (crate `regex`); what is bounded here is memory.

use regex::{Regex, RegexBuilder};

/// Longest regular expression in an object. The longest seen in public manifests are below 300 characters.
const PATTERN_BYTES: usize = 1024;
/// Memory of one compiled regular expression, and of its cache. With Unicode classes 64 KiB are too few for `\w+` twice.
const PATTERN_MEMORY: usize = 512 * 1024;
/// Nesting; what people write has three or four levels.
const DEPTH: u32 = 32;

/// Whether upper and lower case are different.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Case {
    /// They are.
    #[default]
    Sensitive,
    /// They are not, as in ingress-nginx (`~*`).
    Insensitive,
}

/// A regular expression that is looked for anywhere.
pub fn free(text: &str) -> Result<Regex, &'static str> {
    build(text, Case::Sensitive)
}

/// A path's: matched from the start, and like nginx's free at the end.
pub fn path(text: &str, case: Case) -> Result<Regex, &'static str> {
    if !text.starts_with('/') {
        return Err("it does not begin with a slash");
    }
    // Checked alone first: a lone bracket must not reach into what stands around it.
    build(text, case)?;
    build(&format!("^(?:{text})"), case)
}

/// Whether a path has characters that mean something in regular expressions. A dot alone is far more often just a dot.
pub fn is_pattern(path: &str) -> bool {
    path.contains(['^', '$', '*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '\\'])
}

fn build(text: &str, case: Case) -> Result<Regex, &'static str> {
    if text.len() > PATTERN_BYTES {
        return Err("too long");
    }
    let built = RegexBuilder::new(text)
        .size_limit(PATTERN_MEMORY)
        .dfa_size_limit(PATTERN_MEMORY)
        .nest_limit(DEPTH)
        .case_insensitive(case == Case::Insensitive)
        .build();
    built.map_err(|_| "no regular expression, or too large a one")
}
