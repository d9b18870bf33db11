//! The path that is forwarded in place of the one that was asked. Pure.

use crate::path::canonical;
use crate::policy::Rewrite;
use hyper::Uri;
use regex::Regex;

/// Returns path and query to forward; `path` is canonical. None when what comes out is no path: then nothing is forwarded.
///
/// As in ingress-nginx the target takes the place of the whole path, the query is kept, and one in the target comes before it. What
/// comes out is brought to its canonical form again: captured pieces must not put dot segments together.
pub(super) fn rewritten(rewrite: &Rewrite, pattern: Option<&Regex>, path: &str, query: Option<&str>) -> Option<Uri> {
    let replaced = match rewrite.pattern.as_ref().or(pattern) {
        Some(pattern) => {
            let captures = pattern.captures(path)?;
            fill(&rewrite.target, |number| {
                captures.get(number).map_or("", |group| group.as_str())
            })
        }
        None => rewrite.target.clone(),
    };
    let (new_path, own_query) = match replaced.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (replaced.as_str(), None),
    };
    let rooted = match new_path.strip_prefix('/') {
        Some(_) => new_path.to_owned(),
        None => format!("/{new_path}"),
    };
    let mut text = canonical(&rooted).ok()?.into_owned();
    let queries: Vec<&str> = own_query.into_iter().chain(query).filter(|q| !q.is_empty()).collect();
    if !queries.is_empty() {
        text.push('?');
        text.push_str(&queries.join("&"));
    }
    text.parse().ok()
}

/// Puts captures in the place of `$1` to `$9`.
fn fill<'a>(target: &str, capture: impl Fn(usize) -> &'a str) -> String {
    let mut out = String::with_capacity(target.len());
    let mut chars = target.chars().peekable();
    while let Some(c) = chars.next() {
        let number = chars.peek().and_then(|next| next.to_digit(10)).filter(|n| *n > 0);
        match number {
            Some(number) if c == '$' => {
                out.push_str(capture(number as usize));
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: Option<&str>, target: &str, asked: &str, wanted: Option<&str>) {
        let rewrite = Rewrite {
            pattern: pattern.map(|p| regex::Regex::new(&format!("^(?i:{p})")).unwrap()),
            target: target.to_owned(),
        };
        let (path, query) = match asked.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (asked, None),
        };
        let found = rewritten(&rewrite, None, path, query).map(|uri| uri.to_string());
        assert_eq!(found.as_deref(), wanted, "{pattern:?} {target} {asked}");
    }

    #[test]
    fn the_target_takes_the_place_of_the_whole_path() {
        check(None, "/", "/a/b?x=1", Some("/?x=1"));
        check(None, "/new", "/a", Some("/new"));
        check(Some("/something(/|$)(.*)"), "/$2", "/something", Some("/"));
        check(Some("/something(/|$)(.*)"), "/$2", "/something/", Some("/"));
        check(Some("/something(/|$)(.*)"), "/$2", "/something/new?q", Some("/new?q"));
        check(Some("/a/(.*)"), "/b?from=$1", "/a/x?q=1", Some("/b?from=x&q=1"));
        check(Some("/a/(.*)"), "$1", "/a/x", Some("/x"));
        check(Some("/(x)(y)?"), "/$1$2$3$", "/x", Some("/x$"));
        check(Some("/a"), "/b", "/else", None);
    }

    #[test]
    fn captures_cannot_build_dot_segments_or_other_hosts() {
        check(Some("/a/(.*)"), "/pub/.$1/admin", "/a/.", Some("/admin"));
        check(Some("/a/(.*)"), "/pub/$1", "/a/%2E%2E", Some("/"));
        check(Some("/a(.*)"), "/$1", "/a/evil.org/x", Some("/evil.org/x"));
        check(Some("/a/(.*)"), "/x/$1", "/a/..%2Fb", Some("/x/..%2Fb"));
        check(Some("/a/(.*)"), "/x/$1", "/a/%5C", None);
        check(Some("/a/(.*)"), "/x/%$1", "/a/00", None);
    }
}
