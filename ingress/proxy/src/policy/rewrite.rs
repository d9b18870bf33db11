//! The path that is forwarded in place of the one that was asked. Pure.

use hyper::Uri;
use landfall_ingress_http::path::{composed, readable, spelled};
use landfall_ingress_routing::policy::Rewrite;
use landfall_ingress_telemetry::reason::Reason;
use regex::Regex;

/// Returns path and query to forward; `path` is canonical. What comes out and is no path, or has a dot segment, is refused (400).
///
/// As in ingress-nginx the target takes the place of the whole path, a group that took part in nothing is empty, the query is kept, and
/// one in the target comes before it. What comes out is brought to its canonical form again, but for dot segments: those that captured
/// pieces put together, plain or hidden by an encoding, would lead past what other routes protect (CVE-2026-48020).
pub(super) fn rewritten(
    rewrite: &Rewrite,
    pattern: Option<&Regex>,
    path: &str,
    query: Option<&str>,
) -> Result<Uri, Reason> {
    let captures = match rewrite.pattern.as_ref().or(pattern) {
        Some(pattern) => Some(captured(pattern, path).ok_or(Reason::BadRequest)?),
        None => None,
    };
    let group = |number: usize| captures.as_ref().and_then(|groups| groups.get(number)?.as_deref());
    let replaced = fill(&rewrite.target, |number| group(number).unwrap_or(""));
    let (new_path, own_query) = match replaced.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (replaced.as_str(), None),
    };
    let rooted = match new_path.strip_prefix('/') {
        Some(_) => new_path.to_owned(),
        None => format!("/{new_path}"),
    };
    let mut text = composed(&rooted).map_err(|_| Reason::BadRequest)?;
    let queries: Vec<&str> = own_query.into_iter().chain(query).filter(|q| !q.is_empty()).collect();
    if !queries.is_empty() {
        text.push('?');
        text.push_str(&queries.join("&"));
    }
    text.parse().map_err(|_| Reason::BadRequest)
}

/// What the groups took of the path; of one that fits only as people read it, in the path's own spelling.
fn captured(pattern: &Regex, path: &str) -> Option<Vec<Option<String>>> {
    let groups = |path: &str| {
        let groups = pattern.captures(path)?;
        let texts = groups.iter().map(|group| group.map(|group| group.as_str().to_owned()));
        Some(texts.collect::<Vec<_>>())
    };
    groups(path).or_else(|| {
        let mut groups = groups(&readable(path)?)?;
        groups.iter_mut().flatten().for_each(|group| *group = spelled(group));
        Some(groups)
    })
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
        assert_eq!(found.ok().as_deref(), wanted, "{pattern:?} {target} {asked}");
    }

    #[test]
    fn the_target_takes_the_place_of_the_whole_path() {
        check(None, "/", "/a/b?x=1", Some("/?x=1"));
        check(None, "/new", "/a", Some("/new"));
        check(None, "/$2", "/a", Some("/"));
        check(None, "/b/$1/c?x=$9", "/a?q", Some("/b/c?x=&q"));
        check(Some("/something(/|$)(.*)"), "/$2", "/something", Some("/"));
        check(Some("/something(/|$)(.*)"), "/$2", "/something/", Some("/"));
        check(Some("/something(/|$)(.*)"), "/$2", "/something/new?q", Some("/new?q"));
        check(Some("/a/(.*)"), "/b?from=$1", "/a/x?q=1", Some("/b?from=x&q=1"));
        check(Some("/a/(.*)"), "$1", "/a/x", Some("/x"));
        check(Some("/(x)(y)?"), "/$1$2$3$", "/x", Some("/x$"));
        check(Some("/a"), "/b", "/else", None);
    }

    #[test]
    fn groups_of_an_expression_that_is_written_as_people_read_it_keep_the_paths_spelling() {
        check(
            Some("/café/(.*)"),
            "/b/$1",
            "/caf%C3%A9/%C3%A4%2F%20x",
            Some("/b/%C3%A4%2F%20x"),
        );
        check(Some("/a b/(.*)"), "/b?from=$1", "/a%20b/c%22d", Some("/b?from=c%22d"));
    }

    #[test]
    fn captures_cannot_build_dot_segments_or_other_hosts() {
        check(Some("/a/(.*)"), "/pub/.$1/admin", "/a/.", None);
        check(Some("/a/(.*)"), "/pub/.$1admin", "/a/", Some("/pub/.admin"));
        check(Some("/a/(.*)"), "/pub/$1", "/a/%2E%2E", None);
        check(Some("/a/?(.*)"), "/pub/$1", "/a../admin/x", None);
        check(Some("/a/?(.*)"), "/pub/$1", "/a..%2Fadmin/x", None);
        check(Some("/a/?(.*)"), "/pub/$1", "/a.", None);
        check(Some("/a/?(.*)"), "/pub/$1", "/a..;x/admin", None);
        check(Some("/a/?(.*)"), "/pub/$1", "/a../", None);
        check(Some("/a/?(.*)"), "/pub/$1", "/a...", Some("/pub/..."));
        check(Some("/a(.*)"), "/$1", "/a/evil.org/x", Some("/evil.org/x"));
        check(Some("/a/(.*)"), "/x/$1", "/a/..%2Fb", None);
        check(Some("/a/(.*)"), "/x/$1", "/a/b%2Fc", Some("/x/b%2Fc"));
        check(Some("/a/(.*)"), "/x/%2$1", "/a/e%2Fb", None);
        check(Some("/a/(.*)"), "/x/$1", "/a/%5C", None);
        check(Some("/a/(.*)"), "/x/%$1", "/a/00", None);
    }
}
