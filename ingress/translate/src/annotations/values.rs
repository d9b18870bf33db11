//! The values of one Ingress's annotations, taken out one by one; what goes wrong with one is written down here.

use super::names::{self, Support};
use super::{Annotations, Fault, NGINX, OWN};
use crate::remark::{Reason, Severity};
use landfall_ingress_routing::policy::Policy;
use std::collections::BTreeMap;

/// Longest value that is looked at. The longest of use, an allow-list of a few hundred networks, is below; nginx's own lines end at 4 KiB.
const LONGEST: usize = 16 * 1024;

/// What is left of a snippet that seems to protect: leaving it out must not open what it closed.
const PROTECTING_WORDS: [&str; 8] = [
    "deny",
    "allow",
    "auth",
    "satisfy",
    "return 4",
    "valid_referers",
    "limit_",
    "ssl_verify",
];

pub(super) struct Values<'a> {
    /// By short name: the full name and the value.
    values: BTreeMap<&'a str, (&'a str, &'a str)>,
    pub(super) faults: Vec<Fault>,
    pub(super) bad: bool,
    closed: Option<String>,
}

impl<'a> Values<'a> {
    pub(super) fn new(annotations: &'a Annotations) -> Self {
        let mut values = BTreeMap::new();
        // Ours come last and replace.
        for prefix in [NGINX, OWN] {
            for (full, value) in annotations.iter() {
                if let Some(short) = full.strip_prefix(prefix) {
                    values.insert(short, (full, value));
                }
            }
        }
        let mut all = Self {
            values,
            faults: vec![],
            bad: false,
            closed: None,
        };
        all.judge_names();
        all
    }

    /// Says of each name whether it is served, and drops those that are not.
    fn judge_names(&mut self) {
        for (short, (full, value)) in std::mem::take(&mut self.values) {
            let (severity, reason, text) = match names::support(short, full) {
                Some(Support::Served) => {
                    self.keep(short, full, value);
                    continue;
                }
                Some(Support::Approximated(how)) => {
                    self.keep(short, full, value);
                    (Severity::Approximated, Reason::ApproximatedAnnotation, how)
                }
                Some(Support::NoEffect(why)) => (Severity::Note, Reason::UnsupportedAnnotation, why),
                Some(Support::Refused(why)) => (Severity::Refused, Reason::UnsupportedAnnotation, why),
                Some(Support::Snippet) => {
                    self.judge_snippet(full, value);
                    continue;
                }
                None => (
                    Severity::Note,
                    Reason::UnknownAnnotation,
                    "this name is not known; it has no effect",
                ),
            };
            self.faults.push(Fault {
                severity,
                reason,
                text: format!("{}: {text}", shown(full)),
            });
        }
    }

    fn keep(&mut self, short: &'a str, full: &'a str, value: &'a str) {
        self.values.insert(short, (full, value));
    }

    fn judge_snippet(&mut self, full: &str, value: &str) {
        let text = "snippets are never served";
        self.faults.push(Fault {
            severity: Severity::Refused,
            reason: Reason::UnsupportedAnnotation,
            text: format!("{full}: {text}"),
        });
        let value = value.to_ascii_lowercase();
        let rest = without_answer_fields(&value);
        if PROTECTING_WORDS.iter().any(|word| rest.contains(word)) {
            self.close(full, "a snippet that seems to protect cannot be served");
        }
    }

    /// The value of a name, trimmed; a fault when it is too long or holds control characters.
    pub(super) fn text(&mut self, name: &str) -> Option<&'a str> {
        let (_, value) = *self.values.get(name)?;
        let value = value.trim();
        // Lines are for lists of fields; they are read line by line.
        let control = |c: char| c.is_control() && !(c == '\n' && names::has_lines(name));
        if value.len() > LONGEST || value.contains(control) {
            self.fault(name, "too long, or with control characters");
            return None;
        }
        Some(value)
    }

    /// Whether the annotation is there at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The parsed value; a fault when it cannot be parsed.
    pub(super) fn parse<T>(&mut self, name: &str, parse: impl Fn(&'a str) -> Result<T, &'static str>) -> Option<T> {
        let value = self.text(name)?;
        match parse(value) {
            Ok(value) => Some(value),
            Err(why) => {
                self.fault(name, why);
                None
            }
        }
    }

    /// A list at commas or spaces; nothing of it counts when one part cannot be parsed.
    pub(super) fn list<T>(&mut self, name: &str, parse: impl Fn(&'a str) -> Result<T, &'static str>) -> Option<Vec<T>> {
        self.parse(name, |text| {
            let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
            parts.map(&parse).collect()
        })
    }

    /// A list whose parts do not depend on each other: those that cannot be read are remarked, and the others count. A fault when none can.
    pub(super) fn parts<T>(&mut self, name: &str, parse: impl Fn(&'a str) -> Result<T, &'static str>) -> Vec<T> {
        let Some(text) = self.text(name) else { return vec![] };
        let (mut good, mut bad) = (vec![], vec![]);
        for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
            match parse(part) {
                Ok(part) => good.push(part),
                Err(why) => bad.push(format!("{part:?}: {why}; the others of the list count")),
            }
        }
        match good.is_empty() && !bad.is_empty() {
            true => self.fault(name, "nothing of the list can be read"),
            false => bad.iter().for_each(|why| self.refuse(name, why)),
        }
        good
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        self.parse(name, |text| match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err("neither true nor false"),
        })
    }

    /// Writes a fault down. One that protects closes; any other makes the object bad.
    pub(super) fn fault(&mut self, name: &str, why: &str) {
        let full = self.full(name);
        if names::protects(name) {
            self.close(&full, why);
            return;
        }
        self.bad = true;
        self.faults.push(Fault {
            severity: Severity::Refused,
            reason: Reason::BadAnnotation,
            text: format!("{full}: {why}"),
        });
    }

    /// Says that a setting is served in another way.
    pub(super) fn approximate(&mut self, name: &str, how: &str) {
        let text = format!("{}: {how}", self.full(name));
        self.faults.push(Fault {
            severity: Severity::Approximated,
            reason: Reason::ApproximatedAnnotation,
            text,
        });
    }

    /// Says that a part of a setting is not served; the rest is.
    pub(super) fn refuse(&mut self, name: &str, why: &str) {
        let text = format!("{}: {why}", self.full(name));
        self.faults.push(Fault {
            severity: Severity::Refused,
            reason: Reason::UnsupportedAnnotation,
            text,
        });
    }

    fn close(&mut self, full: &str, why: &str) {
        let text = format!("{}: {why}", shown(full));
        self.faults.push(Fault {
            severity: Severity::Refused,
            reason: Reason::Closed,
            text: format!("{text}; its routes answer 503"),
        });
        self.closed.get_or_insert(text);
    }

    fn full(&self, name: &str) -> String {
        self.values
            .get(name)
            .map_or_else(|| name.to_owned(), |(full, _)| shown(full).to_owned())
    }

    pub(super) fn finish(&mut self, policy: &mut Policy) {
        policy.closed = self.closed.take();
    }
}

/// Directives that only set or take away fields of answers, and so protect nothing of a route, whatever words are in them.
const OF_ANSWERS: [&str; 5] = [
    "add_header",
    "expires",
    "more_clear_headers",
    "more_set_headers",
    "proxy_hide_header",
];

/// A snippet without its directives about fields of answers. As nginx reads it, a quote is one at the start of a word only; a directive
/// with a comment in it is left, and a snippet whose quotes do not pair is left whole.
fn without_answer_fields(snippet: &str) -> String {
    let mut rest = String::new();
    let mut directive = String::new();
    let mut quote = None;
    let mut escaped = false;
    let mut in_word = false;
    let keep = |directive: &mut String, rest: &mut String| {
        let name = directive.split_whitespace().next().unwrap_or_default();
        if !OF_ANSWERS.contains(&name) || directive.contains('#') {
            rest.push_str(directive);
        }
        directive.clear();
    };
    for c in snippet.chars() {
        directive.push(c);
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') if !in_word => quote = Some(c),
            (None, ';' | '{' | '}') => keep(&mut directive, &mut rest),
            _ => {}
        }
        in_word = !(c.is_whitespace() || matches!(c, ';' | '{' | '}'));
    }
    keep(&mut directive, &mut rest);
    if quote.is_some() { snippet.to_owned() } else { rest }
}

/// A name as it may be shown: the API server bounds it to 63 characters behind the slash, so this only guards other callers.
fn shown(full: &str) -> &str {
    full.char_indices().nth(128).map_or(full, |(end, _)| &full[..end])
}
