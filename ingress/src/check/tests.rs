//! Manifests in, verdicts out.

use super::*;

fn report(text: &str) -> Report {
    let mut input = Input::default();
    input.add(text).unwrap();
    judge(input, &Options::default())
}

fn manifest(annotations: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\n  annotations: {{{annotations}}}\nspec:\n  \
         ingressClassName: nginx\n  rules:\n  - host: h\n    http:\n      paths:\n      - {{path: /, pathType: Prefix, backend: \
         {{service: {{name: a, port: {{number: 80}}}}}}}}\n"
    )
}

#[test]
fn each_ingress_gets_a_verdict_and_the_worst_is_the_exit_status() {
    let nginx = |name: &str, value: &str| manifest(&format!("nginx.ingress.kubernetes.io/{name}: \"{value}\""));
    for (text, verdict, status) in [
        (manifest(""), Verdict::Supported, 0),
        (nginx("proxy-body-size", "8m"), Verdict::Supported, 0),
        (nginx("proxy-buffering", "on"), Verdict::Supported, 0),
        (nginx("no-such-name", "1"), Verdict::Supported, 0),
        (nginx("rewrite-target", "/$1"), Verdict::Approximated, 1),
        (nginx("proxy-body-size", "large"), Verdict::Refused, 2),
        (
            nginx("configuration-snippet", "more_set_headers x;"),
            Verdict::Refused,
            2,
        ),
        (nginx("auth-type", "digest"), Verdict::Refused, 2),
    ] {
        let report = report(&text);
        assert_eq!(
            (report.ingresses[0].verdict, report.status()),
            (verdict, status),
            "{text}\n{report:?}"
        );
    }
}

#[test]
fn secrets_and_services_that_manifests_leave_out_are_no_fault() {
    let text = manifest("nginx.ingress.kubernetes.io/auth-type: basic, nginx.ingress.kubernetes.io/auth-secret: users");
    let judged = report(&text);
    assert_eq!(judged.ingresses[0].verdict, Verdict::Supported, "{judged:?}");
    assert!(judged.text().contains("not in the input"), "{}", judged.text());
    // A Service in the input makes the others missing.
    let with = format!(
        "{text}---\napiVersion: v1\nkind: Service\nmetadata: {{name: other}}\nspec: {{ports: [{{port: 80}}]}}\n"
    );
    assert_eq!(report(&with).ingresses[0].verdict, Verdict::Refused);
}

#[test]
fn passwords_that_nobody_can_check_are_told() {
    let text = manifest("nginx.ingress.kubernetes.io/auth-type: basic, nginx.ingress.kubernetes.io/auth-secret: users");
    let with = |file: &str| {
        format!("{text}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: users}}\nstringData: {{auth: '{file}'}}\n")
    };
    let fine = report(&with("anna:{SHA}87u9ZqY9S/F0eUBXjsPQEDUw4h0="));
    assert_eq!(fine.ingresses[0].verdict, Verdict::Supported, "{fine:?}");
    let report = report(&with("anna:$6$salt$hash"));
    assert_eq!((report.ingresses[0].verdict, report.status()), (Verdict::Refused, 2));
    let text = report.text();
    assert!(
        text.contains("1 of 1 users cannot log in") && !text.contains("anna"),
        "{text}"
    );
}

#[test]
fn custom_headers_are_judged_by_their_config_map() {
    let text = manifest("nginx.ingress.kubernetes.io/custom-headers: fields");
    let absent = report(&text);
    assert_eq!(absent.ingresses[0].verdict, Verdict::Supported, "{absent:?}");
    assert!(absent.text().contains("ConfigMap default/fields is not in the input"));
    for (data, verdict) in [
        ("X-A: b", Verdict::Supported),
        ("Transfer-Encoding: chunked", Verdict::Refused),
    ] {
        let map = format!("{text}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: fields}}\ndata: {{{data}}}\n");
        assert_eq!(report(&map).ingresses[0].verdict, verdict, "{data}");
    }
}

#[test]
fn classes_of_the_input_count() {
    let text = format!(
        "{}---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: nginx}}\nspec: {{controller: k8s.io/ingress-nginx}}\n",
        manifest("")
    );
    let mut input = Input::default();
    input.add(&text).unwrap();
    let options = Options {
        controller: "k8s.io/ingress-nginx".to_owned(),
        ..Options::default()
    };
    assert_eq!(judge(input, &options).ingresses[0].verdict, Verdict::Supported);
    assert_eq!(report(&text).ingresses[0].verdict, Verdict::NotOurs);
}

#[test]
fn s30_old_versions_are_told_what_to_write() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: extensions/v1beta1\n  kind: Ingress\n  metadata: {name: nginx, \
                annotations: {kubernetes.io/ingress.class: traefik}}\n  spec:\n    backend: {serviceName: d, servicePort: web}\n    \
                rules:\n    - host: test.nginx.com\n      http: {paths: [{path: /x, backend: {serviceName: my-nginx, servicePort: 80}}]}\n";
    let report = report(text);
    assert_eq!(report.status(), 2);
    let told = &report.ingresses[0].remarks[0].text;
    for line in [
        "extensions/v1beta1 is gone since Kubernetes 1.22",
        "apiVersion: networking.k8s.io/v1",
        "spec.defaultBackend in place of spec.backend: backend: {service: {name: d, port: {name: web}}}",
        "test.nginx.com/x: pathType: Prefix, backend: {service: {name: my-nginx, port: {number: 80}}}",
        "spec.ingressClassName",
    ] {
        assert!(told.contains(line), "{told}");
    }
}

#[test]
fn json_has_a_version_and_input_that_is_none_is_an_error() {
    let json = serde_json::json!(report(&manifest("")));
    assert_eq!(json["version"], 1);
    assert_eq!(json["ingresses"][0]["verdict"], "supported");
    assert!(Input::default().add("{").is_err());
    assert!(
        Input::default()
            .add("apiVersion: networking.k8s.io/v1\nkind: Ingress\nspec: 3\n")
            .is_err()
    );
}
