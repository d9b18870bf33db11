//! What one Ingress asks for beside its hosts and paths, without looking at any other object but the Secrets that it names. Pure.
//!
//! It is kept as long as the Ingress and those Secrets stay the same. Hosts and paths stay in the Ingress, where [`IngressSettings::path`] says what
//! one of them means: nothing is kept twice.

use crate::annotations;
use crate::object::{Ingress, Path};
use crate::options::Options;
use crate::pattern;
use crate::remark::{Reason, Remark, Severity};
use crate::secrets::lookup::Secrets;
use landfall_ingress_http::path;
use landfall_ingress_routing::Route;
use landfall_ingress_routing::policy::{Canary, HttpsRedirect, Policy, Rewrite};
use regex::Regex;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// Where cert-manager's solver is asked for its token.
const ACME: &str = "/.well-known/acme-challenge/";

/// The settings of one Ingress.
#[derive(Debug)]
pub(super) struct IngressSettings {
    pub(super) policy: Arc<Policy>,
    pub(super) canary: Option<Arc<Canary>>,
    /// Further hosts of all its rules.
    pub(super) aliases: Box<[Arc<str>]>,
    /// Service of the same namespace.
    pub(super) fallback: Option<Box<str>>,
    /// Paths with characters of regular expressions are such.
    regex: bool,
    /// Its paths that are regular expressions, as written.
    patterns: Box<[(Arc<str>, Regex)]>,
}

/// A version of an Ingress with what is to be said of it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) asked: Arc<IngressSettings>,
    pub(super) remarks: Vec<Remark>,
    /// Cannot be used as it is: the last good version is better.
    pub(super) bad: bool,
}

/// A path in the form of the table.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: Arc<str>,
    pub(super) pattern: Option<Regex>,
    pub(super) policy: Arc<Policy>,
}

/// What a path as written is.
enum Reading<'a> {
    Pattern,
    /// In canonical form, for that is what the table is asked for.
    Plain(Cow<'a, str>),
    Bad(String),
}

/// Reads an Ingress.
pub(super) fn judge(ingress: &Ingress, secrets: &dyn Secrets, options: &Options) -> Judged {
    if !ingress.annotations.iter().any(|(name, _)| crate::object::is_read(name)) {
        let mut judged = Judged {
            asked: IngressSettings::nothing(),
            remarks: vec![],
            bad: false,
        };
        judged.look_at_hosts(ingress);
        judged.look_at_paths(ingress, (false, pattern::Case::default()), &mut vec![]);
        return judged;
    }
    let settings = annotations::read(&ingress.annotations, &ingress.namespace, secrets, options);
    let mut judged = Judged {
        asked: IngressSettings::nothing(),
        remarks: vec![],
        bad: settings.bad,
    };
    for fault in settings.faults {
        judged.remark(ingress, fault.severity, fault.reason, fault.text);
    }
    let mut patterns = vec![];
    judged.look_at_hosts(ingress);
    // What an alternative's paths mean is the word of the Ingress that has the routes.
    if settings.canary.is_none() {
        judged.look_at_paths(ingress, (settings.regex, settings.case), &mut patterns);
    }
    judged.asked = Arc::new(IngressSettings {
        policy: Arc::new(settings.policy),
        canary: settings.canary.map(Arc::new),
        aliases: settings.aliases.into_iter().map(Arc::from).collect(),
        fallback: settings.fallback.map(Box::from),
        regex: settings.regex,
        patterns: patterns.into(),
    });
    judged
}

impl Judged {
    fn look_at_hosts(&mut self, ingress: &Ingress) {
        let named = ingress.rules.iter().map(|rule| &rule.host);
        for host in named.chain(ingress.tls.iter().flat_map(|item| &item.hosts)) {
            if !host.valid {
                self.spoil(ingress, Reason::BadHost, format!("{:?} is no host", host.name));
            }
        }
    }

    /// Looks at paths, and makes regular expressions.
    fn look_at_paths(
        &mut self,
        ingress: &Ingress,
        (regex, case): (bool, pattern::Case),
        patterns: &mut Vec<(Arc<str>, Regex)>,
    ) {
        for path in ingress
            .rules
            .iter()
            .filter(|rule| rule.host.valid)
            .flat_map(|rule| &rule.paths)
        {
            let written = &path.path;
            let why = match read(path, regex) {
                Reading::Pattern => match pattern::path(written, case) {
                    Ok(pattern) => {
                        patterns.push((Arc::clone(written), pattern));
                        continue;
                    }
                    Err(why) => why.to_owned(),
                },
                Reading::Plain(_) => {
                    if !path.exact && written.ends_with("/*") {
                        let text = format!("path {written:?}: a star is only a star here");
                        self.remark(ingress, Severity::Approximated, Reason::BadPath, text);
                    }
                    continue;
                }
                Reading::Bad(why) => why,
            };
            self.spoil(ingress, Reason::BadPath, format!("path {written:?}: {why}"));
        }
    }

    fn remark(&mut self, ingress: &Ingress, severity: Severity, reason: Reason, text: String) {
        let remark = Remark::ingress(&ingress.namespace, ingress.name(), severity, reason, text);
        self.remarks.push(remark);
    }

    fn spoil(&mut self, ingress: &Ingress, reason: Reason, text: String) {
        self.bad = true;
        self.remark(ingress, Severity::Refused, reason, text);
    }
}

fn read(path: &Path, regex: bool) -> Reading<'_> {
    if regex && !path.exact && pattern::is_pattern(&path.path) {
        return Reading::Pattern;
    }
    match path::canonical(&path.path) {
        Ok(canonical) => Reading::Plain(canonical),
        Err(why) => Reading::Bad(why.to_string()),
    }
}

impl IngressSettings {
    /// What an Ingress without annotations of ours asks for; one for all of them, for most have none.
    fn nothing() -> Arc<Self> {
        static NOTHING: OnceLock<Arc<IngressSettings>> = OnceLock::new();
        let nothing = || {
            Arc::new(Self {
                policy: annotations::nothing(),
                canary: None,
                aliases: [].into(),
                fallback: None,
                regex: false,
                patterns: [].into(),
            })
        };
        Arc::clone(NOTHING.get_or_init(nothing))
    }

    /// What a path means; `None` when it is no path, which was remarked.
    pub(super) fn path(&self, path: &Path) -> Option<Place> {
        let written = &path.path;
        let mut policy = Arc::clone(&self.policy);
        let (path, pattern) = match read(path, self.regex) {
            Reading::Bad(_) => return None,
            Reading::Plain(canonical) if *canonical == **written => (Arc::clone(written), None),
            Reading::Plain(canonical) => (canonical.into(), None),
            Reading::Pattern => {
                let (_, pattern) = self.patterns.iter().find(|(text, _)| text == written)?;
                (Arc::clone(written), Some(pattern.clone()))
            }
        };
        if let (Some(pattern), Some(rewrite)) = (&pattern, &policy.rewrite) {
            let target = rewrite.target.clone();
            let pattern = Some(pattern.clone());
            Arc::make_mut(&mut policy).rewrite = Some(Rewrite { pattern, target });
        }
        // S28: a solver is asked over plain HTTP, before there is a certificate.
        if path.starts_with(ACME) && policy.redirects.https != HttpsRedirect::Off {
            Arc::make_mut(&mut policy).redirects.https = HttpsRedirect::Off;
        }
        Some(Place { path, pattern, policy })
    }

    /// Whether a path of another Ingress, as it is written, would be this route of ours.
    pub(super) fn means(&self, path: &Path, route: &Route) -> bool {
        match read(path, self.regex) {
            Reading::Bad(_) => false,
            Reading::Plain(canonical) => route.pattern.is_none() && *route.path == *canonical,
            Reading::Pattern => route.pattern.is_some() && route.path == path.path,
        }
    }

    /// The same with what protects from another version of the Ingress: the newest counts, however much else is wrong with it.
    pub(super) fn protected_like(&self, newest: &Policy) -> Self {
        let mut policy = Policy::clone(&self.policy);
        policy.closed.clone_from(&newest.closed);
        policy.sources.clone_from(&newest.sources);
        policy.basic_auth.clone_from(&newest.basic_auth);
        policy.external_auth.clone_from(&newest.external_auth);
        policy.client_certificate.clone_from(&newest.client_certificate);
        Self {
            policy: Arc::new(policy),
            canary: self.canary.clone(),
            aliases: self.aliases.clone(),
            fallback: self.fallback.clone(),
            regex: self.regex,
            patterns: self.patterns.clone(),
        }
    }
}
