//! Ingresses of API versions that Kubernetes has given up (S30): what to write instead.

use super::{Judged, Verdict};
use landfall_ingress_translate::remark::{Reason, Remark, Severity};
use serde_json::Value;

/// Says of an Ingress of `extensions/v1beta1` or `networking.k8s.io/v1beta1` what must change.
pub(super) fn judge(object: &Value) -> Judged {
    let text = |path: &str| {
        object
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (namespace, name, version) = (text("/metadata/namespace"), text("/metadata/name"), text("/apiVersion"));
    let mut lines = vec![
        format!("apiVersion {version} is gone since Kubernetes 1.22; write:"),
        "apiVersion: networking.k8s.io/v1".to_owned(),
    ];
    if let Some(backend) = object.pointer("/spec/backend") {
        lines.push(format!(
            "spec.defaultBackend in place of spec.backend: {}",
            backend_of(backend)
        ));
    }
    let rules = object.pointer("/spec/rules").and_then(Value::as_array);
    for rule in rules.into_iter().flatten() {
        let host = rule.get("host").and_then(Value::as_str).unwrap_or("*");
        let paths = rule.pointer("/http/paths").and_then(Value::as_array);
        for path in paths.into_iter().flatten() {
            let written = path.get("path").and_then(Value::as_str).unwrap_or("/");
            let kind = path.get("pathType").and_then(Value::as_str);
            let kind = kind.map_or("pathType: Prefix, ".to_owned(), |kind| format!("pathType: {kind}, "));
            let backend = path.get("backend").map(backend_of).unwrap_or_default();
            lines.push(format!("{host}{written}: {kind}{backend}"));
        }
    }
    if object
        .pointer("/metadata/annotations/kubernetes.io~1ingress.class")
        .is_some()
    {
        lines.push("spec.ingressClassName in place of the annotation kubernetes.io/ingress.class".to_owned());
    }
    let remark = Remark::ingress(
        &namespace,
        &name,
        Severity::Refused,
        Reason::OldVersion,
        lines.join("\n"),
    );
    Judged {
        namespace,
        name,
        verdict: Verdict::Refused,
        remarks: vec![remark],
    }
}

/// A backend as it is written today.
fn backend_of(backend: &Value) -> String {
    let name = backend.get("serviceName").and_then(Value::as_str).unwrap_or("NAME");
    let port = match backend.get("servicePort") {
        Some(Value::Number(number)) => format!("number: {number}"),
        Some(Value::String(name)) => format!("name: {name}"),
        _ => "number: PORT".to_owned(),
    };
    format!("backend: {{service: {{name: {name}, port: {{{port}}}}}}}")
}
