//! Parses YAML to a JSON value like Ansible's loader: YAML 1.1 scalars, merge keys, anchors, `!vault`, `!unsafe`.
//!
//! Of equal keys in a mapping the last wins, as in PyYAML, and the line is reported. Aliases are expanded up to a bound.

use crate::scalar;
use crate::yaml::{UNSAFE, VAULT};
use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Values after aliases are expanded, at most: a chain of aliases doubles with each line.
const MAX_VALUES: usize = 1_000_000;
/// Mappings and lists within each other, at most; it only guards the stack.
const MAX_DEPTH: usize = 128;

/// A document and its duplicate keys.
#[derive(Debug)]
pub struct Document {
    /// The value; an empty text is null.
    pub value: Value,
    /// Duplicate keys of mappings, with the line of the later one.
    pub doubled: Vec<(String, usize)>,
}

/// Parses a text that is one document. The error names the line, never the text.
pub fn parse(text: &str) -> Result<Document, String> {
    if text.trim_start().starts_with(['{', '['])
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(Document { value, doubled: vec![] });
    }
    let mut loader = Loader {
        events: Parser::new_from_str(text),
        anchors: BTreeMap::new(),
        doubled: vec![],
        values: 0,
        line: 1,
    };
    loader.stream()
}

type Tagged<'a> = Option<Cow<'a, Tag>>;

struct Loader<'a> {
    events: Parser<'a, StrInput<'a>>,
    anchors: BTreeMap<usize, Value>,
    doubled: Vec<(String, usize)>,
    values: usize,
    line: usize,
}

impl<'a> Loader<'a> {
    fn next(&mut self) -> Result<Event<'a>, String> {
        match self.events.next() {
            Some(Ok((event, span))) => {
                self.line = line_of(&span);
                Ok(event)
            }
            Some(Err(error)) => Err(format!("line {}: {}", error.marker().line(), error.info())),
            None => Ok(Event::StreamEnd),
        }
    }

    fn stream(&mut self) -> Result<Document, String> {
        let mut value = None;
        loop {
            match self.next()? {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                _ if value.is_some() => return Err(format!("line {}: more than one document", self.line)),
                event => value = Some(self.node(event, 0)?),
            }
        }
        Ok(Document {
            value: value.unwrap_or(Value::Null),
            doubled: std::mem::take(&mut self.doubled),
        })
    }

    fn node(&mut self, event: Event<'a>, depth: usize) -> Result<Value, String> {
        self.count(1)?;
        if depth > MAX_DEPTH {
            return Err(format!("line {}: more than {MAX_DEPTH} levels", self.line));
        }
        let (value, anchor) = match event {
            Event::Alias(id) => {
                let value = self.anchors.get(&id).cloned();
                let value = value.ok_or_else(|| format!("line {}: an alias without its anchor", self.line))?;
                self.count(size(&value))?;
                (value, 0)
            }
            Event::Scalar(text, style, anchor, tag) => (self.scalar(&text, style, tag)?, anchor),
            Event::SequenceStart(anchor, tag) => {
                self.known_tag(&tag)?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.known_tag(&tag)?;
                (self.mapping(depth)?, anchor)
            }
            _ => return Err(format!("line {}: a value is missing", self.line)),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn count(&mut self, values: usize) -> Result<(), String> {
        self.values += values;
        if self.values > MAX_VALUES {
            return Err(format!(
                "line {}: aliases stand for more than {MAX_VALUES} values",
                self.line
            ));
        }
        Ok(())
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Tagged<'a>) -> Result<Value, String> {
        let quoted = || Value::String(text.to_owned());
        let Some(tag) = tag else {
            return Ok(if style == ScalarStyle::Plain {
                scalar::plain(text)
            } else {
                quoted()
            });
        };
        let marked = |key: &str| Value::Object(Map::from_iter([(key.to_owned(), quoted())]));
        match (tag.handle.as_str(), tag.suffix.as_str()) {
            ("!", "vault" | "vault-encrypted") => Ok(marked(VAULT)),
            ("!", "unsafe") => Ok(marked(UNSAFE)),
            ("", "!") | ("!", "") | ("tag:yaml.org,2002:", "str") => Ok(quoted()),
            ("tag:yaml.org,2002:", _) => Ok(scalar::plain(text)),
            _ => Err(self.unknown(&tag)),
        }
    }

    fn known_tag(&self, tag: &Tagged<'a>) -> Result<(), String> {
        match tag {
            Some(tag) if tag.handle != "tag:yaml.org,2002:" => Err(self.unknown(tag)),
            _ => Ok(()),
        }
    }

    fn unknown(&self, tag: &Tag) -> String {
        let (line, handle, suffix) = (self.line, &tag.handle, &tag.suffix);
        format!("line {line}: the tag {handle}{suffix} is unknown; !vault and !unsafe are known")
    }

    fn list(&mut self, depth: usize) -> Result<Value, String> {
        let mut items = vec![];
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Value::Array(items)),
                event => items.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, String> {
        let mut merged = Map::new();
        let mut own = Map::new();
        loop {
            let (key, merges) = match self.next()? {
                Event::MappingEnd => break,
                Event::Scalar(text, ScalarStyle::Plain, 0, None) if text == "<<" => (String::new(), true),
                event => {
                    let key = self.node(event, depth + 1)?;
                    (
                        key_text(key).ok_or_else(|| format!("line {}: a key must be text", self.line))?,
                        false,
                    )
                }
            };
            let line = self.line;
            let event = self.next()?;
            let value = self.node(event, depth + 1)?;
            if merges {
                merge(&mut merged, value).ok_or_else(|| format!("line {line}: << takes mappings"))?;
            } else if own.insert(key.clone(), value).is_some() {
                self.doubled.push((key, line));
            }
        }
        merged.extend(own);
        Ok(Value::Object(merged))
    }
}

/// Adds what a merge key names; of several mappings the earlier ones win.
fn merge(into: &mut Map<String, Value>, value: Value) -> Option<()> {
    match value {
        Value::Object(map) => into.extend(map),
        Value::Array(maps) => {
            for map in maps.into_iter().rev() {
                let Value::Object(map) = map else { return None };
                into.extend(map);
            }
        }
        _ => return None,
    }
    Some(())
}

fn key_text(key: Value) -> Option<String> {
    match key {
        Value::String(text) => Some(text),
        Value::Array(_) | Value::Object(_) => None,
        other => Some(other.to_string()),
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

fn line_of(span: &Span) -> usize {
    span.start.line()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn value(text: &str) -> Value {
        parse(text).unwrap().value
    }

    #[test]
    fn tags_anchors_and_merge_keys_are_understood() {
        let text = "a: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  00\nb: !unsafe '{{x}}'\nc: &c {x: 1, z: 3}\n\
                    d: {<<: *c, y: 2, x: 4}\n1: -3\ne: !!str 5\nf: [*c]\n";
        let value = value(text);
        assert!(value["a"][VAULT].is_string());
        assert_eq!(value["b"], json!({UNSAFE: "{{x}}"}));
        assert_eq!(value["d"], json!({"x": 4, "z": 3, "y": 2}));
        assert_eq!((&value["1"], &value["e"]), (&json!(-3), &json!("5")));
        assert_eq!(value["f"], json!([{"x": 1, "z": 3}]));
    }

    #[test]
    fn quotes_make_text_and_plain_scalars_are_typed() {
        assert_eq!(
            value("[no, 'no', \"0644\", 0644, x, ]"),
            json!([false, "no", "0644", 420, "x"])
        );
        assert_eq!((value(""), value("---\n# c\n")), (json!(null), json!(null)));
    }

    #[test]
    fn the_last_of_two_equal_keys_wins_and_is_told() {
        let document = parse("a: 1\nb: 2\na: 3\n").unwrap();
        assert_eq!(document.value, json!({"a": 3, "b": 2}));
        assert_eq!(document.doubled, [("a".to_owned(), 3)]);
    }

    #[test]
    fn several_documents_or_none_are_refused() {
        for (text, wanted) in [
            ("a: [", "line"),
            ("a: 1\n---\nb: 2\n", "more than one document"),
            ("a: !python x", "!python is unknown"),
            ("? [a]\n: 1", "key must be text"),
            ("<<: 1", "takes mappings"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn a_chain_of_aliases_is_bounded() {
        let mut text = "a0: &a0 [x, x]\n".to_owned();
        for i in 1..64 {
            text += &format!("a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1);
        }
        assert!(parse(&text).unwrap_err().contains("aliases"));
        assert!(parse(&"[".repeat(10_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[-a-c0-9:{}\\[\\]&*!<>|#'\" \n]{0,60}") {
            let _ = parse(&text);
        }
    }
}
