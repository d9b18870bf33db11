//! Bad versions of an Ingress, and what is served instead.

use super::world::{annotate, end, ingress, object, ours, rule, world};
use crate::options::Options;
use crate::remark::Reason;
use crate::route::{Builder, LastGood, Objects, Snapshot};
use crate::secrets::lookup::NoSecrets;
use serde_json::{Value, json};

const NGINX: &str = "nginx.ingress.kubernetes.io";

fn site(service: &str) -> Value {
    let mut site = ingress("i1", ours(&[rule("h", &[("Prefix", "/", service)])]));
    site["metadata"]["uid"] = json!("one");
    site
}

fn with(service: &str, name: &str, value: &str) -> Value {
    let mut site = site(service);
    annotate(&mut site, &format!("{NGINX}/{name}"), value);
    site
}

fn build(builder: &mut Builder, ingresses: &[Value]) -> Snapshot {
    builder.build(&world(ingresses), &NoSecrets)
}

fn reasons(snapshot: &Snapshot) -> Vec<Reason> {
    snapshot.remarks().iter().map(|remark| remark.reason).collect()
}

#[test]
fn a_bad_version_leaves_the_last_good_one_and_blocks_nobody() {
    let mut builder = Builder::new(Options::default());
    let other = ingress("i2", ours(&[rule("other", &[("Prefix", "/", "b")])]));
    assert_eq!(end(&build(&mut builder, &[site("a"), other]), "h", "/"), 'a');
    // The new version leads elsewhere and has a value that cannot be read.
    let other = ingress("i2", ours(&[rule("other", &[("Prefix", "/", "d")])]));
    let snapshot = build(&mut builder, &[with("c", "proxy-body-size", "much"), other]);
    assert_eq!((end(&snapshot, "h", "/"), end(&snapshot, "other", "/")), ('a', 'd'));
    assert_eq!(reasons(&snapshot), [Reason::BadAnnotation, Reason::LastGoodKept]);
    // Mended, it counts.
    let snapshot = build(&mut builder, &[with("c", "proxy-body-size", "1m")]);
    assert_eq!(end(&snapshot, "h", "/"), 'c');
    assert!(snapshot.remarks().is_empty());
}

#[test]
fn without_a_good_version_what_can_be_read_is_served() {
    let snapshot = build(
        &mut Builder::new(Options::default()),
        &[with("c", "proxy-body-size", "much")],
    );
    assert_eq!(end(&snapshot, "h", "/"), 'c');
    assert_eq!(reasons(&snapshot), [Reason::BadAnnotation]);
}

#[test]
fn protection_comes_from_the_newest_version_and_closes_when_it_cannot_be_read() {
    let mut builder = Builder::new(Options::default());
    build(&mut builder, &[site("a")]);
    let closed = build(&mut builder, &[with("c", "whitelist-source-range", "everywhere")]);
    let route = closed.table.find("h", "/").unwrap();
    assert!(route.policy.closed.is_some());
    assert_eq!(end(&closed, "h", "/"), 'c');
    // Bad for another reason too: old routes, new protection.
    let mut both = with("d", "proxy-body-size", "much");
    annotate(&mut both, &format!("{NGINX}/whitelist-source-range"), "10.0.0.0/8");
    let kept = build(&mut builder, &[both]);
    let route = kept.table.find("h", "/").unwrap();
    assert_eq!(end(&kept, "h", "/"), 'c');
    assert!(route.policy.closed.is_none());
    assert!(!route.policy.sources.admits(Some("11.0.0.1".parse().unwrap())));
}

#[test]
fn good_versions_pass_to_the_next_process_and_only_those_that_are_needed() {
    let mut builder = Builder::new(Options::default());
    let other = ingress("i2", ours(&[rule("other", &[("Prefix", "/", "b")])]));
    build(&mut builder, &[site("a"), other.clone()]);
    assert_eq!(json!(builder.last_good())["ingresses"], json!([]));
    let bad = with("c", "proxy-body-size", "much");
    build(&mut builder, &[bad.clone(), other]);
    let text = serde_json::to_string(&builder.last_good()).unwrap();
    assert!(!text.contains("other"), "{text}");
    let read: LastGood = serde_json::from_str(&text).unwrap();
    let mut next = Builder::new(Options::default()).with_last_good(read);
    assert_eq!(end(&build(&mut next, std::slice::from_ref(&bad)), "h", "/"), 'a');
    assert_eq!(next.last_good(), builder.last_good());
    // Of an object that was deleted and made again the old version says nothing.
    let mut again = bad;
    again["metadata"]["uid"] = json!("two");
    assert_eq!(end(&build(&mut next, &[again]), "h", "/"), 'c');
}

#[test]
fn what_did_not_change_is_not_compiled_again_and_the_table_is_the_same() {
    let mut builder = Builder::new(Options::default());
    let objects: Objects = world(&[site("a")]);
    let one = builder.build(&objects, &NoSecrets);
    let two = builder.build(&objects, &NoSecrets);
    let policy = |snapshot: &Snapshot| snapshot.table.find("h", "/").unwrap().policy.clone();
    assert!(std::sync::Arc::ptr_eq(&policy(&one), &policy(&two)));
    let mut changed = world(&[site("b")]);
    changed.ingresses[0] = object(site("b"));
    assert_eq!(end(&builder.build(&changed, &NoSecrets), "h", "/"), 'b');
}
