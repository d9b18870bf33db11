//! `check --live` against a cluster, as an administrator runs them.

use crate::harness::{endpoint, ingress, program};
use crate::{FakeApi, cluster};
use landfall_test_ingress::program::kubeconfig;
use serde_json::{Value, json};

/// Runs the program with a kubeconfig for this API; its exit status and what it wrote.
async fn run(api: &FakeApi, arguments: &[&str]) -> (i32, String, String) {
    let config = kubeconfig(api);
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let output = tokio::task::spawn_blocking(move || {
        std::process::Command::new(program())
            .args(arguments)
            .env_clear()
            .env("KUBECONFIG", config.path())
            .output()
            .unwrap()
    });
    let output = output.await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn annotated(name: &str, annotations: Value) -> Value {
    let mut object = ingress(name, &format!("{name}.nginx.com"), "nginx");
    object["metadata"]["annotations"] = annotations;
    object
}

fn verdicts(text: &str) -> Vec<(String, String)> {
    let report: Value = serde_json::from_str(text).unwrap();
    assert_eq!(report["version"], 1);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let ingresses = report["ingresses"].as_array().unwrap().iter();
    ingresses.map(|i| (text(&i["name"]), text(&i["verdict"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn check_live_judges_the_whole_cluster_as_it_is() {
    let api = cluster(&[endpoint("one").await]).await;
    let (status, text, _) = run(&api, &["check", "--live", "--ingress-class=landfall"]).await;
    assert_eq!(
        (status, text.lines().next()),
        (0, Some("default/nginx: supported")),
        "{text}"
    );

    api.put(
        "ingresses",
        annotated(
            "a-regex",
            json!({ "nginx.ingress.kubernetes.io/rewrite-target": "/$1" }),
        ),
    );
    let mut foreign = ingress("b-foreign", "f.nginx.com", "nginx");
    foreign["spec"]["ingressClassName"] = json!("other");
    api.put("ingresses", foreign);
    let (status, text, _) = run(&api, &["check", "--live", "--output=json"]).await;
    let wanted = [
        ("a-regex", "approximated"),
        ("b-foreign", "not-ours"),
        ("nginx", "supported"),
    ];
    assert_eq!(status, 1);
    assert_eq!(
        verdicts(&text),
        wanted.map(|(name, verdict)| (name.to_owned(), verdict.to_owned()))
    );

    // A Service that is not there is a fault in a cluster; in a manifest it may come later.
    api.put("ingresses", ingress("c-lost", "lost.nginx.com", "nobody"));
    let more = (0..1100).map(|n| ingress(&format!("many-{n:04}"), &format!("m{n}.nginx.com"), "nginx"));
    api.put_all("ingresses", more);
    let lists = api.count("list", "ingresses");
    let (status, text, _) = run(&api, &["check", "--live", "-o", "json"]).await;
    assert_eq!(status, 2);
    let all = verdicts(&text);
    assert_eq!((all.len(), all[2].1.as_str()), (1104, "refused"));
    assert_eq!(api.count("list", "ingresses") - lists, 3, "it is read in pages");
    assert!(
        !api.asked().iter().any(|(_, resource)| resource == "secrets"),
        "no Secret is read"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_of_a_cluster_is_said_and_nothing_is_judged() {
    let api = cluster(&[endpoint("one").await]).await;
    api.forbid("list", "services");
    let (status, out, error) = run(&api, &["check", "--live"]).await;
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(error.contains("services") && error.contains("Forbidden"), "{error}");
}
