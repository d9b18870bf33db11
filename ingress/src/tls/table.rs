//! Which certificate a host has. Pure: made from what Ingresses say and the Secrets that are there, with each table of routes.
//!
//! S18: several `tls` items share the port by server name; one without hosts is for the hosts of its own Ingress and, of the oldest
//! such Ingress, the default certificate of the class; one without a Secret says TLS with the default certificate. S19: a Secret that
//! cannot be used gives the default certificate on its hosts. S20: Secrets are of the Ingress's namespace, and a host's certificate only
//! comes from the namespace that the host belongs to. S22: TLS of any Ingress of that namespace applies to the host.

use super::{Certificate, Fault};
use crate::route::{CertificateUse, Reason, Remark, Severity, Snapshot};
use crate::secrets::{Name, View, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Certificates by host.
#[derive(Debug, Default)]
pub struct Table {
    /// Hosts as written, wildcards with their `*.`, lower case.
    hosts: BTreeMap<String, Held>,
    default: Option<Held>,
}

/// What a host has.
#[derive(Debug)]
pub struct Held {
    /// Namespace that the host belongs to.
    pub namespace: Arc<str>,
    /// `namespace/name` of the Ingress that says so; empty when a flag does.
    pub ingress: Arc<str>,
    /// The Secret that is named, if any.
    pub secret: Option<Name>,
    /// The certificate, when it can be used; otherwise the default one is served.
    pub certificate: Option<Arc<Certificate>>,
    /// Why it cannot be used.
    pub fault: Option<Fault>,
}

impl Table {
    /// Builds the table for a snapshot whose routes and `certificates` are there. `default` is the operator's choice.
    pub fn build(snapshot: &Snapshot, secrets: &View, default: Option<&Name>, remarks: &mut Vec<Remark>) -> Self {
        let mut builder = Builder {
            table: Self::default(),
            snapshot,
            secrets,
            remarks,
            untyped: BTreeSet::new(),
        };
        if let Some(name) = default {
            builder.default(name);
        }
        for says in &snapshot.certificates {
            if !says.host.is_empty() {
                builder.claim(says);
            } else if default.is_none() {
                builder.class_default(says);
            }
        }
        builder.table
    }

    /// What a host has. A wildcard's certificate is not for a host of another namespace that stands below it.
    pub fn find<'o>(&self, host: &str, owner: impl FnOnce(&str) -> Option<&'o str>) -> Option<&Held> {
        if let Some(held) = self.hosts.get(host) {
            return Some(held);
        }
        let (label, parent) = host.split_once('.')?;
        if label.is_empty() {
            return None;
        }
        let held = self.hosts.get(&format!("*.{parent}"))?;
        owner(host)
            .is_none_or(|owner| *owner == *held.namespace)
            .then_some(held)
    }

    /// The certificate for hosts that have none, if one was named.
    pub fn default_certificate(&self) -> Option<&Held> {
        self.default.as_ref()
    }

    /// Every host that has TLS.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, &Held)> {
        self.hosts.iter().map(|(host, held)| (host.as_str(), held))
    }
}

struct Builder<'a> {
    table: Table,
    snapshot: &'a Snapshot,
    secrets: &'a View,
    remarks: &'a mut Vec<Remark>,
    /// Secrets of another type that were remarked already.
    untyped: BTreeSet<Name>,
}

impl Builder<'_> {
    fn claim(&mut self, says: &CertificateUse) {
        let owner = self.snapshot.owner(&says.host);
        let older = self.table.hosts.get(&says.host).map(|old| &*old.namespace);
        if let Some(owner) = owner.or(older).filter(|owner| **owner != *says.namespace) {
            let text = format!(
                "TLS for {} is left out: the host belongs to namespace {owner}",
                says.host
            );
            self.remark(says, Severity::Refused, text);
            return;
        }
        let new = self.hold(says);
        let Some(old) = self.table.hosts.get(&says.host) else {
            self.table.hosts.insert(says.host.clone(), new);
            return;
        };
        if old.certificate.is_none() && new.certificate.is_some() {
            // S22: TLS of any applies.
            self.table.hosts.insert(says.host.clone(), new);
        } else if new.secret.is_some() && new.secret != old.secret && old.certificate.is_some() {
            let text = format!("{} has its certificate from {}, which is older", says.host, old.ingress);
            self.remark(says, Severity::Note, text);
        }
    }

    fn remark(&mut self, says: &CertificateUse, severity: Severity, text: String) {
        let remark = Remark::ingress(&says.namespace, &says.ingress, severity, Reason::Certificate, text);
        self.remarks.push(remark.on(&says.host));
    }

    /// What an item gives; what is wrong with it is remarked.
    fn hold(&mut self, says: &CertificateUse) -> Held {
        let mut held = Held {
            namespace: says.namespace.as_str().into(),
            ingress: format!("{}/{}", says.namespace, says.ingress).into(),
            secret: None,
            certificate: None,
            fault: None,
        };
        let Some(name) = &says.secret else { return held };
        held.secret = Name::new(&says.namespace, name);
        let host = Some(says.host.as_str()).filter(|host| !host.is_empty());
        let read = match &held.secret {
            Some(secret) => self.read(secret, host),
            None => Err(Fault::NoName),
        };
        match read {
            Ok(certificate) => held.certificate = Some(certificate),
            Err(fault) => {
                let host = host.unwrap_or("all hosts");
                let text = format!("TLS for {host} has the default certificate: Secret {name} {fault}");
                self.remark(says, Severity::Refused, text);
                held.fault = Some(fault);
            }
        }
        held
    }

    fn read(&mut self, secret: &Name, host: Option<&str>) -> Result<Arc<Certificate>, Fault> {
        let material = self.secrets.get(secret).map_err(Fault::Absent)?;
        if !material.is_tls() && self.untyped.insert(secret.clone()) {
            let text = "this Secret is not of type kubernetes.io/tls; it is used all the same";
            self.remarks.push(about(secret, Severity::Note, text));
        }
        let certificate = material.certificate()?;
        match host {
            Some(host) if !certificate.covers(host) => Err(Fault::OtherHost),
            _ => Ok(certificate),
        }
    }

    /// The operator's choice; when it cannot be used there is a self-signed one, never a tenant's.
    fn default(&mut self, secret: &Name) {
        let read = self.read(secret, None);
        if let Err(fault) = &read {
            let text = format!("the default certificate is self-signed: this Secret {fault}");
            self.remarks.push(about(secret, Severity::Refused, text));
        }
        self.table.default = Some(Held {
            namespace: secret.namespace().into(),
            ingress: "".into(),
            secret: Some(secret.clone()),
            fault: read.as_ref().err().cloned(),
            certificate: read.ok(),
        });
    }

    /// S18: an item without hosts. The oldest that can be used has it.
    fn class_default(&mut self, says: &CertificateUse) {
        if says.secret.is_none() {
            return;
        }
        let new = self.hold(says);
        match &self.table.default {
            Some(old) if old.certificate.is_some() => {
                if old.secret != new.secret {
                    let text = format!("{}, which is older, has the default certificate", old.ingress);
                    self.remark(says, Severity::Note, text);
                }
            }
            _ => self.table.default = Some(new),
        }
    }
}

fn about(secret: &Name, severity: Severity, text: impl Into<String>) -> Remark {
    Remark {
        kind: "Secret".to_owned(),
        ..Remark::ingress(secret.namespace(), secret.name(), severity, Reason::Certificate, text)
    }
}

impl Snapshot {
    /// Puts certificates to hosts, with the Secrets as they are now.
    pub fn with_certificates(mut self, secrets: &View, default: Option<&Name>) -> Self {
        let mut remarks = Vec::new();
        self.tls = Arc::new(Table::build(&self, secrets, default, &mut remarks));
        self.remarks.append(&mut remarks);
        self
    }

    /// Every Secret that is needed: those that Ingresses name, and the operator's.
    pub fn wanted_secrets(&self, default: Option<&Name>) -> Wanted {
        let named = self
            .wanted
            .iter()
            .filter_map(|(namespace, name)| Name::new(namespace, name));
        named.chain(default.cloned()).collect()
    }

    /// The certificate for a server name: the host's own, a wildcard's, or the one for hosts without; `None` when that is the
    /// self-signed one. The name is empty when the client sent none.
    pub fn certificate(&self, server_name: &str) -> Option<&Arc<Certificate>> {
        let held = self.tls.find(server_name, |host| self.owner(host));
        let own = held.and_then(|held| held.certificate.as_ref());
        own.or_else(|| self.tls.default_certificate()?.certificate.as_ref())
    }

    /// Whether two hosts have the same certificate.
    pub fn same_certificate(&self, one: &str, other: &str) -> bool {
        match (self.certificate(one), self.certificate(other)) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }

    /// Whether some Ingress asks for TLS on this host (S22), with whatever certificate.
    #[cfg(test)]
    pub fn has_tls(&self, host: &str) -> bool {
        self.tls.find(host, |host| self.owner(host)).is_some()
    }
}
