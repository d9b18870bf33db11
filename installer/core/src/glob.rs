//! File name patterns as the shell and glob(7) have them: `*`, `?` and `[…]`, none of which stands for a slash.

/// Says whether a whole path fits a pattern.
pub fn matches(pattern: &str, path: &str) -> bool {
    let (patterns, parts) = (pattern.split('/'), path.split('/'));
    patterns.clone().count() == parts.clone().count()
        && patterns.zip(parts).all(|(pattern, part)| matches_part(pattern, part))
}

/// Says whether one part of a path fits one part of a pattern.
pub fn matches_part(pattern: &str, part: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), part.chars().collect());
    // The last `*` seen, and how far the text was then: on a mismatch the star takes one character more.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
            continue;
        }
        if let Some(next) = fits_one(&pattern, p, text[t]) {
            p = next;
            t += 1;
            continue;
        }
        let Some((at, taken)) = star else { return false };
        star = Some((at, taken + 1));
        p = at + 1;
        t = taken + 1;
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Says whether a text contains characters of a pattern.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Returns the index after the pattern's item at `at` when that item matches the character.
fn fits_one(pattern: &[char], at: usize, c: char) -> Option<usize> {
    match *pattern.get(at)? {
        '?' => Some(at + 1),
        '[' => match pattern[at + 1..].iter().skip(1).position(|p| *p == ']') {
            Some(length) => {
                let end = at + 2 + length;
                in_set(&pattern[at + 1..end], c).then_some(end + 1)
            }
            None => (c == '[').then_some(at + 1),
        },
        plain => (plain == c).then_some(at + 1),
    }
}

fn in_set(set: &[char], c: char) -> bool {
    let (set, negated) = match set {
        ['!' | '^', rest @ ..] => (rest, true),
        set => (set, false),
    };
    let mut at = 0;
    let mut found = false;
    while at < set.len() {
        if let [from, '-', to] = set[at..set.len().min(at + 3)] {
            found |= (from..=to).contains(&c);
            at += 3;
        } else {
            found |= set[at] == c;
            at += 1;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_like_the_shell() {
        for (pattern, path, fits) in [
            ("/etc/sysctl.d/*.conf", "/etc/sysctl.d/99-x.conf", true),
            ("/etc/sysctl.d/*.conf", "/etc/sysctl.d/README", false),
            ("/etc/*.conf", "/etc/sysctl.d/x.conf", false),
            ("net/ipv4/conf/*/rp_filter", "net/ipv4/conf/eth0/rp_filter", true),
            ("net/ipv4/conf/*/rp_filter", "net/ipv4/conf/a/b/rp_filter", false),
            ("*a*b", "xaybzb", true),
            ("*a*b", "xaybz", false),
            ("snap.[a-m]*", "snap.k8s", true),
            ("snap.[!a-m]*", "snap.k8s", false),
            ("[]x]", "]", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[", "[", true),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, path), fits, "{pattern} {path}");
        }
    }

    /// The plain definition, by trying every length of a star.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', rest @ ..] => (0..=text.len()).any(|n| naive(rest, &text[n..])),
            ['?', rest @ ..] => !text.is_empty() && naive(rest, &text[1..]),
            [c, rest @ ..] => text.first() == Some(c) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn stars_match_like_the_plain_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let of = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches_part(&pattern, &text), naive(&of(&pattern), &of(&text)));
        }
    }
}
