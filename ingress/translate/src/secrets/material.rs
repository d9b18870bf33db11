//! What is kept of one Secret. Wiped when dropped; its values are never part of a text.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use landfall_ingress_tls::certificate::{Certificate, Fault};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use zeroize::Zeroizing;

/// Secrets of this type are meant for certificates.
pub const TLS_TYPE: &str = "kubernetes.io/tls";

/// Content of one version of a Secret. What it means is worked out once, however many tables are built from it.
pub struct Material {
    /// `type` of the Secret.
    kind: String,
    /// Tells versions apart.
    version: (Option<String>, Option<String>),
    values: BTreeMap<String, Zeroizing<Vec<u8>>>,
    certificate: OnceLock<Result<Arc<Certificate>, Fault>>,
}

impl From<Secret> for Material {
    fn from(secret: Secret) -> Self {
        let values = secret.data.unwrap_or_default().into_iter();
        // Only manifests have this form; the API server turns it into the other.
        let texts = secret.string_data.unwrap_or_default().into_iter();
        Self {
            kind: secret.type_.unwrap_or_default(),
            version: (secret.metadata.uid, secret.metadata.resource_version),
            values: values
                .map(|(key, value)| (key, Zeroizing::new(value.0)))
                .chain(texts.map(|(key, text)| (key, Zeroizing::new(text.into_bytes()))))
                .collect(),
            certificate: OnceLock::new(),
        }
    }
}

impl From<ConfigMap> for Material {
    fn from(map: ConfigMap) -> Self {
        let texts = map.data.unwrap_or_default().into_iter();
        let bytes = map.binary_data.unwrap_or_default().into_iter();
        Self {
            kind: String::new(),
            version: (map.metadata.uid, map.metadata.resource_version),
            values: texts
                .map(|(key, text)| (key, Zeroizing::new(text.into_bytes())))
                .chain(bytes.map(|(key, bytes)| (key, Zeroizing::new(bytes.0))))
                .collect(),
            certificate: OnceLock::new(),
        }
    }
}

impl Material {
    /// The bytes of one key.
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key).map(|value| value.as_slice())
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Whether its type is the one for certificates.
    pub fn is_tls(&self) -> bool {
        self.kind == TLS_TYPE
    }

    /// The certificate of `tls.crt` with the key of `tls.key` (S18), or what is wrong with them.
    pub fn certificate(&self) -> Result<Arc<Certificate>, Fault> {
        let read = || {
            let field = |key: &'static str| self.value(key).filter(|v| !v.is_empty()).ok_or(Fault::Lacks(key));
            Certificate::read(field("tls.crt")?, field("tls.key")?).map(Arc::new)
        };
        self.certificate.get_or_init(read).clone()
    }

    /// Whether both are the same version of the same Secret.
    pub fn same_version(&self, other: &Self) -> bool {
        self.version.1.is_some() && self.version == other.version
    }
}

/// The names of its keys only.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.keys().collect();
        write!(f, "Material({} with {keys:?})", self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn nothing_of_a_value_is_in_its_text() {
        let secret = Secret {
            data: Some([("tls.key".to_owned(), ByteString(b"hidden".to_vec()))].into()),
            type_: Some(TLS_TYPE.to_owned()),
            ..Secret::default()
        };
        let material = Material::from(secret);
        let text = format!("{material:?}");
        assert_eq!(text, "Material(kubernetes.io/tls with [\"tls.key\"])");
        assert_eq!(material.certificate().unwrap_err(), Fault::Lacks("tls.crt"));
    }
}
