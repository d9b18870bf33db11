//! OpenSSH's patterns (ssh_config(5), "PATTERNS"), for known_hosts, certificates and ssh_config.

/// Says whether a pattern of `*` and `?` matches the text, in time proportional to the product of their lengths.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    t = from + 1;
                    star = Some((at, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// Says whether one of the patterns matches and none that begins with `!` does.
pub fn any<'a>(patterns: impl IntoIterator<Item = &'a str>, text: &str) -> bool {
    let mut matched = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(negated) if glob(negated.as_bytes(), text.as_bytes()) => return false,
            Some(_) => {}
            None => matched |= glob(pattern.as_bytes(), text.as_bytes()),
        }
    }
    matched
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match() {
        assert!(glob(b"*.a?c", b"x.y.abc") && glob(b"**", b"") && !glob(b"?", b"") && !glob(b"a*b", b"abc"));
        let many = "*a".repeat(40);
        assert!(!glob(many.as_bytes(), "b".repeat(200).as_bytes()));
        assert!(any(["*.x", "!b.x"], "a.x") && !any(["*.x", "!b.x"], "b.x") && !any(["!b.x"], "a.x"));
    }
}
