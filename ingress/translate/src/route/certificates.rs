//! Which certificate a host has. Pure: made from what Ingresses say and the Secrets that are there, with the host's routes.
//!
//! S18: several `tls` items share the port by server name; one without hosts is for the hosts of its own Ingress and, of the oldest
//! such Ingress, the default certificate of the class; one without a Secret says TLS with the default certificate. S19: a Secret that
//! cannot be used gives the default certificate on its hosts. S20: Secrets are of the Ingress's namespace, and a host's certificate only
//! comes from the namespace that the host belongs to. S22: TLS of any Ingress of that namespace applies to the host.

use crate::object::Ingress;
use crate::remark::{Reason, Remark, Severity};
use crate::secrets::Name;
use crate::secrets::lookup::Secrets;
use landfall_ingress_routing::Held;
use landfall_ingress_tls::certificate::{Certificate, Fault};
use std::sync::Arc;

/// A wish for a certificate.
#[derive(Debug, Clone, Copy)]
pub struct TlsRequest<'a> {
    /// Host as in [`landfall_ingress_routing::Host::name`]; empty for the default certificate.
    pub host: &'a str,
    /// Whose wish it is.
    pub ingress: &'a Ingress,
    /// The Secret; `None` serves the default certificate.
    pub secret: Option<&'a str>,
}

/// The certificate of a host of which these are the tls_requests, oldest first. `owner` is the namespace that the host belongs to.
pub fn claim(
    tls_requests: &[TlsRequest<'_>],
    owner: Option<&str>,
    secrets: &dyn Secrets,
    remarks: &mut Vec<Remark>,
) -> Option<Held> {
    let mut held: Option<Held> = None;
    for wish in tls_requests {
        let host = wish.host;
        let older = held.as_ref().map(|held| &*held.namespace);
        if let Some(owner) = owner.or(older).filter(|owner| **owner != *wish.ingress.namespace) {
            let text = format!("TLS for {host} is left out: the host belongs to namespace {owner}");
            remark(wish, Severity::Refused, text, remarks);
            continue;
        }
        let new = hold(wish, secrets, remarks);
        match &held {
            None => held = Some(new),
            // S22: TLS of any applies.
            Some(old) if old.certificate.is_none() => {
                if new.certificate.is_some() {
                    held = Some(new);
                }
            }
            Some(old) if new.secret.is_some() && new.secret != old.secret => {
                let text = format!("{host} has its certificate from {}, which is older", old.ingress);
                remark(wish, Severity::Note, text, remarks);
            }
            Some(_) => {}
        }
    }
    held
}

/// S18: items without hosts, oldest first. The first that can be used gives the default certificate; when none can, the last shows why.
pub fn claim_default<'a>(
    tls_requests: impl Iterator<Item = TlsRequest<'a>>,
    secrets: &dyn Secrets,
    remarks: &mut Vec<Remark>,
) -> Option<Held> {
    let mut held = None;
    for wish in tls_requests {
        let new = hold(&wish, secrets, remarks);
        let found = new.certificate.is_some();
        held = Some(new);
        if found {
            break;
        }
    }
    held
}

/// The operator's choice; when it cannot be used there is a self-signed one, never a tenant's.
pub fn operators(secret: &Name, secrets: &dyn Secrets, remarks: &mut Vec<Remark>) -> Held {
    let read = read(secret, None, secrets, remarks);
    if let Some(Err(fault)) = &read {
        let text = format!("the default certificate is self-signed: this Secret {fault}");
        remarks.push(about(secret, Severity::Refused, text));
    }
    Held {
        namespace: secret.namespace().into(),
        ingress: "".into(),
        secret: Some(Arc::clone(secret.text())),
        fault: read.as_ref().and_then(|read| read.as_ref().err().cloned()),
        certificate: read.and_then(Result::ok),
    }
}

/// What a wish gives; what is wrong with it is remarked.
fn hold(wish: &TlsRequest<'_>, secrets: &dyn Secrets, remarks: &mut Vec<Remark>) -> Held {
    let mut held = Held {
        namespace: Arc::clone(&wish.ingress.namespace),
        ingress: Arc::clone(&wish.ingress.label),
        secret: None,
        certificate: None,
        fault: None,
    };
    let Some(name) = wish.secret else { return held };
    let secret = Name::new(&wish.ingress.namespace, name);
    held.secret = secret.as_ref().map(|secret| Arc::clone(secret.text()));
    let host = Some(wish.host).filter(|host| !host.is_empty());
    let read = match &secret {
        Some(secret) => read(secret, host, secrets, remarks),
        None => Some(Err("has no valid name".to_owned())),
    };
    match read {
        Some(Ok(certificate)) => held.certificate = Some(certificate),
        Some(Err(fault)) => {
            let host = host.unwrap_or("all hosts");
            let text = format!("TLS for {host} has the default certificate: Secret {name} {fault}");
            remark(wish, Severity::Refused, text, remarks);
            held.fault = Some(fault);
        }
        None => {}
    }
    held
}

/// The certificate of a Secret; `None` where certificates are not looked at.
fn read(
    secret: &Name,
    host: Option<&str>,
    secrets: &dyn Secrets,
    remarks: &mut Vec<Remark>,
) -> Option<Result<Arc<Certificate>, String>> {
    let material = match secrets.material(secret)? {
        Ok(material) => material,
        Err(absent) => return Some(Err(absent.to_string())),
    };
    if !material.is_tls() {
        let text = "this Secret is not of type kubernetes.io/tls; it is used all the same";
        remarks.push(about(secret, Severity::Note, text));
    }
    let certificate = material.certificate().and_then(|certificate| match host {
        Some(host) if !certificate.covers(host) => Err(Fault::OtherHost),
        _ => Ok(certificate),
    });
    Some(certificate.map_err(|fault| fault.to_string()))
}

fn remark(wish: &TlsRequest<'_>, severity: Severity, text: String, remarks: &mut Vec<Remark>) {
    let (namespace, name) = (&wish.ingress.namespace, wish.ingress.name());
    let remark = Remark::ingress(namespace, name, severity, Reason::Certificate, text);
    remarks.push(match wish.host.is_empty() {
        true => remark,
        false => remark.on(wish.host),
    });
}

fn about(secret: &Name, severity: Severity, text: impl Into<String>) -> Remark {
    Remark {
        kind: "Secret".to_owned(),
        ..Remark::ingress(secret.namespace(), secret.name(), severity, Reason::Certificate, text)
    }
}

#[cfg(any(test, feature = "testing"))]
impl super::Snapshot {
    /// Whether some Ingress asks for TLS on this host (S22), with whatever certificate.
    pub fn has_tls(&self, host: &str) -> bool {
        self.table.held(host).is_some()
    }
}
