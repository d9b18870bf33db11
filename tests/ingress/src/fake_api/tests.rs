//! The fake does what the proxy's tests rely on.

use super::target::Target;
use super::*;
use crate::objects::{ingress, service};

async fn ask(api: &FakeApi, target: &str) -> (u16, Value) {
    let (status, text) = crate::client::fetch(api.address, "api", target).await;
    (status, serde_json::from_str(&text).unwrap())
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn pages_of_a_list_join_without_gap_and_bear_the_first_ones_version() {
    let api = FakeApi::start().await;
    api.put_all("services", ["a", "b", "c", "d", "e"].map(service));
    let (_, first) = ask(&api, "/api/v1/services?limit=2").await;
    api.put("services", service("bb"));
    let next = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = ask(&api, &format!("/api/v1/services?limit=9&continue={next}")).await;
    assert_eq!(
        (names(&first), names(&second)),
        (vec!["a", "b"], vec!["bb", "c", "d", "e"])
    );
    assert_eq!(
        first["metadata"]["resourceVersion"],
        second["metadata"]["resourceVersion"]
    );
    assert_eq!(second["metadata"]["continue"], "");
    api.expire_page();
    let again = format!("/api/v1/services?limit=9&continue={next}");
    assert_eq!((ask(&api, &again).await.0, ask(&api, &again).await.0), (410, 200));
}

#[tokio::test]
async fn selectors_choose_and_refusals_refuse() {
    let api = FakeApi::start().await;
    let labelled = |name, label| json!({ "metadata": { "name": name, "namespace": "n", "labels": { "a/b": label } } });
    api.put_all("pods", [labelled("x", "1"), labelled("y", "2")]);
    let (_, list) = ask(&api, "/api/v1/namespaces/n/pods?labelSelector=a%2Fb%3D2").await;
    assert_eq!(names(&list), ["y"]);
    let (_, list) = ask(&api, "/api/v1/pods?fieldSelector=metadata.name%3Dx").await;
    assert_eq!(names(&list), ["x"]);
    let (_, list) = ask(&api, "/api/v1/pods?labelSelector=a%2Fb%21%3D2").await;
    assert_eq!(names(&list), ["x"]);
    let both = "/api/v1/pods?fieldSelector=metadata.name%21%3Dx%2Cmetadata.name%21%3Dz";
    assert_eq!(names(&ask(&api, both).await.1), ["y"]);
    assert_eq!(ask(&api, "/api/v1/namespaces/n/pods/z").await.0, 404);
    api.forbid("list", "pods");
    assert_eq!(ask(&api, "/api/v1/pods").await.0, 403);
    assert_eq!(api.count("list", "pods"), 5);
}

#[tokio::test]
async fn a_streaming_list_ends_in_its_bookmark_and_goes_on_as_a_watch() {
    let api = FakeApi::start().await;
    api.put("ingresses", ingress("a", "h", "s"));
    let path = "/apis/networking.k8s.io/v1/ingresses";
    let target = Target::of(path, "watch=true&sendInitialEvents=true&allowWatchBookmarks=true").unwrap();
    let Stream(mut events) = api.watch(target).await.into_body();
    let mut next = async || {
        let event: Value = serde_json::from_slice(&events.recv().await.unwrap()).unwrap();
        let name = event["object"]["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (
            event["type"].as_str().unwrap().to_owned(),
            name,
            event["object"]["metadata"].clone(),
        )
    };
    assert_eq!(next().await.1, "a");
    let (kind, _, metadata) = next().await;
    assert_eq!(
        (kind.as_str(), &metadata["annotations"]["k8s.io/initial-events-end"]),
        ("BOOKMARK", &json!("true"))
    );
    api.delete("ingresses", "default", "a");
    assert_eq!(next().await.0, "DELETED");
    api.streaming_lists(StreamingLists::Refused);
    let again = ask(&api, &format!("{path}?watch=true&sendInitialEvents=true")).await;
    assert_eq!(again.0, 422);
    // A server that does not know the wish sends what there is and says nothing of an end.
    api.streaming_lists(StreamingLists::Ignored);
    api.put("ingresses", ingress("b", "h", "s"));
    let target = Target::of(path, "watch=true&sendInitialEvents=true").unwrap();
    let Stream(mut events) = api.watch(target).await.into_body();
    let mut next = async || -> Value { serde_json::from_slice(&events.recv().await.unwrap()).unwrap() };
    assert_eq!(next().await["object"]["metadata"]["name"], "b");
    api.put("ingresses", ingress("c", "h", "s"));
    assert_eq!(next().await["object"]["metadata"]["name"], "c");
}

#[tokio::test]
async fn a_watch_from_before_what_is_remembered_is_told_so() {
    let api = FakeApi::start().await;
    api.put("services", service("a"));
    api.cut_and_forget();
    let target = Target::of("/api/v1/services", "watch=true&resourceVersion=1").unwrap();
    let Stream(mut events) = api.watch(target).await.into_body();
    let event: Value = serde_json::from_slice(&events.recv().await.unwrap()).unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
}

#[tokio::test]
async fn ten_thousand_objects_are_listed_whole() {
    let api = FakeApi::start().await;
    api.put_all(
        "ingresses",
        (0..10_000).map(|i| ingress(&format!("i{i}"), &format!("h{i}"), "s")),
    );
    let (status, list) = ask(&api, "/apis/networking.k8s.io/v1/ingresses").await;
    assert_eq!((status, names(&list).len()), (200, 10_000));
}
