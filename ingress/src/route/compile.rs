//! One Ingress to its rules and wishes, without looking at any other object but the Secrets that it names. Pure.
//!
//! What this makes is kept as long as the Ingress and those Secrets stay the same, so that a change of one object costs one of these.

use super::host::host_of;
use super::options::Options;
use super::pattern;
use super::remark::{Reason, Remark, Severity};
use crate::annotations::{self, Secrets};
use crate::path;
use crate::policy::{Canary, HttpsRedirect, Policy, Rewrite};
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where cert-manager's solver is asked for its token.
const ACME: &str = "/.well-known/acme-challenge/";

/// A compiled Ingress.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
    /// `namespace/name`.
    pub(super) label: Arc<str>,
    pub(super) rules: Vec<Rule>,
    pub(super) default: Option<IngressBackend>,
    pub(super) aliases: Vec<String>,
    pub(super) canary: Option<Arc<Canary>>,
    /// Service of the same namespace.
    pub(super) fallback: Option<String>,
    /// Hosts of `spec.tls` with their Secret.
    pub(super) tls: Vec<(String, Option<String>)>,
    pub(super) policy: Arc<Policy>,
    pub(super) remarks: Vec<Remark>,
    /// Cannot be used as it is: the last good version is better.
    pub(super) bad: bool,
}

/// One host with its paths.
#[derive(Debug)]
pub(super) struct Rule {
    /// Lower case; empty for all hosts.
    pub(super) host: String,
    pub(super) paths: Vec<Path>,
}

#[derive(Debug)]
pub(super) struct Path {
    pub(super) exact: bool,
    pub(super) pattern: Option<regex::Regex>,
    pub(super) path: String,
    pub(super) backend: IngressBackend,
    pub(super) policy: Arc<Policy>,
}

impl Compiled {
    pub(super) fn of(ingress: &Ingress, secrets: &dyn Secrets, options: &Options) -> Self {
        let namespace: Arc<str> = ingress.metadata.namespace.as_deref().unwrap_or_default().into();
        let name: Arc<str> = ingress.metadata.name.as_deref().unwrap_or_default().into();
        let empty = BTreeMap::new();
        let annotated = ingress.metadata.annotations.as_ref().unwrap_or(&empty);
        let wishes = annotations::read(annotated, &namespace, secrets, options);
        let plain = !annotated.keys().any(|name| annotations::is_read(name));
        let mut compiled = Self {
            label: format!("{namespace}/{name}").into(),
            rules: vec![],
            default: None,
            aliases: wishes.aliases,
            canary: wishes.canary.map(Arc::new),
            fallback: wishes.fallback,
            tls: vec![],
            policy: if plain {
                annotations::nothing()
            } else {
                Arc::new(wishes.policy)
            },
            remarks: vec![],
            bad: wishes.bad,
            namespace,
            name,
        };
        for fault in wishes.faults {
            compiled.remark(fault.severity, fault.reason, fault.text);
        }
        let Some(spec) = &ingress.spec else { return compiled };
        compiled.default.clone_from(&spec.default_backend);
        for rule in spec.rules.iter().flatten() {
            let Some(host) = compiled.host(rule.host.as_deref().unwrap_or_default()) else {
                continue;
            };
            let paths = rule.http.iter().flat_map(|http| &http.paths);
            let paths = paths.filter_map(|path| compiled.path(path, wishes.regex)).collect();
            compiled.rules.push(Rule { host, paths });
        }
        for item in spec.tls.iter().flatten() {
            let secret = item.secret_name.clone().filter(|name| !name.is_empty());
            let hosts = item.hosts.as_deref().unwrap_or_default();
            if hosts.is_empty() {
                compiled.tls.push((String::new(), secret.clone()));
                // S18: the default certificate is for the hosts of its own Ingress first.
                let own = compiled.rules.iter().map(|rule| rule.host.clone());
                let own: BTreeSet<String> = own.filter(|host| !host.is_empty()).collect();
                compiled.tls.extend(own.into_iter().map(|host| (host, secret.clone())));
            }
            for host in hosts {
                if let Some(host) = compiled.host(host) {
                    compiled.tls.push((host, secret.clone()));
                }
            }
        }
        compiled
    }

    fn remark(&mut self, severity: Severity, reason: Reason, text: String) {
        self.remarks
            .push(Remark::ingress(&self.namespace, &self.name, severity, reason, text));
    }

    fn spoil(&mut self, reason: Reason, text: String) {
        self.bad = true;
        self.remark(Severity::Refused, reason, text);
    }

    /// A host in the form of the table; the empty one is all hosts.
    fn host(&mut self, text: &str) -> Option<String> {
        if text.is_empty() {
            return Some(String::new());
        }
        let (star, bare) = text.strip_prefix("*.").map_or(("", text), |bare| ("*.", bare));
        match host_of(bare) {
            Some(host) if !bare.contains(':') => Some(format!("{star}{host}")),
            _ => {
                self.spoil(Reason::BadHost, format!("{text:?} is no host"));
                None
            }
        }
    }

    fn path(&mut self, path: &HTTPIngressPath, regex: bool) -> Option<Path> {
        let written = path.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
        let exact = path.path_type == "Exact";
        if regex && !exact && pattern::is_pattern(written) {
            return match pattern::path(written) {
                Ok(pattern) => Some(self.made(path, false, Some(pattern), written.to_owned())),
                Err(why) => {
                    self.spoil(Reason::BadPath, format!("path {written:?}: {why}"));
                    None
                }
            };
        }
        if !exact && written.ends_with("/*") {
            let text = format!("path {written:?}: a star is only a star here");
            self.remark(Severity::Approximated, Reason::BadPath, text);
        }
        // The table holds canonical paths, for those are what it is asked for.
        match path::canonical(written) {
            Ok(canonical) => Some(self.made(path, exact, None, canonical.into_owned())),
            Err(why) => {
                self.spoil(Reason::BadPath, format!("path {written:?}: {why}"));
                None
            }
        }
    }

    fn made(&self, from: &HTTPIngressPath, exact: bool, pattern: Option<regex::Regex>, path: String) -> Path {
        let mut policy = Arc::clone(&self.policy);
        if let (Some(pattern), Some(rewrite)) = (&pattern, &policy.rewrite) {
            let target = rewrite.target.clone();
            let pattern = Some(pattern.clone());
            Arc::make_mut(&mut policy).rewrite = Some(Rewrite { pattern, target });
        }
        // S28: a solver is asked over plain HTTP, before there is a certificate.
        if path.starts_with(ACME) && policy.redirects.https != HttpsRedirect::Off {
            Arc::make_mut(&mut policy).redirects.https = HttpsRedirect::Off;
        }
        Path {
            exact,
            pattern,
            path,
            backend: from.backend.clone(),
            policy,
        }
    }

    /// Takes what protects from another version of the same Ingress: the newest counts, however much else is wrong with it.
    pub(super) fn protect_like(&mut self, newest: &Policy) {
        let take = |policy: &mut Arc<Policy>| {
            let policy = Arc::make_mut(policy);
            policy.closed.clone_from(&newest.closed);
            policy.sources.clone_from(&newest.sources);
            policy.basic_auth.clone_from(&newest.basic_auth);
            policy.external_auth.clone_from(&newest.external_auth);
            policy.client_certificate.clone_from(&newest.client_certificate);
        };
        take(&mut self.policy);
        for path in self.rules.iter_mut().flat_map(|rule| &mut rule.paths) {
            take(&mut path.policy);
        }
    }
}
