//! An Ingress as the API writes it, read and written.

use super::super::words::Words;
use super::{Destination, Ingress, Named, Path, PortKey, Rule, Tls};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use landfall_ingress_http::host::host_of;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is read of `metadata`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// `name`.
    pub name: Option<String>,
    /// `namespace`.
    pub namespace: Option<String>,
    /// `uid`.
    pub uid: Option<String>,
    /// `creationTimestamp`.
    pub creation_timestamp: Option<Time>,
    /// `annotations`.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What is read of `spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub(super) ingress_class_name: Option<String>,
    pub(super) default_backend: Option<ReadBackend>,
    pub(super) rules: Option<Vec<ReadRule>>,
    pub(super) tls: Option<Vec<ReadTls>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ReadRule {
    host: Option<String>,
    http: Option<ReadHttp>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ReadHttp {
    paths: Option<Vec<ReadPath>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReadPath {
    path: Option<String>,
    path_type: Option<String>,
    backend: Option<ReadBackend>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ReadBackend {
    service: Option<ReadService>,
    resource: Option<ReadResource>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ReadService {
    name: String,
    port: Option<ReadPort>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ReadPort {
    name: Option<String>,
    number: Option<i32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ReadResource {
    kind: String,
    name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ReadTls {
    hosts: Option<Vec<String>>,
    secret_name: Option<String>,
}

impl ReadRule {
    pub(super) fn keep(self, words: &mut Words) -> Rule {
        let paths = self.http.and_then(|http| http.paths).into_iter().flatten();
        Rule {
            host: Named::read(&self.host.unwrap_or_default()),
            paths: paths.map(|path| path.keep(words)).collect(),
        }
    }
}

impl ReadPath {
    fn keep(self, words: &mut Words) -> Path {
        let written = self.path.filter(|path| !path.is_empty());
        Path {
            path: words.word(written.as_deref().unwrap_or("/")),
            exact: self.path_type.as_deref() == Some("Exact"),
            to: self.backend.unwrap_or_default().keep(words),
        }
    }
}

impl ReadBackend {
    pub(super) fn keep(self, words: &mut Words) -> Destination {
        if let Some(service) = self.service {
            // S10: by name or by number.
            let port = match service.port.map(|port| (port.name, port.number)) {
                Some((Some(name), _)) => PortKey::Name(words.word(&name)),
                Some((None, Some(number))) => PortKey::Number(number),
                _ => PortKey::Unnamed,
            };
            return Destination::Service {
                name: service.name.into(),
                port,
            };
        }
        let resource = self.resource.unwrap_or_default();
        Destination::Resource {
            kind: resource.kind.into(),
            name: resource.name.into(),
        }
    }
}

impl ReadTls {
    /// Hosts of rules are mostly those of `tls` too, and are kept once.
    pub(super) fn keep(self, rules: &[Rule]) -> Tls {
        let keep = |text: String| {
            let named = Named::read(&text);
            let rule = rules.iter().find(|rule| rule.host == named);
            rule.map_or(named, |rule| rule.host.clone())
        };
        Tls {
            hosts: self.hosts.into_iter().flatten().map(keep).collect(),
            secret: self.secret_name.filter(|name| !name.is_empty()).map(Into::into),
        }
    }
}

impl Named {
    fn read(text: &str) -> Self {
        let (star, bare) = text.strip_prefix("*.").map_or(("", text), |bare| ("*.", bare));
        // A port means nothing here; it is refused rather than left out.
        let host = host_of(bare).filter(|_| !bare.contains(':'));
        match host {
            _ if text.is_empty() => Self::of("", true),
            Some(host) if star.is_empty() => Self::of(&host, true),
            Some(host) => Self::of(&format!("{star}{host}"), true),
            None => Self::of(text, false),
        }
    }

    fn of(name: &str, valid: bool) -> Self {
        Self {
            name: name.into(),
            valid,
        }
    }
}

/// As the API writes it.
impl<'de> Deserialize<'de> for Ingress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Whole {
            metadata: Meta,
            spec: Option<Spec>,
        }
        let whole = Whole::deserialize(deserializer)?;
        let spec = whole.spec.unwrap_or_default();
        Ok(Self::new(whole.metadata, spec, &mut Words::default()))
    }
}

/// As the API writes it.
impl Serialize for Ingress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let annotations: BTreeMap<&str, &str> = self.annotations.iter().collect();
        let path = |path: &Path| json!({ "path": &*path.path, "pathType": if path.exact { "Exact" } else { "Prefix" }, "backend": path.to.written() });
        let rule = |rule: &Rule| {
            let paths: Vec<Value> = rule.paths.iter().map(path).collect();
            json!({ "host": &*rule.host.name, "http": { "paths": paths } })
        };
        let item = |item: &Tls| {
            let hosts: Vec<&str> = item.hosts.iter().map(|host| &*host.name).collect();
            json!({ "hosts": hosts, "secretName": item.secret })
        };
        let whole = json!({
            "metadata": { "namespace": &*self.namespace, "name": self.name(), "uid": self.uid, "creationTimestamp": self.created,
                "annotations": annotations },
            "spec": {
                "ingressClassName": self.class.as_deref(),
                "defaultBackend": self.default.as_ref().map(|to| to.written()),
                "rules": self.rules.iter().map(rule).collect::<Vec<_>>(),
                "tls": self.tls.iter().map(item).collect::<Vec<_>>(),
            },
        });
        whole.serialize(serializer)
    }
}

impl Destination {
    fn written(&self) -> Value {
        match self {
            Self::Service { name, port } => {
                let port = match port {
                    PortKey::Name(name) => json!({ "name": &**name }),
                    PortKey::Number(number) => json!({ "number": number }),
                    PortKey::Unnamed => Value::Null,
                };
                json!({ "service": { "name": name, "port": port } })
            }
            Self::Resource { kind, name } => json!({ "resource": { "kind": kind, "name": name } }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Addresses, CLASS_ANNOTATION};
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_is_kept_is_written_as_the_api_writes_it_and_reads_as_the_same() {
        let service = json!({ "service": { "name": "s", "port": { "name": "http" } } });
        let numbered = json!({ "service": { "name": "s", "port": { "number": 80 } } });
        let resource = json!({ "resource": { "kind": "Bucket", "name": "b", "apiGroup": "example.com" } });
        let whole = json!({
            "metadata": { "namespace": "d", "name": "i", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "7",
                "labels": { "a": "b" }, "annotations": { "ingress.landfall.dev/paths": "strict", "example.com/x": "y",
                CLASS_ANNOTATION: "c" } },
            "spec": { "ingressClassName": "landfall", "defaultBackend": resource, "tls": [{ "hosts": ["h", "No host"], "secretName": "t" }, {}],
                "rules": [{ "host": "H.", "http": { "paths": [{ "path": "/x", "pathType": "Exact", "backend": service },
                    { "pathType": "ImplementationSpecific", "backend": numbered }] } }, {}, { "host": "*.w:80" }] },
            "status": { "loadBalancer": {} } });
        let kept: Ingress = serde_json::from_value(whole).unwrap();
        assert_eq!(
            (&*kept.label, kept.name(), kept.annotated_class()),
            ("d/i", "i", Some("c"))
        );
        assert_eq!(kept.annotations.iter().count(), 2);
        let hosts: Vec<_> = kept
            .rules
            .iter()
            .map(|rule| (&*rule.host.name, rule.host.valid))
            .collect();
        assert_eq!(hosts, [("h", true), ("", true), ("*.w:80", false)]);
        assert!(Arc::ptr_eq(&kept.rules[0].host.name, &kept.tls[0].hosts[0].name));
        assert!(!kept.tls[0].hosts[1].valid && kept.tls[1].secret.is_none());
        assert_eq!(
            (&*kept.rules[0].paths[1].path, kept.rules[0].paths[1].exact),
            ("/", false)
        );
        let text = serde_json::to_string(&kept).unwrap();
        let again: Ingress = serde_json::from_str(&text).unwrap();
        assert_eq!(kept, again);
        again.publish(Some(Arc::new(Addresses::from(["10.0.0.1".to_owned()]))));
        assert_eq!(kept, again);
        let api: k8s_openapi::api::networking::v1::Ingress = serde_json::from_str(&text).unwrap();
        assert_eq!(api.spec.unwrap().rules.unwrap().len(), 3);
    }
}
