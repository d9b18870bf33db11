//! Feature: requests go by path; `Exact` to the letter, `Prefix` element by element.

use crate::world::{Asked, World, rule};
use serde_json::json;

async fn ask(host: &str, path: &str) -> Asked {
    let rules = [
        rule("exact-path-rules", &[("Exact", "/foo", "foo-exact")]),
        rule(
            "prefix-path-rules",
            &[
                ("Prefix", "/foo", "foo-prefix"),
                ("Prefix", "/aaa/bbb", "aaa-slash-bbb-prefix"),
                ("Prefix", "/aaa", "aaa-prefix"),
            ],
        ),
        rule(
            "mixed-path-rules",
            &[("Prefix", "/foo", "foo-prefix"), ("Exact", "/foo", "foo-exact")],
        ),
        rule(
            "trailing-slash-path-rules",
            &[
                ("Prefix", "/aaa/bbb/", "aaa-slash-bbb-slash-prefix"),
                ("Exact", "/foo/", "foo-slash-exact"),
            ],
        ),
    ];
    let spec = json!({ "ingressClassName": "landfall", "rules": rules });
    let world = World::with("path-rules", spec, &[]).await.exposed("path-rules").await;
    world.send("GET", host, path).await
}

/// One scenario each: name, host, path, and the Service that has to answer; none for 404.
macro_rules! scenarios {
    ($($name:ident: $host:literal $path:literal => $service:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let (asked, service): (Asked, Option<&str>) = (ask($host, $path).await, $service);
            match service {
                Some(service) => asked.served_by(service),
                None => asked.is_not_found(),
            }
        }
    )*};
}

scenarios! {
    exact_matches_the_same_path: "exact-path-rules" "/foo" => Some("foo-exact");
    exact_does_not_match_with_a_slash_at_the_end: "exact-path-rules" "/foo/" => None;
    exact_minds_case: "exact-path-rules" "/FOO" => None;
    exact_does_not_match_another_path: "exact-path-rules" "/bar" => None;
    prefix_matches_the_same_path: "prefix-path-rules" "/foo" => Some("foo-prefix");
    prefix_matches_with_a_slash_at_the_end: "prefix-path-rules" "/foo/" => Some("foo-prefix");
    prefix_minds_case: "prefix-path-rules" "/FOO" => None;
    the_longer_of_two_prefixes_wins: "prefix-path-rules" "/aaa/bbb" => Some("aaa-slash-bbb-prefix");
    the_longer_of_two_prefixes_wins_below_it: "prefix-path-rules" "/aaa/bbb/ccc" => Some("aaa-slash-bbb-prefix");
    the_shorter_of_two_prefixes_matches_beside_the_longer: "prefix-path-rules" "/aaa/ccc" => Some("aaa-prefix");
    prefix_does_not_match_within_an_element: "prefix-path-rules" "/aaaccc" => None;
    // The suite has this scenario twice.
    prefix_matches_with_a_slash_at_the_end_again: "prefix-path-rules" "/foo/" => Some("foo-prefix");
    exact_wins_over_prefix: "mixed-path-rules" "/foo" => Some("foo-exact");
    prefix_with_a_slash_at_the_end_matches_without: "trailing-slash-path-rules" "/aaa/bbb" => Some("aaa-slash-bbb-slash-prefix");
    prefix_with_a_slash_at_the_end_matches_with: "trailing-slash-path-rules" "/aaa/bbb/" => Some("aaa-slash-bbb-slash-prefix");
    exact_with_a_slash_at_the_end_does_not_match_without: "trailing-slash-path-rules" "/foo" => None;
}
