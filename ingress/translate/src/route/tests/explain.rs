//! Why requests go where they go.

use super::world::{check, ingress, ours, rule, to, world};
use crate::remark::Reason;
use serde_json::json;

#[test]
fn an_explanation_names_the_host_every_path_and_why_it_lost() {
    let mut spec = ours(&[
        rule(
            "h.x",
            &[
                ("Prefix", "/", "a"),
                ("Exact", "/foo", "b"),
                ("Prefix", "/foo/bar", "c"),
                ("Prefix", "/foo", "d"),
            ],
        ),
        rule("*.x", &[("Prefix", "/", "e")]),
    ]);
    spec["defaultBackend"] = to("f");
    let late = ingress("i2", ours(&[rule("h.x", &[("Prefix", "/", "e")])]));
    let rest = json!({ "ingressClassName": "landfall", "defaultBackend": to("a") });
    let snapshot = check(&world(&[ingress("i1", spec), late, ingress("i3", rest)]), &[]);
    let told = snapshot.table.explain("H.x:80", "/a/../foo?q=1");
    assert_eq!(
        (told.host.as_deref(), told.path.as_deref(), told.refused),
        (Some("h.x"), Some("/foo"), None)
    );
    let hosts: Vec<_> = told
        .hosts
        .iter()
        .map(|step| (step.host.as_str(), step.kind, step.found))
        .collect();
    assert_eq!(hosts, [("h.x", "precise", true)]);
    let candidates: Vec<_> = told
        .candidates
        .iter()
        .map(|c| (c.path.as_str(), c.kind, c.won, c.why.as_str()))
        .collect();
    assert_eq!(
        candidates,
        [
            (
                "/foo/bar",
                "Prefix",
                false,
                "its elements are not the first of the path"
            ),
            ("/foo", "Exact", true, "it fits and comes first"),
            ("/foo", "Prefix", false, "an Exact path takes the request"),
            ("/", "Prefix", false, "an Exact path takes the request"),
        ]
    );
    let winner = told.winner.unwrap();
    assert_eq!(
        (winner.ingress.as_str(), winner.service.as_str(), winner.kind),
        ("d/i1", "d/b:80", "Exact")
    );
    let remarks = snapshot.remarks_on(told.entry.as_deref().unwrap());
    assert_eq!(remarks[0].reason, Reason::PathTaken);
    assert_eq!(json!(remarks)[0]["name"], "i2");

    let told = snapshot.table.explain("y.x", "/foo/x");
    let hosts: Vec<_> = told.hosts.iter().map(|step| (step.host.as_str(), step.found)).collect();
    assert_eq!(hosts, [("y.x", false), ("*.x", true)]);
    let told = snapshot.table.explain("nowhere", "/");
    assert_eq!(told.winner.unwrap().kind, "DefaultBackend");
    assert_eq!(told.hosts.len(), 2);
}

#[test]
fn what_is_refused_is_explained_too() {
    let snapshot = check(&world(&[]), &[]);
    assert!(snapshot.table.explain("a b", "/").refused.is_some());
    assert!(snapshot.table.explain("h", "/%00").refused.is_some());
    let told = snapshot.table.explain("h", "/");
    assert!(told.refused.is_none() && told.winner.is_none());
}
