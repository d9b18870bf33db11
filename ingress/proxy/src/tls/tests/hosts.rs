//! Which certificate a host has (S18, S19, S20, S22).

use super::ends::{ingress, remarks, snapshot, snapshot_of, view};
use super::pki::{Authority, pem, secret};
use crate::tls::{earliest, facts};
use landfall_ingress_translate::object::Ingress;
use landfall_ingress_translate::route::Snapshot;
use landfall_ingress_translate::secrets::{Found, Name, View};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The names of the certificate that a host has; empty for the default one.
fn served(snapshot: &Snapshot, host: &str) -> Vec<String> {
    snapshot
        .table
        .certificate(host)
        .map_or_else(Vec::new, |c| c.names().to_vec())
}

fn tls(hosts: &[&str], secret: &str) -> serde_json::Value {
    json!([{ "hosts": hosts, "secretName": secret }])
}

#[test]
fn s18_the_server_name_picks_the_certificate_precise_before_wildcard_before_default() {
    let ca = Authority::new("ca");
    let snapshot = snapshot(
        vec![
            ingress("default", "a", 1, &["a.example.com"], tls(&["a.example.com"], "a")),
            ingress("default", "w", 2, &["*.example.com"], tls(&["*.example.com"], "w")),
        ],
        vec![
            ca.server(&["a.example.com"]).secret("a"),
            ca.server(&["*.example.com"]).secret("w"),
        ],
    );
    assert_eq!(remarks(&snapshot), [""; 0]);
    assert_eq!(served(&snapshot, "a.example.com"), ["a.example.com"]);
    assert_eq!(served(&snapshot, "b.example.com"), ["*.example.com"]);
    for none in ["x.b.example.com", "example.com", ".example.com", "other", ""] {
        assert_eq!(served(&snapshot, none), [""; 0], "{none}");
        assert!(!snapshot.has_tls(none), "{none}");
    }
    assert!(snapshot.has_tls("a.example.com") && snapshot.has_tls("b.example.com"));
    assert!(snapshot.table.same_certificate("b.example.com", "c.example.com"));
    assert!(!snapshot.table.same_certificate("a.example.com", "b.example.com"));
}

#[test]
fn s18_an_item_without_hosts_is_for_its_own_ingress_and_the_class_default() {
    let ca = Authority::new("ca");
    let snapshot = snapshot(
        vec![
            ingress("default", "a", 1, &["a.com", "b.com"], json!([{ "secretName": "a" }])),
            ingress("default", "z", 2, &["z.com"], json!([{ "secretName": "z" }])),
            ingress("default", "n", 3, &["n.com"], json!([{ "hosts": ["n.com"] }])),
        ],
        vec![ca.server(&["a.com"]).secret("a"), ca.server(&["z.com"]).secret("z")],
    );
    for host in ["a.com", "b.com", "n.com", "unknown", ""] {
        assert_eq!(served(&snapshot, host), ["a.com"], "{host}");
    }
    assert_eq!(served(&snapshot, "z.com"), ["z.com"]);
    assert!(snapshot.has_tls("b.com") && snapshot.has_tls("n.com") && !snapshot.has_tls("unknown"));
    let remarks = remarks(&snapshot).join("\n");
    assert!(
        remarks.contains(
            "default/a: TLS for b.com has the default certificate: Secret a has a certificate for other hosts"
        ),
        "{remarks}"
    );
    assert!(
        remarks.contains("default/z: default/a, which is older, has the default certificate"),
        "{remarks}"
    );
}

#[test]
fn s18_an_empty_secret_name_is_tls_with_the_default_certificate_without_a_remark() {
    let item = json!([{ "hosts": ["a.com"], "secretName": "" }]);
    let snapshot = snapshot(vec![ingress("default", "a", 1, &["a.com"], item)], vec![]);
    assert!(snapshot.has_tls("a.com") && snapshot.table.certificate("a.com").is_none());
    assert_eq!(remarks(&snapshot), [""; 0]);
}

#[test]
fn s18_the_operators_default_certificate_wins_over_a_tenants() {
    let ca = Authority::new("ca");
    let tenant = ingress("default", "a", 1, &["a.com"], json!([{ "secretName": "a" }]));
    let secrets = vec![ca.server(&["a.com"]).secret("a"), ca.server(&["ops.com"]).secret("ops")];
    let secrets = view(secrets);
    let snapshot = snapshot_of(vec![tenant.clone()], &secrets, Name::parse("default/ops").as_ref());
    assert_eq!(served(&snapshot, "unknown"), ["ops.com"]);
    assert_eq!(served(&snapshot, "a.com"), ["a.com"]);
    let none = Name::parse("default/none");
    let snapshot = snapshot_of(vec![tenant], &view(vec![]), none.as_ref());
    assert!(
        snapshot.table.certificate("unknown").is_none(),
        "self-signed, never a tenant's"
    );
    let remarks = remarks(&snapshot).join("\n");
    assert!(
        remarks.contains("default/none: the default certificate is self-signed: this Secret was not read yet"),
        "{remarks}"
    );
    assert!(snapshot.wanted.contains(none.as_ref().unwrap()));
}

#[test]
fn s19_a_secret_that_cannot_be_used_costs_its_own_host_only_and_is_remarked() {
    let ca = Authority::new("ca");
    let (good, other) = (ca.server(&["good.com"]), ca.server(&["other.com"]));
    let cases = [
        ("missing.com", "missing", "does not exist"),
        ("forbidden.com", "forbidden", "cannot be read: secrets is forbidden"),
        ("pending.com", "pending", "was not read yet"),
        ("empty.com", "empty", "has no tls.crt"),
        ("keyless.com", "keyless", "has no tls.key"),
        ("nonsense.com", "nonsense", "has no PEM in tls.crt"),
        (
            "broken.com",
            "broken",
            "has something else than certificates in tls.crt",
        ),
        ("badkey.com", "badkey", "has a tls.key that is damaged"),
        (
            "mismatch.com",
            "mismatch",
            "has a tls.key that belongs to none of its certificates",
        ),
        ("covered.com", "covered", "has a certificate for other hosts"),
        ("name.com", "no_name", "has no valid name"),
    ];
    let mut ingresses: Vec<Arc<Ingress>> = cases
        .iter()
        .map(|(host, name, _)| ingress("default", name, 1, &[host], tls(&[host], name)))
        .collect();
    ingresses.push(ingress("default", "good", 2, &["good.com"], tls(&["good.com"], "good")));
    let (chain, key) = (good.chain_pem(), good.key_pem());
    let broken = pem("CERTIFICATE", b"not DER");
    let given = view(vec![
        good.secret("good"),
        secret("empty", &[]),
        secret("keyless", &[("tls.crt", &chain), ("tls.key", "")]),
        secret("nonsense", &[("tls.crt", "hello"), ("tls.key", &key)]),
        secret("broken", &[("tls.crt", &broken), ("tls.key", &key)]),
        secret(
            "badkey",
            &[("tls.crt", &chain), ("tls.key", &pem("PRIVATE KEY", b"not a key"))],
        ),
        secret("mismatch", &[("tls.crt", &chain), ("tls.key", &other.key_pem())]),
        other.secret("covered"),
    ]);
    let mut found: BTreeMap<Name, Found> = cases
        .iter()
        .filter_map(|(_, name, _)| Some((Name::new("default", name)?, ())))
        .map(|(name, ())| {
            let found = given.get(&name).map_or(Found::Missing, |m| Found::Here(m.clone()));
            (name, found)
        })
        .collect();
    let name = |n| Name::new("default", n).unwrap();
    found.insert(name("forbidden"), Found::Unreadable("secrets is forbidden".into()));
    found.insert(name("pending"), Found::Pending);
    found.insert(name("good"), Found::Here(given.get(&name("good")).unwrap().clone()));
    let snapshot = snapshot_of(ingresses, &View::new(found), None);
    let remarks = remarks(&snapshot);
    let table = facts(&snapshot.table, 0);
    for (host, secret, why) in cases {
        assert!(snapshot.table.certificate(host).is_none(), "{host}");
        assert!(snapshot.has_tls(host), "{host}");
        let remark = format!("TLS for {host} has the default certificate: Secret {secret} {why}");
        assert!(remarks.iter().any(|r| r.contains(&remark)), "{remark}: {remarks:?}");
        let fact = table.iter().find(|fact| fact.host == host).unwrap();
        assert!(
            fact.problem.as_ref().unwrap().contains(why) && fact.not_after.is_none(),
            "{fact:?}"
        );
    }
    assert_eq!(served(&snapshot, "good.com"), ["good.com"]);
}

#[test]
fn s19_a_chain_in_any_order_is_served_from_the_leaf_on() {
    let (ca, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let pair = ca.server(&["a.com"]);
    let text = [ca.pem(), stranger.pem(), pair.chain_pem()].concat();
    let secret = secret("a", &[("tls.crt", &text), ("tls.key", &pair.key_pem())]);
    let snapshot = snapshot(
        vec![ingress("default", "a", 1, &["a.com"], tls(&["a.com"], "a"))],
        vec![secret],
    );
    let chain: Vec<Vec<u8>> = snapshot
        .table
        .certificate("a.com")
        .unwrap()
        .key()
        .cert
        .iter()
        .map(|c| c.to_vec())
        .collect();
    assert_eq!(chain, [pair.der, ca.der]);
}

#[test]
fn s19_expiry_is_told_with_days_left_and_the_earliest_first() {
    let ca = Authority::new("ca");
    let snapshot = snapshot(
        vec![
            ingress("default", "old", 1, &["old.com"], tls(&["old.com"], "old")),
            ingress(
                "default",
                "new",
                2,
                &["new.com", "n2.com"],
                tls(&["new.com", "n2.com"], "new"),
            ),
        ],
        vec![
            ca.expired("old.com").secret("old"),
            ca.server(&["new.com", "n2.com"]).secret("new"),
        ],
    );
    let end_of_2019 = 1_577_836_800;
    let day = 86_400;
    let fact = |now: i64| {
        facts(&snapshot.table, now)
            .into_iter()
            .find(|f| f.host == "old.com")
            .unwrap()
    };
    assert_eq!(fact(end_of_2019 - 3 * day).days_left, Some(3));
    assert_eq!(fact(end_of_2019 - 3 * day).problem, None);
    assert_eq!(fact(end_of_2019 + 1).days_left, Some(-1));
    assert_eq!(fact(end_of_2019 + 1).problem.as_deref(), Some("has expired"));
    assert_eq!(fact(0).problem.as_deref(), Some("is not valid yet"));
    assert_eq!(fact(0).secret.as_deref(), Some("default/old"));
    assert_eq!(earliest(&snapshot.table, 1), [("default/old".to_owned(), end_of_2019)]);
    assert_eq!(earliest(&snapshot.table, 9).len(), 2, "one per Secret");
}

#[test]
fn s20_a_certificate_comes_only_from_the_namespace_that_the_host_belongs_to() {
    let ca = Authority::new("ca");
    let mut foreign = ca.server(&["a.com", "*.a.com"]).secret("theirs");
    foreign.metadata.namespace = Some("thief".to_owned());
    let snapshot = snapshot(
        vec![
            ingress("default", "a", 1, &["a.com", "x.a.com"], json!([])),
            ingress(
                "thief",
                "t",
                2,
                &["*.a.com"],
                tls(&["a.com", "*.a.com", "free.com"], "theirs"),
            ),
            // Names a Secret that is only there in another namespace.
            ingress("default", "b", 3, &["b.com"], tls(&["b.com"], "theirs")),
        ],
        vec![foreign],
    );
    assert!(!snapshot.has_tls("a.com") && snapshot.table.certificate("a.com").is_none());
    assert!(!snapshot.table.host("x.a.com").unwrap().tls && snapshot.table.host("y.a.com").unwrap().tls);
    assert!(
        !snapshot.has_tls("x.a.com"),
        "a wildcard's certificate is not for another namespace's host"
    );
    assert_eq!(served(&snapshot, "y.a.com"), ["a.com", "*.a.com"]);
    assert!(snapshot.table.certificate("b.com").is_none());
    let all: Vec<String> = snapshot.remarks().iter().map(ToString::to_string).collect();
    assert!(
        all.iter()
            .any(|r| r == "thief/t: tls: host a.com belongs to another namespace"),
        "{all:?}"
    );
    let names: Vec<String> = snapshot.wanted.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["default/theirs", "thief/theirs"]);
}

#[test]
fn s20_a_host_without_rules_belongs_to_the_oldest_that_names_it() {
    let ca = Authority::new("ca");
    let mut late = ca.server(&["a.com"]).secret("late");
    late.metadata.namespace = Some("late".to_owned());
    let snapshot = snapshot(
        vec![
            ingress("default", "a", 1, &[], tls(&["a.com"], "none")),
            ingress("late", "b", 2, &[], tls(&["a.com"], "late")),
        ],
        vec![late],
    );
    assert!(snapshot.has_tls("a.com") && snapshot.table.certificate("a.com").is_none());
}

#[test]
fn s22_tls_of_any_ingress_applies_to_the_host_the_oldest_that_can_be_used_first() {
    let ca = Authority::new("ca");
    let snapshot = snapshot(
        vec![
            ingress("default", "plain", 1, &["a.com"], json!([])),
            ingress("default", "broken", 2, &["a.com"], tls(&["a.com"], "none")),
            ingress("default", "first", 3, &["a.com"], tls(&["A.com"], "first")),
            ingress("default", "second", 4, &["a.com"], tls(&["a.com"], "second")),
        ],
        vec![
            ca.server(&["a.com", "first.com"]).secret("first"),
            ca.server(&["a.com", "second.com"]).secret("second"),
        ],
    );
    assert_eq!(served(&snapshot, "a.com"), ["a.com", "first.com"]);
    let remarks = remarks(&snapshot).join("\n");
    assert!(
        remarks.contains("default/second: a.com has its certificate from default/first, which is older"),
        "{remarks}"
    );
}

#[test]
fn a_secret_of_another_type_is_used_and_remarked_once() {
    let mut secret = Authority::new("ca").server(&["a.com", "b.com"]).secret("a");
    secret.type_ = Some("Opaque".to_owned());
    let item = tls(&["a.com", "b.com"], "a");
    let snapshot = snapshot(
        vec![ingress("default", "a", 1, &["a.com", "b.com"], item)],
        vec![secret],
    );
    assert!(snapshot.table.certificate("b.com").is_some());
    let wanted = "default/a: this Secret is not of type kubernetes.io/tls; it is used all the same";
    assert_eq!(remarks(&snapshot), [wanted]);
}

#[test]
fn what_is_wanted_depends_on_ingresses_alone() {
    let bad = ingress(
        "default",
        "a",
        1,
        &["a.com"],
        json!([{ "secretName": "x,y" }, { "secretName": "fine" }, {}]),
    );
    let snapshot = snapshot(vec![bad], vec![]);
    let names: Vec<String> = snapshot.wanted.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["default/fine"]);
}
