//! Who a client must be: passwords, a service that is asked, certificates. Everything here protects, so what cannot be read closes.

use super::secrets::Reach;
use super::syntax;
use super::target;
use super::values::Values;
use crate::secrets::lookup::Secrets;
use http::Method;
use landfall_ingress_htpasswd as htpasswd;
use landfall_ingress_routing::policy::{BasicAuth, ClientCertificate, ExternalAuth, Policy};
use landfall_ingress_routing::target::Target;
use landfall_ingress_tls::client::ClientSettings;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Users of one file. With bcrypt a check costs the same for any number; this bounds memory.
const MOST_USERS: usize = 10_000;
/// Authorities of one Secret.
const MOST_AUTHORITIES: usize = 64;

pub(super) fn read(values: &mut Values<'_>, policy: &mut Policy, reach: Reach<'_>) {
    policy.basic_auth = basic(values, reach);
    policy.external_auth = external(values, reach);
    policy.client_certificate = certificate(values, reach);
}

fn basic(values: &mut Values<'_>, reach: Reach<'_>) -> Option<BasicAuth> {
    match values.text("auth-type") {
        Some("basic") => {}
        Some(_) => {
            values.fault("auth-type", "only basic is served");
            return None;
        }
        // A Secret without a type is half a setting that protects.
        None if values.has("auth-secret") => {
            values.fault("auth-secret", "auth-type is missing");
            return None;
        }
        None => return None,
    }
    let realm = values.parse("auth-realm", |text| {
        let fine = text.len() <= 256
            && text
                .bytes()
                .all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\');
        fine.then(|| text.to_owned()).ok_or("no realm")
    });
    let Some(text) = values.text("auth-secret") else {
        values.fault("auth-type", "auth-secret is missing");
        return None;
    };
    let map = match values.text("auth-secret-type") {
        None | Some("auth-file") => false,
        Some("auth-map") => true,
        Some(_) => {
            values.fault("auth-secret-type", "neither auth-file nor auth-map");
            return None;
        }
    };
    let users = reach
        .place(text)
        .map_err(str::to_owned)
        .and_then(|(namespace, name)| users(reach.secrets, &namespace, &name, map));
    match users {
        Ok(users) => {
            // Who they are stays in the Secret.
            let unknown = users.values().filter(|hash| !htpasswd::is_known(hash)).count();
            if unknown > 0 {
                let why = format!(
                    "{unknown} of {} users cannot log in: their passwords are not hashed by bcrypt (to cost 14), $apr1$ or {{SHA}}",
                    users.len()
                );
                values.refuse("auth-secret", &why);
            }
            Some(BasicAuth {
                realm: realm.unwrap_or_default(),
                users: Arc::new(users),
            })
        }
        Err(why) => {
            values.fault("auth-secret", &why);
            None
        }
    }
}

fn users(secrets: &dyn Secrets, namespace: &str, name: &str, map: bool) -> Result<BTreeMap<String, String>, String> {
    let missing = |why| format!("Secret {namespace}/{name} {why}");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| missing("is no text".to_owned()));
    let mut users = BTreeMap::new();
    if map {
        for user in secrets.keys(namespace, name).map_err(missing)? {
            let hash = secrets
                .value(namespace, name, &user)
                .map_err(missing)?
                .unwrap_or_default();
            users.insert(user, text(hash)?.trim().to_owned());
        }
    } else {
        let file = secrets.value(namespace, name, "auth").map_err(missing)?;
        let file = text(file.ok_or_else(|| missing("has no key auth".to_owned()))?)?;
        users = htpasswd::users(&file).map_err(|why| missing(why.to_owned()))?;
    }
    if users.is_empty() || users.len() > MOST_USERS {
        return Err(missing("names no users, or too many".to_owned()));
    }
    Ok(users)
}

fn external(values: &mut Values<'_>, reach: Reach<'_>) -> Option<ExternalAuth> {
    let url = values.text("auth-url");
    let target = values.parse("auth-url", |url| target::parse(url, reach.namespace, reach.options));
    let method = values.parse("auth-method", syntax::method).unwrap_or(Method::GET);
    let response_headers = values
        .list("auth-response-headers", syntax::header_name)
        .unwrap_or_default();
    let signin = values.parse("auth-signin", syntax::location);
    let parameter = values.parse("auth-signin-redirect-param", syntax::cookie_name);
    let redirect = values.parse("auth-request-redirect", syntax::url_text);
    let (url, target) = (url?, target?);
    let tls = match target.tls {
        true => Some(asked_over_tls(values, &target, reach)?),
        false => None,
    };
    // ingress-nginx adds where the client came from, unless the URL says it itself.
    let signin = signin.map(|signin| {
        if signin.contains("$escaped_request_uri") || signin.contains("rd=") && parameter.is_none() {
            return signin;
        }
        let parameter = parameter.as_deref().unwrap_or("rd");
        let mark = if signin.contains('?') { '&' } else { '?' };
        format!("{signin}{mark}{parameter}=$pass_access_scheme://$http_host$escaped_request_uri")
    });
    Some(ExternalAuth {
        url: url.to_owned(),
        target,
        tls,
        method,
        response_headers,
        signin,
        redirect,
    })
}

/// How an `https` authentication service proves itself: by the authorities that the Ingress names, because none come with this program.
/// A fault, which closes, when it does not name any.
fn asked_over_tls(values: &mut Values<'_>, target: &Target, reach: Reach<'_>) -> Option<ClientSettings> {
    let Some(text) = values.text("auth-url-ca-secret") else {
        let why =
            "https needs ingress.landfall.dev/auth-url-ca-secret, a Secret with the service's authorities in ca.crt";
        values.fault("auth-url", why);
        return None;
    };
    match authorities(reach, text) {
        Ok(authorities) => Some(ClientSettings {
            verify: true,
            authorities: authorities.into(),
            name: Some(target.server_name()),
            ..ClientSettings::default()
        }),
        Err(why) => {
            values.fault("auth-url-ca-secret", &why);
            None
        }
    }
}

fn certificate(values: &mut Values<'_>, reach: Reach<'_>) -> Option<ClientCertificate> {
    let optional = match values.text("auth-tls-verify-client") {
        None | Some("on") => Some(false),
        Some("optional") => Some(true),
        Some("off") => None,
        Some(_) => {
            values.fault("auth-tls-verify-client", "only on, optional and off are served");
            return None;
        }
    };
    let pass = values.flag("auth-tls-pass-certificate-to-upstream").unwrap_or(false);
    let Some(text) = values.text("auth-tls-secret") else {
        if values.has("auth-tls-verify-client") && optional.is_some() {
            values.fault("auth-tls-verify-client", "auth-tls-secret is missing");
        }
        return None;
    };
    let optional = optional?;
    match authorities(reach, text) {
        Ok(authorities) => Some(ClientCertificate {
            authorities,
            optional,
            pass,
        }),
        Err(why) => {
            values.fault("auth-tls-secret", &why);
            None
        }
    }
}

/// DER certificates of `ca.crt`.
pub(super) fn authorities(reach: Reach<'_>, text: &str) -> Result<Vec<Vec<u8>>, String> {
    let (namespace, name) = reach.place(text)?;
    let missing = |why: &str| format!("Secret {namespace}/{name} {why}");
    let pem = reach
        .secrets
        .value(&namespace, &name, "ca.crt")
        .map_err(|why| missing(&why))?;
    let pem = pem.ok_or_else(|| missing("has no key ca.crt"))?;
    // Authorities without their revocations would let in who was shut out.
    if let Ok(Some(_)) = reach.secrets.value(&namespace, &name, "ca.crl") {
        return Err(missing("has a ca.crl, which is not supported"));
    }
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem)
        .take(MOST_AUTHORITIES + 1)
        .collect();
    let all = all.map_err(|_| missing("has a ca.crt that is no PEM"))?;
    if all.is_empty() || all.len() > MOST_AUTHORITIES {
        return Err(missing("has a ca.crt without certificates, or with too many"));
    }
    for der in &all {
        x509_parser::parse_x509_certificate(der)
            .map_err(|_| missing("has a ca.crt with a certificate that is none"))?;
    }
    Ok(all.into_iter().map(|der| der.to_vec()).collect())
}
