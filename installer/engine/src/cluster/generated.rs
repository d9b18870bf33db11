//! Makes the values of Secrets at the moment they are applied: a password, or a certificate with its key. They are sent to the API and stored
//! nowhere else.

use crate::random;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::layout;
use landfall_core::plan::objects::CERTIFICATE_FOR;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

/// Random bytes of a password: 128 bits cannot be guessed.
const PASSWORD_BYTES: usize = 16;

/// Returns the Secret with its placeholders replaced by values: a self-signed certificate for the host that an annotation names, or
/// random passwords. `username` is the user of the dashboard and not secret. An error says that the machine has no random numbers, or that
/// no certificate can be made for the host.
pub(super) fn with_values(object: &Value) -> Result<Value, Diagnosis> {
    let mut object = object.clone();
    let host = object["metadata"]["annotations"][CERTIFICATE_FOR]
        .as_str()
        .map(str::to_owned);
    if let Some(host) = host {
        let (certificate, key) = certificate(&host)?;
        object["data"] = json!({ "tls.crt": STANDARD.encode(certificate), "tls.key": STANDARD.encode(key) });
        return Ok(object);
    }
    for (name, value) in object["data"].as_object_mut().into_iter().flatten() {
        let made = match name.as_str() {
            "username" => layout::DASHBOARD_USER.to_owned(),
            _ => password()?,
        };
        *value = json!(STANDARD.encode(made));
    }
    Ok(object)
}

/// Returns [`PASSWORD_BYTES`] random bytes as hexadecimal digits, which every shell and browser takes as they are.
fn password() -> Result<String, Diagnosis> {
    let what = "no password can be made: this machine gives no random numbers";
    random::hex::<PASSWORD_BYTES>().map_err(|_| Diagnosis::new(Code::Internal, what))
}

/// Returns a self-signed certificate and its key as PEM.
fn certificate(host: &str) -> Result<(String, String), Diagnosis> {
    let failed = |error: rcgen::Error| {
        let what = format!("no certificate can be made for {host}");
        Diagnosis::new(Code::Internal, what).because(&error)
    };
    let key = KeyPair::generate().map_err(failed)?;
    let params = CertificateParams::new(vec![host.to_owned()]).map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    let key = pem("PRIVATE KEY", &key.serialize_der());
    Ok((pem("CERTIFICATE", certificate.der()), key))
}

/// DER as PEM (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_core::plan::objects::{GENERATED, is_generated};

    fn decoded(value: &Value) -> String {
        String::from_utf8(STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn each_password_is_new_and_user_names_stay() {
        let secret = json!({ "kind": "Secret", "data": { "username": GENERATED, "password": GENERATED } });
        let made: Vec<Value> = (0..2).map(|_| with_values(&secret).unwrap()["data"].clone()).collect();
        assert_eq!(decoded(&made[0]["username"]), "landfall");
        assert_eq!(decoded(&made[0]["password"]).len(), 32);
        assert_ne!(made[0]["password"], made[1]["password"]);
    }

    #[test]
    fn a_certificate_names_the_host_of_the_annotation() {
        let secret = json!({ "kind": "Secret", "metadata": { "annotations": { CERTIFICATE_FOR: "test.nginx.com" } },
            "data": { "tls.crt": GENERATED, "tls.key": GENERATED } });
        let made = with_values(&secret).unwrap();
        assert!(!is_generated(&made));
        assert!(decoded(&made["data"]["tls.crt"]).starts_with("-----BEGIN CERTIFICATE-----\n"));
        assert!(decoded(&made["data"]["tls.key"]).starts_with("-----BEGIN PRIVATE KEY-----\n"));
    }
}
