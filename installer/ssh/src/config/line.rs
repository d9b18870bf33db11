//! Parses the lines of the files: keywords with values, blocks, and included files.

use super::{MAX_DEPTH, included};
use std::path::Path;

/// One line that is neither empty nor a comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Begins a block for names that match.
    Host(Vec<String>),
    /// Begins a block with criteria.
    Match(Vec<String>),
    /// The lines of an included file follow.
    IncludeBegins,
    /// The lines of the included file end, and the surrounding block continues.
    IncludeEnds,
    /// A keyword in lower case, and the rest of the line.
    Setting(String, String),
}

/// Reads the lines of a file, and of the files that it includes.
pub fn parse(text: &str, directory: &Path, depth: usize, lines: &mut Vec<Line>) {
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let end = line
            .find(|c: char| c.is_ascii_whitespace() || c == '=')
            .unwrap_or(line.len());
        let (keyword, rest) = line.split_at(end);
        let rest = rest.trim_start();
        let value = rest.strip_prefix('=').unwrap_or(rest).trim_start();
        let keyword = keyword.trim_matches('"').to_ascii_lowercase();
        match keyword.as_str() {
            // ssh passes over a line with nothing but quotes for a keyword (readconf.c, process_config_line_depth).
            "" => {}
            "host" => lines.push(Line::Host(split(value))),
            "match" => lines.push(Line::Match(split(value))),
            "include" if depth < MAX_DEPTH => {
                for file in split(value).iter().flat_map(|name| included(name, directory)) {
                    // ssh ignores missing files.
                    let Ok(text) = std::fs::read_to_string(file) else {
                        continue;
                    };
                    lines.push(Line::IncludeBegins);
                    parse(&text, directory, depth + 1, lines);
                    lines.push(Line::IncludeEnds);
                }
            }
            _ => lines.push(Line::Setting(keyword, value.to_owned())),
        }
    }
}

/// Splits a line into words like ssh: quotes group a word, and a `#` at the beginning of a word starts a comment.
pub fn split(text: &str) -> Vec<String> {
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), c) if c == open => quote = None,
            (_, '\\') if matches!(characters.peek(), Some('"' | '\'' | '\\')) => {
                word.get_or_insert_default().extend(characters.next());
            }
            (None, '\\') if matches!(characters.peek(), Some(' ')) => {
                word.get_or_insert_default().extend(characters.next())
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, c @ ('"' | '\'')) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_ascii_whitespace() => words.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
