use super::*;
use landfall_ingress_translate::object::PortKey;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn object<K: DeserializeOwned>(value: &Value) -> K {
    serde_json::from_value(value.clone()).unwrap()
}

fn world() -> World {
    World::new(Locality::default())
}

fn meta(name: &str) -> Value {
    json!({ "name": name, "namespace": "d", "resourceVersion": "1", "managedFields": [{ "manager": "x" }] })
}

fn service(name: &str) -> Value {
    json!({ "metadata": meta(name), "spec": { "clusterIP": "None", "ports": [{ "port": 80 }], "selector": { "a": "b" } } })
}

fn slice(name: &str, service: &str, ip: &str) -> Value {
    let mut meta = meta(name);
    meta["labels"] = json!({ SERVICE: service });
    json!({ "metadata": meta, "addressType": "IPv4", "ports": [{ "port": 8080, "name": "" }],
        "endpoints": [{ "addresses": [ip], "nodeName": "n", "targetRef": { "kind": "Pod" } }] })
}

const SERVICE: &str = landfall_ingress_translate::services::SERVICE_LABEL;

fn ingress(name: &str, status: Value) -> Value {
    json!({ "metadata": meta(name), "spec": { "ingressClassName": "landfall" }, "status": status })
}

fn list(world: &mut World, ingresses: &[Value], services: &[Value], slices: &[Value]) -> Touched {
    let mut changes = vec![
        Change::Ingress(Event::Init),
        Change::Class(Event::Init),
        Change::Namespace(Event::Init),
        Change::Service(Event::Init),
        Change::Slice(Event::Init),
    ];
    changes.extend(ingresses.iter().map(|o| Change::Ingress(Event::InitApply(object(o)))));
    changes.extend(services.iter().map(|o| Change::Service(Event::InitApply(object(o)))));
    changes.extend(slices.iter().map(|o| Change::Slice(Event::InitApply(object(o)))));
    changes.extend([
        Change::Ingress(Event::InitDone),
        Change::Class(Event::InitDone),
        Change::Namespace(Event::InitDone),
        Change::Service(Event::InitDone),
        Change::Slice(Event::InitDone),
    ]);
    most(
        changes
            .into_iter()
            .map(|change| world.apply(change))
            .collect::<Vec<_>>()
            .into_iter(),
    )
}

fn addresses(world: &World, service: &str) -> Vec<String> {
    let backend = world.services.backend("d", service, &PortKey::Number(80)).0;
    let addresses = backend.endpoints().addresses();
    addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn it_is_whole_when_all_five_lists_are() {
    let mut world = world();
    let done = [
        Change::Ingress(Event::InitDone),
        Change::Class(Event::InitDone),
        Change::Namespace(Event::InitDone),
        Change::Service(Event::InitDone),
        Change::Slice(Event::InitDone),
    ];
    for change in done {
        assert!(!world.whole());
        let _ = world.apply(change);
    }
    assert!(world.whole());
}

#[test]
fn a_list_that_is_read_again_takes_nothing_away_until_it_is_whole() {
    let mut world = world();
    let (services, slices) = (
        [service("a"), service("b")],
        [slice("a-1", "a", "10.0.0.1"), slice("b-1", "b", "10.0.0.2")],
    );
    let _ = list(&mut world, &[], &services, &slices);
    assert_eq!(addresses(&world, "a"), ["10.0.0.1:8080"]);
    let _ = world.apply(Change::Slice(Event::Init));
    let _ = world.apply(Change::Slice(Event::InitApply(object(&slice("b-1", "b", "10.0.0.3")))));
    assert_eq!(addresses(&world, "a"), ["10.0.0.1:8080"]);
    assert_eq!(addresses(&world, "b"), ["10.0.0.2:8080"]);
    // The connection breaks within the list and it begins anew.
    let _ = world.apply(Change::Slice(Event::Init));
    let _ = world.apply(Change::Slice(Event::InitApply(object(&slice("a-2", "a", "10.0.0.4")))));
    let _ = world.apply(Change::Slice(Event::InitDone));
    assert_eq!(addresses(&world, "a"), ["10.0.0.4:8080"]);
    assert_eq!(addresses(&world, "b"), [""; 0]);
}

#[test]
fn a_list_read_again_without_a_difference_touches_no_table() {
    let mut world = world();
    let all = (
        [ingress("i", Value::Null)],
        [service("a")],
        [slice("a-1", "a", "10.0.0.1")],
    );
    assert_eq!(list(&mut world, &all.0, &all.1, &all.2), Touched::Table);
    assert_eq!(world.take_changes().ingresses.len(), 1);
    assert_eq!(list(&mut world, &all.0, &all.1, &all.2), Touched::Endpoints);
    assert!(world.take_changes().is_empty());
    assert_eq!(list(&mut world, &[], &all.1, &all.2), Touched::Table);
    assert!(world.take_changes().ingresses["d/i"].is_none());
}

#[test]
fn own_status_writes_touch_no_table_and_are_seen() {
    let mut world = world();
    let _ = list(&mut world, &[ingress("i", Value::Null)], &[], &[]);
    let mut written = ingress(
        "i",
        json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.9" }, { "hostname": "h" }] } }),
    );
    written["metadata"]["resourceVersion"] = json!("2");
    assert_eq!(
        world.apply(Change::Ingress(Event::Apply(object(&written)))),
        Touched::Endpoints
    );
    let seen = world.ingresses["d/i"].published().unwrap();
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), ["10.0.0.9", "h"]);
    written["metadata"]["annotations"] = json!({ "nginx.ingress.kubernetes.io/x": "y" });
    assert_eq!(
        world.apply(Change::Ingress(Event::Apply(object(&written)))),
        Touched::Table
    );
    assert_eq!(
        world.apply(Change::Ingress(Event::Delete(object(&written)))),
        Touched::Table
    );
    assert!(world.ingresses.is_empty());
}

#[test]
fn an_endpoint_change_touches_no_table_and_is_in_force_at_once() {
    let mut world = world();
    let _ = list(&mut world, &[], &[service("a")], &[slice("a-1", "a", "10.0.0.1")]);
    let backend = world.services.backend("d", "a", &PortKey::Number(80)).0;
    let change = Change::Slice(Event::Apply(object(&slice("a-1", "a", "10.0.0.2"))));
    assert_eq!(world.apply(change), Touched::Endpoints);
    assert_eq!(backend.endpoints().addresses(), ["10.0.0.2:8080".parse().unwrap()]);
}

#[test]
fn conditions_left_out_mean_ready_and_what_neither_is_ready_nor_drains_is_left_out() {
    let is = |ip: &str, conditions: Value| json!({ "addresses": [ip], "conditions": conditions });
    let mut slice = slice("a-1", "a", "10.0.0.1");
    slice["endpoints"] = json!([
        is("10.0.0.1", json!({ "ready": true })),
        is("10.0.0.2", json!({ "ready": null, "serving": null, "terminating": null })),
        is("10.0.0.3", json!({ "ready": false, "serving": true, "terminating": true })),
        is("10.0.0.4", json!({ "ready": false, "serving": false, "terminating": true })),
        is("10.0.0.5", json!({ "ready": false })),
        { "addresses": [] },
        { "addresses": ["pod.example.com"] },
    ]);
    let compact = object::<SliceObject>(&slice).compact(&Locality::default(), &mut Words::default());
    let kept: Vec<_> = compact
        .endpoints
        .iter()
        .map(|e| (e.address.to_string(), e.ready))
        .collect();
    let wanted = [("10.0.0.1", true), ("10.0.0.2", true), ("10.0.0.3", false)];
    assert_eq!(kept, wanted.map(|(ip, ready)| (ip.to_owned(), ready)));
}

#[test]
fn hints_are_seen_from_this_node_and_zone() {
    let mut slice = slice("a-1", "a", "10.0.0.1");
    slice["endpoints"] = json!([{ "addresses": ["10.0.0.1"],
        "hints": { "forZones": [{ "name": "z1" }], "forNodes": [{ "name": "n2" }] } }]);
    let here = Locality {
        node: "n1".to_owned(),
        zone: "z1".to_owned(),
    };
    let endpoint = object::<SliceObject>(&slice)
        .compact(&here, &mut Words::default())
        .endpoints[0];
    assert_eq!(
        (endpoint.node_hint, endpoint.zone_hint),
        (
            landfall_ingress_translate::services::Hint::Elsewhere,
            landfall_ingress_translate::services::Hint::Here
        )
    );
}

fn namespace(name: &str, ending: bool) -> Change {
    let mut meta = json!({ "name": name });
    if ending {
        meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    Change::Namespace(Event::Apply(object(&json!({ "metadata": meta }))))
}

/// Labels of the Ingresses that changed, and whether each is served now.
fn changed(world: &mut World) -> Vec<(String, bool)> {
    let changes = world.take_changes().ingresses.into_iter();
    let mut all: Vec<_> = changes.map(|(label, now)| (label.to_string(), now.is_some())).collect();
    all.sort();
    all
}

#[test]
fn ingresses_of_a_namespace_that_is_being_deleted_are_served_no_more() {
    let mut world = world();
    let _ = list(
        &mut world,
        &[ingress("a", json!({})), ingress("b", json!({}))],
        &[],
        &[],
    );
    assert_eq!(changed(&mut world).len(), 2);
    assert_eq!(world.apply(namespace("d", false)), Touched::Endpoints);
    assert_eq!(world.apply(namespace("other", true)), Touched::Endpoints);
    assert_eq!(world.apply(namespace("d", true)), Touched::Table);
    let gone = [("d/a".to_owned(), false), ("d/b".to_owned(), false)];
    assert_eq!(changed(&mut world), gone);
    // What changes there until it is gone is of no matter.
    let mut written = ingress("a", json!({}));
    written["spec"]["ingressClassName"] = json!("another");
    let written = Change::Ingress(Event::Apply(object(&written)));
    assert_eq!(world.apply(written), Touched::Endpoints);
    let _ = world.apply(Change::Ingress(Event::Delete(object(&ingress("b", json!({}))))));
    assert_eq!(changed(&mut world), [("d/b".to_owned(), false)]);

    // A namespace of the same name is another one, even when its Ingress is heard of first.
    let _ = world.apply(Change::Ingress(Event::Delete(object(&ingress("a", json!({}))))));
    assert_eq!(changed(&mut world), [("d/a".to_owned(), false)]);
    let _ = world.apply(Change::Ingress(Event::Apply(object(&ingress("a", json!({}))))));
    assert_eq!(changed(&mut world), []);
    assert_eq!(world.apply(namespace("d", false)), Touched::Table);
    assert_eq!(changed(&mut world), [("d/a".to_owned(), true)]);
    let _ = world.apply(namespace("d", true));
    for change in [Event::Init, Event::InitDone] {
        let _ = world.apply(Change::Namespace(change));
    }
    assert_eq!(changed(&mut world), [("d/a".to_owned(), true)]);
}

#[test]
fn an_ingress_that_is_being_deleted_is_served_no_more() {
    let mut world = world();
    let mut ending = ingress("a", json!({}));
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let _ = list(&mut world, &[ending.clone(), ingress("b", json!({}))], &[], &[]);
    assert_eq!(changed(&mut world), [("d/b".to_owned(), true)]);
    let _ = world.apply(Change::Ingress(Event::Apply(object(&ingress("a", json!({}))))));
    assert_eq!(changed(&mut world), [("d/a".to_owned(), true)]);
    assert_eq!(
        world.apply(Change::Ingress(Event::Apply(object(&ending)))),
        Touched::Table
    );
    assert_eq!(changed(&mut world), [("d/a".to_owned(), false)]);
}
