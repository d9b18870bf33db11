//! Fuzzes the parsers of everything in inventories with mutated corpora. `tests/fuzz/harness.rs` describes how.

use crate::faults::Place;
use crate::groups::Groups;
use crate::template::Scope;
use crate::tree::Files;
use crate::vault::Keys;
use crate::{Environment, Request, config::Config, patterns, range, read};
use landfall_core::secret::Secret;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[path = "../../tests/fuzz/harness.rs"]
mod harness;
use harness::fuzz;

/// Reads an inventory of this text twice: it is understood or refused, the same each time.
fn inventory(path: &str, input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let once = || {
        let request = Request {
            sources: vec![path.to_owned()],
            ..Request::default()
        };
        let environment = Environment {
            env: BTreeMap::new(),
            cwd: "/w".into(),
        };
        read(&request, &Config::default(), &environment, &Files::of(&[(path, text)]))
    };
    match (once(), once()) {
        (Ok(one), Ok(other)) => assert_eq!(one.desired, other.desired),
        (Err(one), Err(other)) => {
            assert_eq!(one, other);
            assert!(!one.is_empty(), "a refusal says why");
        }
        _ => panic!("the same text is understood and refused"),
    }
}

#[test]
fn an_ini_inventory_of_any_text_is_understood_or_refused() {
    fuzz("inventory-ini", |input| inventory("h.ini", input));
}

#[test]
fn a_yaml_inventory_of_any_text_is_understood_or_refused() {
    fuzz("inventory-yaml", |input| inventory("h.yml", input));
}

#[test]
fn a_host_range_of_any_text_is_a_bounded_list_or_refused() {
    fuzz("host-pattern", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok((names, port)) = range::expand(text) {
            assert!((1..=10_000).contains(&names.len()) && port != Some(0), "{text:?}");
            assert!(names.iter().all(|name| !name.is_empty()), "{text:?}");
        }
    });
}

#[test]
fn a_limit_of_any_text_chooses_hosts_of_the_inventory() {
    let place = Place::new(&"f".into(), "x");
    let mut groups = Groups::new();
    for (group, host) in [
        ("masters", "cp-1"),
        ("masters", "cp-2"),
        ("kube_node", "w-1"),
        ("kube_node", "w.lan"),
    ] {
        groups.add_host(group, host, None, &place);
    }
    groups.finish();
    let all: BTreeSet<String> = groups.hosts().map(|(host, _)| host.to_owned()).collect();
    let files = Files::of(&[("file", "w-1\nmasters\n")]);
    fuzz("host-pattern", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let Ok(chosen) = patterns::select(&groups, text, &files) else {
            return;
        };
        assert!(chosen.is_subset(&all), "{text:?}");
        // What is chosen and left out again is nothing.
        if !text.contains(|c: char| "!&:,@[".contains(c) || c.is_whitespace()) && !text.is_empty() {
            let none = patterns::select(&groups, &format!("{text},!{text}"), &files);
            assert!(none.is_ok_and(|none| none.is_empty()), "{text:?}");
        }
    });
}

#[test]
fn an_expression_of_any_text_is_made_out_or_refused() {
    fuzz("jinja", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let vars: BTreeMap<String, Value> = [
            ("a", json!("x")),
            ("n", json!(7)),
            ("l", json!(["x", "y"])),
            ("m", json!({ "k": "{{ a }}" })),
            ("loop", json!("{{ loop }}")),
            ("v", json!(text)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let scope = || Scope::new(vars.clone(), Keys::default(), Arc::default(), vec![]);
        let wanted = json!(text);
        assert_eq!(scope().value(&wanted), scope().value(&wanted), "{text:?}");
        if !crate::template::is_template(text) {
            assert_eq!(scope().value(&wanted), Ok(wanted), "{text:?}");
        }
    });
}

#[test]
fn a_vault_of_any_text_opens_whole_or_is_refused() {
    let mut keys = Keys::default();
    keys.add(None, Secret::new("test"));
    fuzz("vault", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        // Its digest holds: what opens is what was encrypted.
        if let Ok(opened) = keys.open(text) {
            assert_eq!(opened.trim(), "vault_become_password: made-up", "{text:?}");
        }
    });
}
