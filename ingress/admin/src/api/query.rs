//! What a query makes of a list. Lines become JSON last, so that of 10,000 only those that are shown do.

use serde_json::{Value, json};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::atomic::{self, AtomicU64};

/// Items of one answer, when nothing is said and at most.
const USUAL: usize = 100;
const MOST: usize = 1000;

/// A line of a list.
pub(super) trait Line {
    /// What `state` filters by.
    fn state(&self) -> &str;

    /// Whether one of the texts that `q` looks through is as wanted.
    fn any_text(&self, is_wanted: &dyn Fn(&str) -> bool) -> bool;

    /// What it is sorted by; names of the page's columns.
    fn key(&self, name: &str) -> Key<'_>;

    /// As it is shown.
    fn json(&self) -> Value;
}

/// What lines are sorted by; what has none comes first, numbers come last.
#[derive(Debug, PartialEq, PartialOrd)]
pub(super) enum Key<'a> {
    None,
    Text(Cow<'a, str>),
    Number(f64),
}

impl<'a> From<&'a str> for Key<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<Option<&'a str>> for Key<'a> {
    fn from(text: Option<&'a str>) -> Self {
        text.map_or(Self::None, Self::from)
    }
}

impl From<Option<f64>> for Key<'_> {
    fn from(number: Option<f64>) -> Self {
        number.map_or(Self::None, Self::Number)
    }
}

/// A parsed query.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?, decoded(value)?))
        });
        pairs.collect::<Result<_, String>>().map(Self)
    }

    pub(super) fn first(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn all(&self, name: &str) -> Vec<String> {
        let found = self.0.iter().filter(|(n, _)| n == name);
        found.map(|(_, value)| value.clone()).collect()
    }

    /// Searches, filters, sorts and cuts. Stable, so that equal lines keep the table's order. `made` counts the lines that became JSON.
    pub(super) fn apply<L: Line>(&self, mut lines: Vec<L>, made: &AtomicU64) -> Value {
        if let Some(wanted) = self.first("q").map(str::to_lowercase).filter(|text| !text.is_empty()) {
            let has = |text: &str| text.to_lowercase().contains(&wanted);
            lines.retain(|line| line.any_text(&has));
        }
        if let Some(state) = self.first("state") {
            lines.retain(|line| line.state() == state);
        }
        let mut order: Vec<usize> = (0..lines.len()).collect();
        if let Some(name) = self.first("sort") {
            let keys: Vec<Key<'_>> = lines.iter().map(|line| line.key(name)).collect();
            order.sort_by(|a, b| keys[*a].partial_cmp(&keys[*b]).unwrap_or(Ordering::Equal));
            if self.first("order") == Some("desc") {
                order.reverse();
            }
        }
        let number = |name| self.first(name).and_then(|text| text.parse::<usize>().ok());
        let (total, offset) = (lines.len(), number("offset").unwrap_or(0));
        let limit = number("limit").unwrap_or(USUAL).min(MOST);
        let shown = order.into_iter().skip(offset).take(limit);
        let json = |i: usize| {
            made.fetch_add(1, atomic::Ordering::Relaxed);
            lines[i].json()
        };
        let items: Vec<Value> = shown.map(json).collect();
        json!({ "total": total, "offset": offset, "items": items })
    }
}

/// `%41` and `+` as browsers write them.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next(), rest.next()].map(|d| d.and_then(|d| char::from(d).to_digit(16)));
                let [Some(high), Some(low)] = digits else {
                    return Err("a % in the query is followed by no number".to_owned());
                };
                // Two hexadecimal digits fit a byte.
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| "the query is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str, &'static str, Option<f64>);

    impl Line for Named {
        fn state(&self) -> &str {
            self.1
        }

        fn any_text(&self, is_wanted: &dyn Fn(&str) -> bool) -> bool {
            is_wanted(self.0)
        }

        fn key(&self, name: &str) -> Key<'_> {
            match name {
                "rps" => self.2.into(),
                _ => self.0.into(),
            }
        }

        fn json(&self) -> Value {
            json!(self.0)
        }
    }

    fn asked(query: &str) -> Value {
        let lines = vec![
            Named("a/One", "healthy", Some(2.0)),
            Named("b/two", "down", None),
            Named("c/three", "healthy", Some(10.0)),
        ];
        let made = AtomicU64::default();
        let list = Query::parse(query).unwrap().apply(lines, &made);
        let shown = list["items"].as_array().map(Vec::len);
        assert_eq!(usize::try_from(made.into_inner()).ok(), shown, "lines that became JSON");
        list
    }

    #[test]
    fn lists_are_searched_filtered_sorted_and_cut() {
        let names = |query| asked(query)["items"].clone();
        assert_eq!(names("q=one"), json!(["a/One"]));
        assert_eq!(names("q=%2F&state=healthy"), json!(["a/One", "c/three"]));
        assert_eq!(names("sort=rps&order=desc"), json!(["c/three", "a/One", "b/two"]));
        assert_eq!(names("sort=name&limit=1&offset=1"), json!(["b/two"]));
        assert_eq!(names("offset=9"), json!([]));
        let list = asked("limit=1&q=");
        assert_eq!((list["total"].as_u64(), list["offset"].as_u64()), (Some(3), Some(0)));
    }

    #[test]
    fn queries_are_decoded_or_refused() {
        let query = Query::parse("url=http%3A%2F%2Fh%2F%C3%A4&header=A:+b&header=C").unwrap();
        assert_eq!(query.first("url"), Some("http://h/\u{e4}"));
        assert_eq!(query.all("header"), ["A: b", "C"]);
        for bad in ["q=%", "q=%4", "q=%zz", "q=%+4", "q=%ff"] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
    }
}
