//! The suite's features: the objects in the cluster, the requests and the expected answers.

use crate::objects::tls_secret;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

/// The host whose certificate is in a Secret.
pub const HOST_WITH_TLS: &str = "foo.bar.com";

/// One feature.
pub struct Feature {
    /// Its name, and that of the Ingress whose status shows that all is exposed.
    pub name: &'static str,
    pub(super) ingresses: Vec<Value>,
    /// An older default backend, without an endpoint, is in a namespace that is being deleted: as after a feature that has just ended.
    pub(super) after_another: bool,
    pub(super) secrets: Vec<Value>,
    /// The one for [`HOST_WITH_TLS`].
    pub(super) certificate: Option<CertificateDer<'static>>,
    pub(super) scenarios: Vec<(&'static str, Scenario)>,
}

/// One check of a scenario.
pub(super) enum Scenario {
    /// A question has the right answer.
    Asks(Question),
    /// A hundred requests reach all ten pods of this Service.
    AllPods(&'static str),
    /// No controller handles this Ingress.
    LeftAlone(&'static str),
}

/// One request and who has to answer it.
pub(super) struct Question {
    pub(super) method: &'static str,
    /// Empty for the address that is asked.
    pub(super) host: &'static str,
    pub(super) path: &'static str,
    pub(super) tls: bool,
    pub(super) wants: Wants,
}

/// The right answer.
#[derive(Clone, Copy)]
pub(super) enum Wants {
    /// That of a pod of this Service.
    Service(&'static str),
    /// 404.
    NotFound,
    /// 308 to https.
    Https,
}

use Wants::{Https, NotFound, Service};

/// All features.
pub fn features() -> Vec<Feature> {
    vec![
        default_backend("default-backend"),
        Feature {
            after_another: true,
            ..default_backend("default-backend-after-another")
        },
        host_rules(),
        ingress_class(),
        load_balancing(),
        path_rules(),
    ]
}

/// An Ingress without rules sends everything to its default backend.
fn default_backend(name: &'static str) -> Feature {
    let to = |method, host, path| asks(method, host, path, Service("echo-service"));
    Feature {
        ingresses: vec![ingress(name, json!({ "defaultBackend": backend("echo-service") }))],
        scenarios: vec![
            ("GET without a path", to("GET", "my-host", "/")),
            ("GET with a path", to("GET", "my-host", "/sub-path")),
            ("POST without a path", to("POST", "some-host", "/")),
            ("PUT without a host of its own", to("PUT", "", "/resource")),
            ("DELETE with a path", to("DELETE", "some-host", "/resource")),
            ("PATCH with a path", to("PATCH", "my-host", "/resource")),
        ],
        ..Feature::new(name)
    }
}

/// Requests go by host; a wildcard covers one label; TLS by the host's certificate.
fn host_rules() -> Feature {
    // Cannot fail for a name that is one.
    let made = rcgen::generate_simple_self_signed(vec![HOST_WITH_TLS.to_owned()]).unwrap();
    let mut precise = rule(HOST_WITH_TLS, &[("Prefix", "/", "foo-bar-com")]);
    precise["http"]["paths"][0]["backend"]["service"]["port"] = json!({ "name": "http" });
    let spec = json!({
        "tls": [{ "hosts": [HOST_WITH_TLS], "secretName": "conformance-tls" }],
        "rules": [rule("*.foo.com", &[("Prefix", "/", "wildcard-foo-com")]), precise],
    });
    let over_tls = || {
        Scenario::Asks(Question {
            method: "GET",
            host: HOST_WITH_TLS,
            path: "/",
            tls: true,
            wants: Service("foo-bar-com"),
        })
    };
    let get = |host, wants| asks("GET", host, "/", wants);
    Feature {
        ingresses: vec![ingress("host-rules", spec)],
        secrets: vec![tls_secret(
            "conformance-tls",
            made.cert.der(),
            &made.signing_key.serialize_der(),
        )],
        certificate: Some(made.cert.der().clone()),
        scenarios: vec![
            ("TLS for a host verifies and arrives", over_tls()),
            // A host with TLS is redirected to it by default, and the suite's client follows.
            ("a host's requests are led to TLS", get(HOST_WITH_TLS, Https)),
            ("a host's requests arrive", over_tls()),
            ("another host is not found", get("subdomain.bar.com", NotFound)),
            (
                "a wildcard covers one label",
                get("bar.foo.com", Service("wildcard-foo-com")),
            ),
            ("a wildcard does not cover two labels", get("baz.bar.foo.com", NotFound)),
            ("a wildcard does not cover no label", get("foo.com", NotFound)),
        ],
        ..Feature::new("host-rules")
    }
}

/// An Ingress of a class that is not ours is left alone.
fn ingress_class() -> Feature {
    let rules = |host| json!({ "rules": [rule(host, &[("Prefix", "/", "ingress-class-prefix")])] });
    let mut foreign = ingress("foreign", rules("ingress-class"));
    foreign["spec"]["ingressClassName"] = json!("some-invalid-class-name");
    Feature {
        // Ours beside it shows when the writer has written what it has to write.
        ingresses: vec![ingress("ingress-class", rules("ours")), foreign],
        scenarios: vec![
            (
                "an Ingress of an unknown class gets no status",
                Scenario::LeftAlone("foreign"),
            ),
            ("and no traffic", asks("GET", "ingress-class", "/", NotFound)),
        ],
        ..Feature::new("ingress-class")
    }
}

/// All pods of a Service are used.
fn load_balancing() -> Feature {
    Feature {
        ingresses: vec![ingress(
            "load-balancing",
            json!({ "defaultBackend": backend("echo-service") }),
        )],
        scenarios: vec![(
            "a hundred requests reach all ten pods",
            Scenario::AllPods("echo-service"),
        )],
        ..Feature::new("load-balancing")
    }
}

/// Requests go by path; `Exact` to the letter, `Prefix` element by element.
fn path_rules() -> Feature {
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
    let exact = |path, wants| asks("GET", "exact-path-rules", path, wants);
    let prefix = |path, wants| asks("GET", "prefix-path-rules", path, wants);
    let slash = |path, wants| asks("GET", "trailing-slash-path-rules", path, wants);
    let with_slash = Service("aaa-slash-bbb-slash-prefix");
    Feature {
        ingresses: vec![ingress("path-rules", json!({ "rules": rules }))],
        scenarios: vec![
            ("Exact matches the same path", exact("/foo", Service("foo-exact"))),
            ("Exact does not match with a slash at the end", exact("/foo/", NotFound)),
            ("Exact minds case", exact("/FOO", NotFound)),
            ("Exact does not match another path", exact("/bar", NotFound)),
            ("Prefix matches the same path", prefix("/foo", Service("foo-prefix"))),
            (
                "Prefix matches with a slash at the end",
                prefix("/foo/", Service("foo-prefix")),
            ),
            ("Prefix minds case", prefix("/FOO", NotFound)),
            (
                "the longer of two Prefixes wins",
                prefix("/aaa/bbb", Service("aaa-slash-bbb-prefix")),
            ),
            (
                "the longer of two Prefixes wins below it",
                prefix("/aaa/bbb/ccc", Service("aaa-slash-bbb-prefix")),
            ),
            (
                "the shorter of two Prefixes matches beside the longer",
                prefix("/aaa/ccc", Service("aaa-prefix")),
            ),
            ("Prefix does not match within an element", prefix("/aaaccc", NotFound)),
            // The suite has this scenario twice.
            (
                "Prefix matches with a slash at the end, again",
                prefix("/foo/", Service("foo-prefix")),
            ),
            (
                "Exact wins over Prefix",
                asks("GET", "mixed-path-rules", "/foo", Service("foo-exact")),
            ),
            (
                "Prefix with a slash at the end matches without",
                slash("/aaa/bbb", with_slash),
            ),
            (
                "Prefix with a slash at the end matches with",
                slash("/aaa/bbb/", with_slash),
            ),
            (
                "Exact with a slash at the end does not match without",
                slash("/foo", NotFound),
            ),
        ],
        ..Feature::new("path-rules")
    }
}

impl Feature {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            ingresses: vec![],
            after_another: false,
            secrets: vec![],
            certificate: None,
            scenarios: vec![],
        }
    }
}

fn asks(method: &'static str, host: &'static str, path: &'static str, wants: Wants) -> Scenario {
    Scenario::Asks(Question {
        method,
        host,
        path,
        tls: false,
        wants,
    })
}

fn ingress(name: &str, mut spec: Value) -> Value {
    spec["ingressClassName"] = json!("landfall");
    json!({ "metadata": { "name": name }, "spec": spec })
}

fn backend(service: &str) -> Value {
    json!({ "service": { "name": service, "port": { "number": 8080 } } })
}

/// A rule for a host; each path is path type, path, Service.
fn rule(host: &str, paths: &[(&str, &str, &str)]) -> Value {
    let path = |(kind, path, service): &(&str, &str, &str)| json!({ "path": path, "pathType": kind, "backend": backend(service) });
    json!({ "host": host, "http": { "paths": paths.iter().map(path).collect::<Vec<_>>() } })
}
