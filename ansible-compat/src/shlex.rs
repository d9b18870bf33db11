//! Splits a line into words as Python's `shlex.split(line, comments=True)` does, which Ansible uses for host lines.
//!
//! A `#` starts a comment even inside a word, so `password=ab#c` is `password=ab`; quotes protect it.

/// Why a line cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitError {
    /// A quote has no end.
    Quote,
    /// The line ends with a backslash.
    Escape,
}

impl std::fmt::Display for SplitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Quote => "a quote is not closed",
            Self::Escape => "a backslash stands at the end",
        })
    }
}

/// Splits a line into words; a comment ends it.
pub fn split(line: &str) -> Result<Vec<String>, SplitError> {
    words(line, true)
}

/// Splits a text into words as Python's `shlex.split(text)` does, which Ansible uses for arguments of ssh.
pub fn split_all(text: &str) -> Result<Vec<String>, SplitError> {
    words(text, false)
}

fn words(line: &str, comments: bool) -> Result<Vec<String>, SplitError> {
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '#' if comments => break,
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\\' => word
                .get_or_insert_default()
                .push(chars.next().ok_or(SplitError::Escape)?),
            '\'' | '"' => quoted(c, &mut chars, word.get_or_insert_default())?,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Reads up to the closing quote. Only double quotes know escapes, and only those of `"` and `\`.
fn quoted(quote: char, chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), SplitError> {
    loop {
        match chars.next().ok_or(SplitError::Quote)? {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => {
                let next = chars.next().ok_or(SplitError::Escape)?;
                if !matches!(next, '"' | '\\') {
                    word.push('\\');
                }
                word.push(next);
            }
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_split_as_in_python() {
        // Each right side was printed by CPython 3.11.
        for (line, words) in [
            ("a b=c", &["a", "b=c"][..]),
            ("a pass=ab#c d", &["a", "pass=ab"]),
            ("a pass='ab#c' d=1 # x", &["a", "pass=ab#c", "d=1"]),
            (r#"a b="x \" \n \\""#, &["a", r#"b=x " \n \"#]),
            (r"a b='x \' c", &["a", r"b=x \", "c"]),
            (r"a b\ c", &["a", "b c"]),
            (r#"a b='"6443"'"#, &["a", r#"b="6443""#]),
            ("a ''", &["a", ""]),
            ("#", &[]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
        assert_eq!(split("a 'b"), Err(SplitError::Quote));
        assert_eq!(split("a b\\"), Err(SplitError::Escape));
    }
}
