//! Host patterns: a name with an optional port, where `[1:5]`, `[01:10:2]` and `[a:c]` stand for several names.
//!
//! Two mistakes are errors here that Ansible accepts: a range that ends before it begins, which gives no host in Ansible, and a
//! word after the colon that is no port. `[1:3]:22` is three names with a port here; Ansible reads it as `1` at port 3.

/// Most names of one pattern: more are a typing mistake, because no cluster is so large.
const MAX_NAMES: usize = 10_000;
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Why a host pattern cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternError {
    /// A bracket without its partner.
    Bracket,
    /// Not of the form begin:end or begin:end:step.
    Form,
    /// Neither two numbers nor two letters.
    Bounds,
    /// Begin is zero-padded, and end has another length.
    Padding,
    /// Begin comes after end.
    Order,
    /// The step is no number from 1.
    Step,
    /// More names than any cluster has.
    TooMany,
    /// What follows the colon is no port.
    Port,
    /// The name is empty.
    Empty,
}

impl std::fmt::Display for PatternError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bracket => "a bracket of a host range has no partner",
            Self::Form => "a host range is [begin:end] or [begin:end:step]",
            Self::Bounds => "a host range goes from number to number or from letter to letter",
            Self::Padding => "begin and end of a zero-padded host range must have the same length",
            Self::Order => "a host range must not end before it begins",
            Self::Step => "the step of a host range must be a number from 1",
            Self::TooMany => "a host range stands for more than 10000 names",
            Self::Port => "a port from 1 to 65535 is needed after the colon",
            Self::Empty => "a host name is missing",
        })
    }
}

/// Returns the names that `pattern` stands for, and the port after them.
pub fn expand(pattern: &str) -> Result<(Vec<String>, Option<u16>), PatternError> {
    let (name, port) = split_port(pattern)?;
    let mut names = vec![];
    expand_into(name, &mut names)?;
    if names.iter().any(String::is_empty) {
        return Err(PatternError::Empty);
    }
    Ok((names, port))
}

/// Splits `host:22` and `[::1]:22`. A bare IPv6 address has no port.
pub fn split_port(pattern: &str) -> Result<(&str, Option<u16>), PatternError> {
    let Some((name, digits)) = pattern.rsplit_once(':') else {
        return Ok((pattern, None));
    };
    if digits.contains(']') {
        return Ok((pattern, None));
    }
    let address = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let address = address.filter(|n| n.parse::<std::net::Ipv6Addr>().is_ok());
    if address.is_none() && has_colon_outside_brackets(name) {
        return Ok((pattern, None));
    }
    let port = digits.parse().ok().filter(|p| *p != 0).ok_or(PatternError::Port)?;
    Ok((address.unwrap_or(name), Some(port)))
}

fn has_colon_outside_brackets(text: &str) -> bool {
    let mut inside = false;
    text.chars().any(|c| {
        inside = (inside || c == '[') && c != ']';
        c == ':' && !inside
    })
}

fn expand_into(pattern: &str, names: &mut Vec<String>) -> Result<(), PatternError> {
    let Some((head, rest)) = pattern.split_once('[') else {
        if pattern.contains(']') {
            return Err(PatternError::Bracket);
        }
        names.push(pattern.to_owned());
        return Ok(());
    };
    let (range, tail) = rest.split_once(']').ok_or(PatternError::Bracket)?;
    if head.contains(']') {
        return Err(PatternError::Bracket);
    }
    for part in parts(range)? {
        if names.len() >= MAX_NAMES {
            return Err(PatternError::TooMany);
        }
        expand_into(&format!("{head}{part}{tail}"), names)?;
    }
    Ok(())
}

/// Returns what one pair of brackets stands for.
fn parts(range: &str) -> Result<Vec<String>, PatternError> {
    let bounds: Vec<&str> = range.split(':').collect();
    let (begin, end, step) = match bounds[..] {
        [begin, end] => (begin, end, 1),
        [begin, end, step] => {
            let step = step.parse().ok().filter(|s| *s > 0).ok_or(PatternError::Step)?;
            (begin, end, step)
        }
        _ => return Err(PatternError::Form),
    };
    if end.is_empty() {
        return Err(PatternError::Form);
    }
    let begin = if begin.is_empty() { "0" } else { begin };
    let letter = |text: &str| LETTERS.find(text).filter(|_| text.len() == 1);
    if let (Some(from), Some(to)) = (letter(begin), letter(end)) {
        if from > to {
            return Err(PatternError::Order);
        }
        let letters = LETTERS[from..=to].chars().step_by(step);
        return Ok(letters.map(String::from).collect());
    }
    let width = if begin.len() > 1 && begin.starts_with('0') {
        if begin.len() != end.len() {
            return Err(PatternError::Padding);
        }
        begin.len()
    } else {
        0
    };
    let number = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| digits).ok_or(PatternError::Bounds)
    };
    let (from, to) = (number(begin)?, number(end)?);
    if from > to {
        return Err(PatternError::Order);
    }
    let numbers = (from..=to).step_by(step).take(MAX_NAMES + 1);
    let names: Vec<String> = numbers.map(|n| format!("{n:0width$}")).collect();
    if names.len() > MAX_NAMES {
        return Err(PatternError::TooMany);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_expand() {
        for (pattern, names, port) in [
            ("node", "node", None),
            ("node[1:3]", "node1 node2 node3", None),
            ("node[01:03]-x", "node01-x node02-x node03-x", None),
            ("node[08:10]", "node08 node09 node10", None),
            ("node[:2]", "node0 node1 node2", None),
            ("node[1:6:2]", "node1 node3 node5", None),
            ("[a:c]1", "a1 b1 c1", None),
            ("db-[a:e:2]", "db-a db-c db-e", None),
            ("r[1:2]n[1:2]", "r1n1 r1n2 r2n1 r2n2", None),
            ("node:2222", "node", Some(2222)),
            ("node[1:2]:2222", "node1 node2", Some(2222)),
            ("192.168.0.[169:171]", "192.168.0.169 192.168.0.170 192.168.0.171", None),
            ("[::1]:22", "::1", Some(22)),
            ("fe80::1:22", "fe80::1:22", None),
        ] {
            let (found, found_port) = expand(pattern).unwrap();
            assert_eq!((found.join(" ").as_str(), found_port), (names, port), "{pattern}");
        }
    }

    #[test]
    fn wrong_patterns_are_refused() {
        use PatternError::*;
        for (pattern, wanted) in [
            ("node[1:3", Bracket),
            ("node1:3]", Bracket),
            ("node1]", Bracket),
            ("node[1]", Form),
            ("node[1:]", Form),
            ("node[1:2:3:4]", Form),
            ("node[1:c]", Bounds),
            ("node[+1:3]", Bounds),
            ("node[01:9]", Padding),
            ("node[3:1]", Order),
            ("[c:a]", Order),
            ("node[1:3:0]", Step),
            ("node[1:3:x]", Step),
            ("node[1:18446744073709551615]", TooMany),
            ("a[1:200]b[1:200]", TooMany),
            ("node:", Port),
            ("node:70000", Port),
            ("", Empty),
        ] {
            assert_eq!(expand(pattern), Err(wanted), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn any_number_range_has_the_names_it_says(from in 0u64..500, length in 0u64..200, step in 1u64..20) {
            let to = from + length;
            let (names, _) = expand(&format!("n[{from}:{to}:{step}]")).unwrap();
            let wanted: Vec<String> = (from..=to).filter(|n| (n - from) % step == 0).map(|n| format!("n{n}")).collect();
            prop_assert_eq!(names, wanted);
        }

        #[test]
        fn any_text_is_read_without_panic(pattern in "[a-c0-3\\[\\]:é.-]{0,12}") {
            let _ = expand(&pattern);
        }
    }
}
