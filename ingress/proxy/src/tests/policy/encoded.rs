//! Paths that servers behind decode before they look them up: no spelling of a protected path is served by a route that is open.
//!
//! The spellings are those of CVE-2025-66490 (traefik, `/admin%2F`), CVE-2021-29492 (envoy) and kubernetes/ingress-nginx#8644.

use super::world::{World, get};

const CLOSED: [(&str, &str); 1] = [("denylist-source-range", "0.0.0.0/0,::/0")];
const ALLOW: [(&str, &str); 1] = [("ingress.landfall.dev/encoded-paths", "allow")];
const REFUSE: [(&str, &str); 1] = [("ingress.landfall.dev/encoded-paths", "refuse")];

async fn service() -> super::world::Service {
    super::world::plain("app").await
}

#[tokio::test]
async fn an_encoded_path_meets_no_other_route_than_its_decoded_one() {
    let app = service().await;
    let world = World::new().service("s", &[app.address]);
    let world = world.ingress(&CLOSED, "h.io", ("Prefix", "/admin", "s"));
    let world = world.ingress(&CLOSED, "h.io", ("Exact", "/a:b", "s"));
    let proxy = world.ingress(&[], "h.io", ("Prefix", "/", "s")).start().await;
    assert_eq!(get(&proxy, "/admin/secret", &[]).await.status, 403);
    for path in [
        "/admin%2Fsecret",
        "/admin%2fsecret",
        "/admin%2F",
        "/%2Fadmin/secret",
        "/%2f%2Fadmin",
        "/admin;x/secret",
        "/admin;/secret",
        "/;x/admin",
        "/admin%3Bx/secret",
        "/a%3Ab",
        // Dot segments that show only when they are decoded, wherever they lead.
        "/x/..%2Fadmin/secret",
        "/x%2F..%2Fadmin/secret",
        "/x/%2E%2E%2Fadmin/secret",
        "/x/.%2Fy",
        "/x%2F..",
        "/x/..%3Bx/y",
        "/x%2F%2e%2e%2Fy",
    ] {
        let answer = get(&proxy, path, &[]).await;
        assert_eq!(
            (answer.status, answer.field("x-landfall-reason")),
            (400, Some("encoded_path")),
            "{path}"
        );
        assert_eq!(get(&proxy, &format!("{path}?q=1"), &[]).await.status, 400, "{path}");
    }
    assert_eq!(app.asked().len(), 0);
    for path in [
        "/a%2Fb",
        "/group%2Fproject",
        "/%2F",
        "/a;v=1/b",
        "/caf%C3%A9",
        "/a%20b",
        "/100%25",
        "/admin%3F",
        "/admin%252Fsecret",
        "/a...%2Fb",
        "/a/..b",
        "/x%3Bv",
    ] {
        assert_eq!(get(&proxy, path, &[]).await.status, 200, "{path}");
        assert_eq!(app.next().await.uri.path(), path, "untouched");
    }
    assert_eq!(
        get(&proxy, "/?q=/admin%2Fsecret", &[]).await.status,
        200,
        "a query is no path"
    );
}

#[tokio::test]
async fn the_route_that_the_decoded_path_has_opens_itself_and_each_route_may_refuse() {
    let app = service().await;
    let world = World::new().service("s", &[app.address]);
    let world = world.named(&ALLOW, "h.io", ("Prefix", "/open", "s"));
    let world = world.named(&REFUSE, "h.io", ("Prefix", "/strict", "s"));
    let world = world.ingress(&[], "h.io", ("Prefix", "/closed", "s"));
    let world = world.named(&ALLOW, "h.io", ("Prefix", "/", "s"));
    let proxy = world.start().await;
    for (path, wanted) in [
        ("/open%2Fx", 200),
        // That the literal route allows it opens nothing.
        ("/closed%2Fx", 400),
        ("/closed/a%2Fx", 200),
        ("/strict/a%2Fx", 400),
        ("/strict/a;v=1", 400),
        ("/strict/a%20x", 200),
        ("/strict%2Fx", 400),
        // Nothing opens these.
        ("/open/x%2F..%2Fy", 400),
    ] {
        assert_eq!(get(&proxy, path, &[]).await.status, wanted, "{path}");
    }
}

/// The kind is CVE-2026-48020 (traefik, GHSA-8rxv-jg7p-wvg3): what was captured puts a dot segment together.
#[tokio::test]
async fn a_rewrite_builds_no_path_that_another_route_protects() {
    let app = service().await;
    let world = World::new().service("s", &[app.address]);
    let world = world.ingress(&CLOSED, "h.io", ("Prefix", "/admin", "s"));
    let open = [("rewrite-target", "/public/$1")];
    let world = world.ingress(&open, "h.io", ("ImplementationSpecific", "/api/?(.*)", "s"));
    let near = [("rewrite-target", "/$1")];
    let world = world.ingress(&near, "h.io", ("ImplementationSpecific", "/near/([^/]*)", "s"));
    let world = world.ingress(&[("rewrite-target", "/flat/$2")], "h.io", ("Prefix", "/plain", "s"));
    let proxy = world.ingress(&[], "h.io", ("Prefix", "/", "s")).start().await;
    for path in [
        "/api../admin/x",
        "/api./admin",
        "/api..",
        "/api..%2Fadmin/x",
        "/api..%2fadmin/x",
        "/api.%2e/admin/x",
        "/api..;/admin/x",
        // Decoded it is another route's.
        "/near/admin%2Fx",
    ] {
        let answer = get(&proxy, path, &[]).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
    }
    assert_eq!(app.asked().len(), 0);
    for (path, wanted) in [
        ("/api/x", "/public/x"),
        ("/api...x/y", "/public/...x/y"),
        ("/api/a%2Fb", "/public/a%2Fb"),
        ("/near/x%2Fy", "/x%2Fy"),
        // A group that no expression has is empty.
        ("/plain/x", "/flat/"),
    ] {
        assert_eq!(get(&proxy, path, &[]).await.status, 200, "{path}");
        assert_eq!(app.next().await.uri.path(), wanted);
    }
}

/// nginx compares expressions with the decoded path, so people write them as they read.
#[tokio::test]
async fn expressions_fit_paths_as_people_read_them_and_as_they_are_spelled() {
    let app = service().await;
    let mut world = World::new().service("s", &[app.address]);
    for path in ["/caf\u{e9}/(.*)", "/a b/(.*)", "/%C3%A4/(.*)"] {
        let target = [("rewrite-target", "/x/$1")];
        world = world.ingress(&target, "h.io", ("ImplementationSpecific", path, "s"));
    }
    let proxy = world.start().await;
    for (path, wanted) in [
        ("/caf%C3%A9/%C3%BC%20y", "/x/%C3%BC%20y"),
        ("/a%20b/c%2Fd", "/x/c%2Fd"),
        ("/%c3%a4/e", "/x/e"),
    ] {
        assert_eq!(get(&proxy, path, &[]).await.status, 200, "{path}");
        assert_eq!(app.next().await.uri.path(), wanted, "{path}");
    }
    assert_eq!(get(&proxy, "/cafe/x", &[]).await.status, 404);
}
