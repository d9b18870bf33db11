//! The dependency rules between crates, checked against what cargo resolves, and between the modules of each crate.

use crate::modules::{self, Knot};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Crate → crates of ours that it may name as normal dependencies.
const MAY_SEE: &[(&str, &[&str])] = &[
    ("landfall-core", &[]),
    ("landfall-bundle", &["landfall-core"]),
    ("landfall-manifests", &["landfall-core"]),
    ("landfall-ansible", &["landfall-core"]),
    ("landfall-ssh", &["landfall-core"]),
    ("landfall-netlink", &[]),
    ("landfall-nft", &["landfall-netlink"]),
    (
        "landfall-agent",
        &["landfall-core", "landfall-bundle", "landfall-netlink"],
    ),
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
    (
        "landfall-ingress-admin",
        &[
            "landfall-ingress-balance",
            "landfall-ingress-htpasswd",
            "landfall-ingress-http",
            "landfall-ingress-kubernetes",
            "landfall-ingress-listen",
            "landfall-ingress-proxy",
            "landfall-ingress-routing",
            "landfall-ingress-telemetry",
            "landfall-ingress-translate",
        ],
    ),
    ("landfall-ingress-htpasswd", &[]),
    ("landfall-ingress-http", &[]),
    ("landfall-ingress-tls", &[]),
    ("landfall-ingress-balance", &["landfall-ingress-http"]),
    (
        "landfall-ingress-kubernetes",
        &[
            "landfall-ingress-balance",
            "landfall-ingress-routing",
            "landfall-ingress-telemetry",
            "landfall-ingress-translate",
        ],
    ),
    ("landfall-ingress-listen", &["landfall-ingress-telemetry"]),
    ("landfall-ingress-telemetry", &["landfall-ingress-http"]),
    (
        "landfall-ingress-proxy",
        &[
            "landfall-ingress-balance",
            "landfall-ingress-htpasswd",
            "landfall-ingress-http",
            "landfall-ingress-listen",
            "landfall-ingress-routing",
            "landfall-ingress-telemetry",
            "landfall-ingress-tls",
            "landfall-ingress-upstream",
        ],
    ),
    (
        "landfall-ingress-routing",
        &[
            "landfall-ingress-balance",
            "landfall-ingress-http",
            "landfall-ingress-telemetry",
            "landfall-ingress-tls",
        ],
    ),
    (
        "landfall-ingress-translate",
        &[
            "landfall-ingress-balance",
            "landfall-ingress-htpasswd",
            "landfall-ingress-http",
            "landfall-ingress-routing",
            "landfall-ingress-telemetry",
            "landfall-ingress-tls",
        ],
    ),
    (
        "landfall-ingress-upstream",
        &[
            "landfall-ingress-balance",
            "landfall-ingress-http",
            "landfall-ingress-telemetry",
        ],
    ),
    (
        "landfall-ingress",
        &[
            "landfall-ingress-admin",
            "landfall-ingress-kubernetes",
            "landfall-ingress-listen",
            "landfall-ingress-proxy",
            "landfall-ingress-telemetry",
            "landfall-ingress-tls",
            "landfall-ingress-translate",
        ],
    ),
];

/// Foreign crate → the only crates of ours under which it may show up.
const ONLY_UNDER: &[(&str, &[&str])] = &[
    ("ssh2", &["landfall-ssh", "landfall"]),
    ("openssl-sys", &["landfall-ssh", "landfall"]),
    (
        "tokio",
        &[
            "landfall-engine",
            "landfall-ingress",
            "landfall-ingress-admin",
            "landfall-ingress-kubernetes",
            "landfall-ingress-listen",
            "landfall-ingress-proxy",
            "landfall-ingress-routing",
            "landfall-ingress-telemetry",
            "landfall-ingress-translate",
            "landfall-ingress-upstream",
            "landfall",
        ],
    ),
    (
        "hyper",
        &[
            "landfall-engine",
            "landfall-ingress",
            "landfall-ingress-admin",
            "landfall-ingress-kubernetes",
            "landfall-ingress-proxy",
            "landfall-ingress-upstream",
            "landfall",
        ],
    ),
    (
        "kube",
        &[
            "landfall-engine",
            "landfall-ingress",
            "landfall-ingress-admin",
            "landfall-ingress-kubernetes",
            "landfall",
        ],
    ),
    (
        "k8s-openapi",
        &[
            "landfall-engine",
            "landfall-ingress",
            "landfall-ingress-admin",
            "landfall-ingress-kubernetes",
            "landfall-ingress-translate",
            "landfall",
        ],
    ),
    ("indicatif", &["landfall"]),
];

/// Crate, modules, and why they may be in a circle.
type KnownKnot = (&'static str, &'static [&'static str], &'static str);

/// Known circles. Each list must be exact, so that a circle neither grows unnoticed nor stays listed after it was removed.
const KNOWN_KNOTS: &[KnownKnot] = &[];

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
    let metadata = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let mut lines = faults(&metadata)?;
    lines.extend(circles(&metadata)?);
    Ok(lines)
}

/// The knots of modules of each library and program of the workspace that are not as [`KNOWN_KNOTS`] says.
fn circles(metadata: &Value) -> Result<Vec<String>> {
    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let members = list(&metadata["workspace_members"]);
    let mut found = Vec::new();
    for package in list(&metadata["packages"]) {
        if !members.contains(&package["id"]) {
            continue;
        }
        for target in list(&package["targets"]) {
            let kinds = list(&target["kind"]);
            if kinds.iter().any(|kind| kind == "lib" || kind == "bin") {
                let root = target["src_path"].as_str().context("a target without a root file")?;
                let read = |path: &Path| std::fs::read_to_string(path).ok();
                let name = target["name"].as_str().unwrap_or_default().to_owned();
                let knots = modules::knots(Path::new(root), &read).with_context(|| format!("modules of {name}"))?;
                found.extend(knots.into_iter().map(|knot| (name.clone(), knot)));
            }
        }
    }
    Ok(unexpected(&found, KNOWN_KNOTS))
}

fn unexpected(found: &[(String, Knot)], known: &[KnownKnot]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, knot) in found {
        let listed = |k: &&KnownKnot| k.0 == name && knot.modules.iter().any(|m| k.1.contains(&m.as_str()));
        let listed = known.iter().find(listed);
        seen.extend(listed.map(|k| (k.0, k.1)));
        let new = |m: &&String| !listed.is_some_and(|k| k.1.contains(&m.as_str()));
        let new: Vec<&str> = knot.modules.iter().filter(new).map(String::as_str).collect();
        if listed.is_none() {
            lines.push(format!("modules of {name} in a circle: {}", knot.circle));
        } else if !new.is_empty() {
            lines.push(format!(
                "modules of {name} that are new in a known knot: {}",
                new.join(", ")
            ));
        }
        let has = |m: &&&str| !knot.modules.iter().any(|have| have == *m);
        let gone: Vec<&str> = listed.map_or(&[][..], |k| k.1).iter().filter(has).copied().collect();
        if !gone.is_empty() {
            lines.push(format!(
                "no longer in the knot of {name}, to be taken off the list: {}",
                gone.join(", ")
            ));
        }
    }
    let untied = known.iter().filter(|k| !seen.contains(&(k.0, k.1)));
    lines.extend(untied.map(|k| {
        format!(
            "a knot of {} is untied, to be taken off the list: {}",
            k.0,
            k.1.join(", ")
        )
    }));
    lines
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
    fn knots_that_are_new_grown_or_untied_are_named() {
        let knot = |modules: &[&str]| Knot {
            modules: modules.iter().map(|m| (*m).to_owned()).collect(),
            circle: "the circle".to_owned(),
        };
        let found = |modules: &[&str]| vec![("landfall-x".to_owned(), knot(modules))];
        const KNOWN: &[KnownKnot] = &[("landfall-x", &["a", "b"], "for the test")];
        assert_eq!(unexpected(&found(&["a", "b"]), KNOWN), Vec::<String>::new());
        let lines = |modules: &[&str], known| unexpected(&found(modules), known).join("\n");
        assert!(lines(&["a", "b"], &[]).contains("the circle"));
        assert!(lines(&["a", "b", "c"], KNOWN).ends_with("new in a known knot: c"));
        assert!(lines(&["a", "c"], KNOWN).contains("new in a known knot: c\n"));
        assert!(lines(&["a", "c"], KNOWN).ends_with("taken off the list: b"));
        assert!(lines(&["c", "d"], KNOWN).contains("the circle"));
        assert!(lines(&["c", "d"], KNOWN).ends_with("untied, to be taken off the list: a, b"));
        let elsewhere = vec![("landfall-y".to_owned(), knot(&["a", "b"]))];
        assert_eq!(unexpected(&elsewhere, KNOWN).len(), 2);
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
