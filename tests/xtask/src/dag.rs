//! The dependency rules between crates, checked against what cargo resolves.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Crate → crates of ours that it may name as normal dependencies.
const MAY_SEE: &[(&str, &[&str])] = &[
    ("landfall-core", &[]),
    ("landfall-bundle", &["landfall-core"]),
    ("landfall-manifests", &["landfall-core"]),
    ("landfall-ansible", &["landfall-core"]),
    ("landfall-ssh", &["landfall-core"]),
    ("landfall-agent", &["landfall-core", "landfall-bundle"]),
    (
        "landfall-engine",
        &["landfall-core", "landfall-bundle", "landfall-manifests"],
    ),
    (
        "landfall",
        &[
            "landfall-core",
            "landfall-agent",
            "landfall-ansible",
            "landfall-bundle",
            "landfall-engine",
            "landfall-manifests",
            "landfall-ssh",
        ],
    ),
    ("landfall-ingress", &[]),
];

/// Foreign crate → the only crates of ours under which it may show up.
const ONLY_UNDER: &[(&str, &[&str])] = &[
    ("ssh2", &["landfall-ssh", "landfall"]),
    ("openssl-sys", &["landfall-ssh", "landfall"]),
    ("tokio", &["landfall-engine", "landfall-ingress", "landfall"]),
    ("indicatif", &["landfall"]),
];

/// Returns every broken rule as a readable line.
pub fn check() -> Result<Vec<String>> {
    let output = Command::new("cargo")
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    faults(&serde_json::from_slice(&output.stdout).context("cargo metadata")?)
}

fn faults(metadata: &Value) -> Result<Vec<String>> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let names: BTreeMap<String, String> = list(&metadata["packages"])
        .iter()
        .map(|p| (text(&p["id"]), text(&p["name"])))
        .collect();
    let members: BTreeSet<String> = list(&metadata["workspace_members"]).iter().map(&text).collect();
    let mut normal: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let is_normal = |d: &&Value| list(&d["dep_kinds"]).iter().any(|k| k["kind"].is_null());
        let dependencies = list(&node["deps"])
            .iter()
            .filter(is_normal)
            .map(|d| text(&d["pkg"]))
            .collect();
        normal.insert(text(&node["id"]), dependencies);
    }
    let mut faults = Vec::new();
    for member in &members {
        let name = names.get(member).context("a member without a package")?;
        let Some((_, allowed)) = MAY_SEE.iter().find(|(rule, _)| rule == name) else {
            continue;
        };
        for dependency in normal
            .get(member)
            .into_iter()
            .flatten()
            .filter(|d| members.contains(*d))
        {
            if !allowed.contains(&names[dependency].as_str()) {
                faults.push(format!("{name} must not depend on {}", names[dependency]));
            }
        }
        let below = reachable(member, &normal);
        for (foreign, under) in ONLY_UNDER {
            if !under.contains(&name.as_str()) && below.iter().any(|id| names.get(*id).is_some_and(|n| n == foreign)) {
                faults.push(format!("{foreign} must not show up under {name}"));
            }
        }
    }
    Ok(faults)
}

fn reachable<'a>(from: &'a String, edges: &'a BTreeMap<String, Vec<String>>) -> BTreeSet<&'a String> {
    let (mut seen, mut queue) = (BTreeSet::new(), vec![from]);
    while let Some(id) = queue.pop() {
        if seen.insert(id) {
            queue.extend(edges.get(id).into_iter().flatten());
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(edges: &[(&str, &str)]) -> Value {
        let names: BTreeSet<&str> = edges.iter().flat_map(|(a, b)| [*a, *b]).collect();
        let nodes: Vec<Value> = names
            .iter()
            .map(|name| {
                let deps: Vec<Value> = edges
                    .iter()
                    .filter(|(from, _)| from == name)
                    .map(|(_, to)| serde_json::json!({"pkg": to, "dep_kinds": [{"kind": null}]}))
                    .collect();
                serde_json::json!({"id": name, "deps": deps})
            })
            .collect();
        serde_json::json!({
            "packages": names.iter().map(|n| serde_json::json!({"id": n, "name": n})).collect::<Vec<_>>(),
            "workspace_members": names.iter().filter(|n| n.starts_with("landfall")).collect::<Vec<_>>(),
            "resolve": {"nodes": nodes},
        })
    }

    #[test]
    fn forbidden_edges_are_named() {
        let allowed = metadata(&[("landfall-agent", "landfall-core"), ("landfall-ssh", "ssh2")]);
        assert_eq!(faults(&allowed).unwrap(), Vec::<String>::new());
        let wrong = metadata(&[("landfall-core", "landfall-agent"), ("landfall-engine", "landfall-ssh")]);
        assert_eq!(faults(&wrong).unwrap().len(), 2);
        let deep = metadata(&[("landfall-bundle", "x"), ("x", "tokio")]);
        assert_eq!(
            faults(&deep).unwrap(),
            vec!["tokio must not show up under landfall-bundle"]
        );
    }
}
