//! Evaluates the host patterns of `--limit`.
//!
//! `a,b` or `a:b` joins, `!a` leaves out, `&a` keeps what is also in it; a part is a host, a group, a glob, `~` with a regular
//! expression, or `@FILE` with a pattern in each line. `group[0]` and `group[1:3]` choose from a group by place.
//! A part that matches nothing is an error here; Ansible only warns.

use crate::groups::{ALL, Groups};
use crate::tree::{Entry, FileTree};
use regex::Regex;
use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::path::Path;

/// Returns the hosts that a pattern matches.
///
/// # Errors
/// A file cannot be read, a regular expression is none, or a part matches nothing; the text says which part.
pub fn select(groups: &Groups, pattern: &str, tree: &dyn FileTree) -> Result<BTreeSet<String>, String> {
    let mut parts = vec![];
    for part in split(pattern) {
        match part.strip_prefix('@') {
            Some(path) => match tree.entry(Path::new(path)) {
                Ok(Some(Entry::File(text))) => parts.extend(text.lines().map(|line| line.trim().to_owned())),
                _ => return Err(format!("{path} cannot be read")),
            },
            None => parts.push(part),
        }
    }
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() {
        return Err("it names nothing".to_owned());
    }
    let (others, regular): (Vec<&String>, Vec<&String>) = parts.iter().partition(|part| part.starts_with(['!', '&']));
    let mut chosen: BTreeSet<String> = BTreeSet::new();
    if regular.is_empty() {
        chosen = groups.hosts().map(|(name, _)| name.to_owned()).collect();
    }
    for part in regular {
        chosen.extend(one(groups, part)?);
    }
    for part in others.iter().filter(|part| part.starts_with('&')) {
        let kept = one(groups, &part[1..])?;
        chosen.retain(|host| kept.contains(host));
    }
    for part in others.iter().filter(|part| part.starts_with('!')) {
        let left_out = one(groups, &part[1..])?;
        chosen.retain(|host| !left_out.contains(host));
    }
    Ok(chosen)
}

/// Cuts a pattern into parts: at commas, or where there is none at colons outside of brackets, unless it is one address.
pub fn split(pattern: &str) -> Vec<String> {
    let pieces: Vec<String> = if pattern.contains(',') {
        pattern.split(',').map(str::to_owned).collect()
    } else if pattern.parse::<Ipv6Addr>().is_ok() || is_host_with_port(pattern) {
        vec![pattern.to_owned()]
    } else {
        at_colons(pattern)
    };
    let pieces = pieces.iter().map(|piece| piece.trim().to_owned());
    pieces.filter(|piece| !piece.is_empty()).collect()
}

fn is_host_with_port(pattern: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || "._-[]:".contains(c);
    pattern.rsplit_once(':').is_some_and(|(host, port)| {
        let colons = at_colons(host).len() > 1;
        !host.is_empty() && !colons && host.chars().all(is_name) && port.parse::<u16>().is_ok()
    })
}

fn at_colons(pattern: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut inside = false;
    for c in pattern.chars() {
        match c {
            ':' if !inside => pieces.push(String::new()),
            c if c.is_whitespace() && !inside => pieces.push(String::new()),
            c => {
                inside = c == '[' || inside && c != ']';
                if let Some(piece) = pieces.last_mut() {
                    piece.push(c);
                }
            }
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Returns the hosts of one part, without what stands before it.
fn one(groups: &Groups, part: &str) -> Result<Vec<String>, String> {
    if groups.host(part).is_some() {
        return Ok(vec![part.to_owned()]);
    }
    let (name, places) = subscript(part);
    let unknown = || format!("no host and no group is called {part}");
    let hosts = matching(groups, name)?.ok_or_else(unknown)?;
    match places {
        Some((first, last)) if !hosts.is_empty() => {
            slice(&hosts, first, last).map(<[String]>::to_vec).ok_or_else(unknown)
        }
        _ => Ok(hosts),
    }
}

/// Places of a subscript: the first and, of a range, the last, where `None` is the end.
type Places = (i64, Option<Option<i64>>);

/// Removes `[n]`, `[n:]` or `[n:m]` from the end of a part.
fn subscript(part: &str) -> (&str, Option<Places>) {
    let plain = (part, None);
    let Some((name, places)) = part.strip_suffix(']').and_then(|p| p.rsplit_once('[')) else {
        return plain;
    };
    if part.starts_with('~') || name.is_empty() {
        return plain;
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let places = match places.split_once([':', '-']).filter(|(first, _)| !first.is_empty()) {
        None if digits(places.trim_start_matches('-')) => places.parse().ok().map(|n| (n, None)),
        Some((first, "")) if digits(first) => first.parse().ok().map(|n| (n, Some(None))),
        Some((first, last)) if digits(first) && digits(last) => {
            let last = last.parse().ok();
            first.parse().ok().map(|n| (n, Some(last)))
        }
        _ => None,
    };
    places.map_or(plain, |places| (name, Some(places)))
}

fn slice(hosts: &[String], first: i64, last: Option<Option<i64>>) -> Option<&[String]> {
    let count = i64::try_from(hosts.len()).ok()?;
    let at = |n: i64| usize::try_from(if n < 0 { n + count } else { n }).ok();
    match last {
        // `[n:0]` is as good as `[n]` for Ansible.
        None | Some(Some(0)) => hosts.get(at(first)?..at(first)? + 1),
        Some(last) => {
            let last = last.unwrap_or(count - 1).min(count - 1);
            hosts.get(at(first)?..usize::try_from(last + 1).ok()?)
        }
    }
}

/// Returns the hosts of all groups that match, and the hosts that match where no group does or the part is a glob; nothing where neither a
/// group nor a host does.
fn matching(groups: &Groups, name: &str) -> Result<Option<Vec<String>>, String> {
    let wanted = expression(name)?;
    let mut seen = BTreeSet::new();
    let mut found: Vec<String> = vec![];
    let mut any = false;
    for group in groups.names().filter(|group| wanted.is_match(group)) {
        any = true;
        let hosts = groups.hosts_in(group).into_iter().map(str::to_owned);
        found.extend(hosts.filter(|host| seen.insert(host.clone())));
    }
    if !any || name.starts_with('~') || name.contains(['.', '?', '*', '[']) {
        let hosts = groups.hosts().map(|(host, _)| host);
        let hosts = hosts.filter(|host| wanted.is_match(host)).map(str::to_owned);
        found.extend(hosts.filter(|host| seen.insert(host.clone())));
    }
    Ok((any || !found.is_empty() || name == ALL).then_some(found))
}

/// Makes a regular expression of a part: after `~` it is one that must match from the start, else a glob for the whole name.
fn expression(name: &str) -> Result<Regex, String> {
    let text = match name.strip_prefix('~') {
        Some(expression) => format!(r"\A(?:{expression})"),
        None => format!(r"\A{}\z", glob(name)),
    };
    Regex::new(&text).map_err(|_| format!("{name} is no regular expression"))
}

fn glob(name: &str) -> String {
    let mut text = String::from("(?s)");
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '*' => text.push_str(".*"),
            '?' => text.push('.'),
            '[' => match set(rest) {
                Some((class, after)) => {
                    text.push_str(&class);
                    rest = after;
                }
                None => text.push_str(r"\["),
            },
            c => text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    text
}

/// Reads a set of characters, `abc]` or `!a-c]`; without its end it is none.
fn set(rest: &str) -> Option<(String, &str)> {
    let not = rest.starts_with('!');
    let body = rest.strip_prefix('!').unwrap_or(rest);
    // A bracket at the begin belongs to the set.
    let end = body.char_indices().skip(1).find(|(_, c)| *c == ']')?.0;
    let (members, after) = (&body[..end], &body[end + 1..]);
    let escaped: String = members
        .chars()
        .map(|c| {
            if c == '-' || c.is_alphanumeric() {
                c.to_string()
            } else {
                regex::escape(&c.to_string())
            }
        })
        .collect();
    Some((format!("[{}{escaped}]", if not { "^" } else { "" }), after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Place;
    use crate::tree::Files;

    fn groups() -> Groups {
        let place = Place::new(&"f".into(), "x");
        let mut groups = Groups::new();
        for (group, hosts) in [
            ("masters", ["cp-1", "cp-2", "cp-3"]),
            ("kube_node", ["w-1", "w-2", "cp-3"]),
        ] {
            for host in hosts {
                groups.add_host(group, host, None, &place);
            }
        }
        groups.add_child("k8s_cluster", "kube_node").unwrap();
        groups.finish();
        groups
    }

    fn chosen(pattern: &str) -> String {
        let files = Files::of(&[("again", "w-1\n\n&kube_node\n"), ("empty", "\n")]);
        match select(&groups(), pattern, &files) {
            Ok(hosts) => hosts.into_iter().collect::<Vec<_>>().join(" "),
            Err(why) => why,
        }
    }

    #[test]
    fn patterns_match_the_same_hosts_as_in_ansible() {
        for (pattern, wanted) in [
            ("all", "cp-1 cp-2 cp-3 w-1 w-2"),
            ("w-1", "w-1"),
            ("k8s_cluster", "cp-3 w-1 w-2"),
            ("masters:&kube_node", "cp-3"),
            ("masters,!cp-1", "cp-2 cp-3"),
            ("!masters", "w-1 w-2"),
            ("!masters:w-2:cp-1", "w-2"),
            ("w-*", "w-1 w-2"),
            ("cp-?:!cp-[!2]", "cp-2"),
            ("cp-[!1-2]", "cp-3"),
            ("~(w|cp)-1", "cp-1 w-1"),
            ("masters[0]", "cp-1"),
            ("masters[-1]", "cp-3"),
            ("masters[1:]", "cp-2 cp-3"),
            ("masters[0:1]", "cp-1 cp-2"),
            ("masters[0:9]", "cp-1 cp-2 cp-3"),
            ("@again", "w-1"),
            ("masters : w-1", "cp-1 cp-2 cp-3 w-1"),
        ] {
            assert_eq!(chosen(pattern), wanted, "{pattern}");
        }
    }

    #[test]
    fn a_part_that_matches_nothing_is_named() {
        for (pattern, wanted) in [
            ("w-1:w-9", "no host and no group is called w-9"),
            ("masters[7]", "no host and no group is called masters[7]"),
            ("w-1:22", "no host and no group is called w-1:22"),
            ("@nowhere", "nowhere cannot be read"),
            ("@empty", "it names nothing"),
            ("", "it names nothing"),
            ("~(", "~( is no regular expression"),
        ] {
            assert_eq!(chosen(pattern), wanted, "{pattern}");
        }
    }
}
