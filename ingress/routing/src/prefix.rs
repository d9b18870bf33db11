//! Prefixes of paths, by elements (S2).

/// A prefix without the slashes at its end, which do not count (S2).
#[inline]
pub(crate) fn stem(path: &str) -> &str {
    path.trim_end_matches('/')
}

/// S2: whether a path is this prefix or lies below it, by elements.
#[inline]
pub(crate) fn is_below(path: &str, stem: &str) -> bool {
    let rest = path.strip_prefix(stem);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
