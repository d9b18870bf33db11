//! Parses values of INI inventories: a text that Python's `ast.literal_eval` accepts gets its type, every other text stays text.
//!
//! `8080` is a number, `True` a boolean, `{'a': [1]}` a mapping; `yes`, `10.0.0.1` and `010` are text. Tuples and
//! sets become lists. Complex numbers, `set()`, `...` and `\N{…}` are left as text: no variable that is used here has them.

use serde_json::{Map, Number, Value};

/// Lists within lists beyond this depth are text; it only guards the stack.
const MAX_DEPTH: usize = 64;

/// Returns the value that Ansible gives to `text`.
pub fn value(text: &str) -> Value {
    Parser { rest: text, depth: 0 }
        .whole()
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Reads from the front of `rest`; `None` means that the text is no literal.
struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn whole(mut self) -> Option<Value> {
        let first = self.literal()?;
        self.space();
        if !self.rest.starts_with(',') {
            return self.rest.is_empty().then_some(first);
        }
        // `1,2` is a tuple without its parentheses.
        let mut items = vec![first];
        while self.eat(",") && !self.at_end() {
            items.push(self.literal()?);
        }
        self.at_end().then_some(Value::Array(items))
    }

    /// Skips blanks and a comment, which Python allows after a value.
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('#') {
            self.rest = "";
        }
    }
    fn at_end(&mut self) -> bool {
        self.space();
        self.rest.is_empty()
    }
    fn eat(&mut self, token: &str) -> bool {
        self.space();
        self.rest.strip_prefix(token).map(|rest| self.rest = rest).is_some()
    }

    fn literal(&mut self) -> Option<Value> {
        self.space();
        match self.rest.chars().next()? {
            '[' => self.nested(|p| p.items("[", "]").map(|(items, _)| Value::Array(items))),
            '(' => self.nested(|p| {
                let (mut items, comma) = p.items("(", ")")?;
                match items.len() {
                    1 if !comma => items.pop(),
                    _ => Some(Value::Array(items)),
                }
            }),
            '{' => self.nested(Self::braces),
            '\'' | '"' => self.strings(),
            c if c.is_ascii_digit() || matches!(c, '.' | '+' | '-') => self.number(),
            _ => self.word(),
        }
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Option<Value>) -> Option<Value> {
        if self.depth == MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    /// Reads a bracketed list, and says whether it ends with a comma.
    fn items(&mut self, open: &str, close: &str) -> Option<(Vec<Value>, bool)> {
        self.eat(open);
        let mut items = vec![];
        let mut comma = false;
        while !self.eat(close) {
            if !items.is_empty() && !comma {
                return None;
            }
            items.push(self.literal()?);
            comma = self.eat(",");
        }
        Some((items, comma))
    }

    fn braces(&mut self) -> Option<Value> {
        let start = self.rest;
        self.eat("{");
        if self.eat("}") {
            return Some(Value::Object(Map::new()));
        }
        self.literal()?;
        let is_map = self.eat(":");
        self.rest = start;
        if !is_map {
            return self.items("{", "}").map(|(items, _)| Value::Array(items));
        }
        self.eat("{");
        let mut map = Map::new();
        loop {
            let key = match self.literal()? {
                Value::String(key) => key,
                Value::Array(_) | Value::Object(_) => return None,
                other => other.to_string(),
            };
            if !self.eat(":") {
                return None;
            }
            map.insert(key, self.literal()?);
            let comma = self.eat(",");
            if self.eat("}") {
                return Some(Value::Object(map));
            }
            if !comma {
                return None;
            }
        }
    }

    /// Reads a keyword, or a string with a prefix.
    fn word(&mut self) -> Option<Value> {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let value = match word {
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            "None" => Value::Null,
            _ if rest.starts_with(['\'', '"']) => return self.strings(),
            _ => return None,
        };
        self.rest = rest;
        Some(value)
    }

    /// Reads one or more strings that stand side by side: all of text or all of bytes.
    fn strings(&mut self) -> Option<Value> {
        let mut text = String::new();
        let mut kind = None;
        loop {
            let quote = self.rest.find(['\'', '"'])?;
            let (bytes, raw) = match self.rest[..quote].to_ascii_lowercase().as_str() {
                "" | "u" => (false, false),
                "r" => (false, true),
                "b" => (true, false),
                "br" | "rb" => (true, true),
                _ => return None,
            };
            if *kind.get_or_insert(bytes) != bytes {
                return None;
            }
            self.rest = &self.rest[quote..];
            self.string(raw, &mut text)?;
            self.space();
            let another = |c: char| c.is_ascii_alphabetic() || matches!(c, '\'' | '"');
            if !self.rest.starts_with(another) {
                return Some(Value::String(text));
            }
        }
    }

    fn string(&mut self, raw: bool, text: &mut String) -> Option<()> {
        let triple = self.rest.starts_with("'''") || self.rest.starts_with("\"\"\"");
        let end = &self.rest[..if triple { 3 } else { 1 }];
        self.rest = &self.rest[end.len()..];
        loop {
            if let Some(rest) = self.rest.strip_prefix(end) {
                self.rest = rest;
                return Some(());
            }
            match self.next()? {
                '\\' if raw => {
                    text.push('\\');
                    text.push(self.next()?);
                }
                '\\' => self.escape(text)?,
                '\n' if !triple => return None,
                c => text.push(c),
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn escape(&mut self, text: &mut String) -> Option<()> {
        let c = match self.next()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            c @ ('\\' | '\'' | '"') => c,
            'x' => self.code_point(2, 16)?,
            'u' => self.code_point(4, 16)?,
            'U' => self.code_point(8, 16)?,
            'N' => return None,
            c @ '0'..='7' => {
                let more = self.rest.bytes().take(2).take_while(|b| matches!(b, b'0'..=b'7'));
                let digits = format!("{c}{}", &self.rest[..more.count()]);
                self.rest = &self.rest[digits.len() - 1..];
                char::from_u32(u32::from_str_radix(&digits, 8).ok()?)?
            }
            other => {
                text.push('\\');
                other
            }
        };
        text.push(c);
        Some(())
    }

    fn code_point(&mut self, digits: usize, radix: u32) -> Option<char> {
        let (hex, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        let all_hex = hex.bytes().all(|b| b.is_ascii_hexdigit());
        char::from_u32(u32::from_str_radix(hex, radix).ok().filter(|_| all_hex)?)
    }

    fn number(&mut self) -> Option<Value> {
        let negative = self.rest.starts_with('-');
        if negative || self.rest.starts_with('+') {
            self.rest = self.rest[1..].trim_start();
        }
        let end = number_end(self.rest);
        let (text, rest) = self.rest.split_at(end);
        let sign = if negative { "-" } else { "" };
        let value = number(text, sign)?;
        self.rest = rest;
        Some(value)
    }
}

/// Returns where the run of characters that could belong to a number ends.
fn number_end(text: &str) -> usize {
    let mut before = ' ';
    let end = text.find(|c: char| {
        let exponent_sign = matches!(c, '+' | '-') && matches!(before, 'e' | 'E') && !text.starts_with("0x");
        before = c;
        !(c.is_alphanumeric() || matches!(c, '.' | '_') || exponent_sign)
    });
    end.unwrap_or(text.len())
}

/// Reads a Python number without its sign: underscores between digits, radix prefixes, no leading zeros.
fn number(text: &str, sign: &str) -> Option<Value> {
    let lower = text.to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            let digits = plain(digits.strip_prefix('_').unwrap_or(digits))?;
            let number = i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()?;
            return Some(Value::from(number));
        }
    }
    let digits = plain(&lower)?;
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        if digits.len() > 1 && digits.starts_with('0') && digits.bytes().any(|b| b != b'0') {
            return None;
        }
        // Larger numbers stay text, because no setting of landfall is such a number.
        let text = format!("{sign}{digits}");
        return Some(text.parse::<i64>().map_or(Value::String(text), Value::from));
    }
    let shaped = digits.bytes().all(|b| b.is_ascii_digit() || b".e+-".contains(&b))
        && digits.bytes().any(|b| b.is_ascii_digit())
        && !digits.starts_with('e')
        && !digits.starts_with(".e");
    let float: f64 = format!("{sign}{digits}").parse().ok().filter(|_| shaped)?;
    Number::from_f64(float).map(Value::Number)
}

/// Removes the underscores; each must be between two digits.
fn plain(digits: &str) -> Option<String> {
    let bytes = digits.as_bytes();
    let good = bytes.iter().enumerate().all(|(i, b)| {
        let digit = |j: usize| bytes.get(j).is_some_and(u8::is_ascii_alphanumeric);
        *b != b'_' || (i > 0 && digit(i - 1) && digit(i + 1))
    });
    (good && !digits.is_empty()).then(|| digits.replace('_', ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn values_have_the_type_that_python_gives_them() {
        for (text, wanted) in [
            ("1.30", json!(1.3)),
            ("1.34.2", json!("1.34.2")),
            ("010", json!("010")),
            ("00", json!(0)),
            ("1_000", json!(1000)),
            ("1__0", json!("1__0")),
            ("0x10", json!(16)),
            ("-5", json!(-5)),
            ("1e3", json!(1000.0)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            ("1e-3", json!(0.001)),
            ("yes", json!("yes")),
            ("true", json!("true")),
            ("True", json!(true)),
            ("None", json!(null)),
            ("\"6443\"", json!("6443")),
            ("8080 # c", json!(8080)),
            ("bar # x", json!("bar # x")),
            ("'a' 'b'", json!("ab")),
            ("b'a' b'b'", json!("ab")),
            ("b'a' 'b'", json!("b'a' 'b'")),
            ("'a", json!("'a")),
            (r"'a\tb\q\x41\101'", json!("a\tb\\qAA")),
            (r"r'a\n'", json!(r"a\n")),
            ("10.0.0.0/8", json!("10.0.0.0/8")),
            ("192.168.0.169", json!("192.168.0.169")),
            ("[1,2]", json!([1, 2])),
            ("[1 2]", json!("[1 2]")),
            ("(1,)", json!([1])),
            ("(1)", json!(1)),
            ("()", json!([])),
            ("1,2", json!([1, 2])),
            ("{1, 2}", json!([1, 2])),
            ("{}", json!({})),
            (
                "{'a': {'b': [True, None]}, 'c': 1,}",
                json!({"a": {"b": [true, null]}, "c": 1}),
            ),
            ("{'a': }", json!("{'a': }")),
            ("{{ x }}", json!("{{ x }}")),
            ("99999999999999999999", json!("99999999999999999999")),
            ("", json!("")),
            ("-", json!("-")),
            ("1j", json!("1j")),
            ("3a", json!("3a")),
        ] {
            assert_eq!(value(text), wanted, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let text = "[".repeat(100_000);
        assert_eq!(value(&text), json!(text));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[-+0-9a-fxobe_.'\"\\\\rub\\[\\](){}:, #TruFalsNoé]{0,24}") {
            value(&text);
        }
    }
}
