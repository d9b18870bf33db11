//! Errors for people: what, where, what was seen, why, what to do next.

use landfall_core::explain::Diagnosis;
use std::collections::BTreeMap;

/// Renders all errors; ones that differ only in the machine come as one.
pub fn errors(errors: &[Diagnosis]) -> String {
    let mut alike: Vec<(Diagnosis, Vec<String>)> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for error in errors {
        let mut key = error.clone();
        let node = key.node.take();
        key.step = None;
        let text = format!("{key:?}");
        let at = *known.entry(text).or_insert_with(|| {
            alike.push((error.clone(), vec![]));
            alike.len() - 1
        });
        alike[at].1.extend(node.map(|n| n.to_string()));
    }
    alike.iter().map(|(error, nodes)| one(error, nodes)).collect()
}

fn one(error: &Diagnosis, nodes: &[String]) -> String {
    let mut text = format!("error[{}]: {}\n", error.code, error.what);
    if !nodes.is_empty() {
        text.push_str(&format!("  on:   {}\n", nodes.join(", ")));
    }
    if let Some(step) = &error.step {
        text.push_str(&format!("  step: {step}\n"));
    }
    let parts = [("saw: ", &error.saw), ("why: ", &error.causes), ("next:", &error.next)];
    for (label, lines) in parts {
        for line in lines {
            text.push_str(&format!("  {label} {}\n", line.replace('\n', "\n        ")));
        }
    }
    text
}
