//! The table of one moment with what the builder knows of its objects. What one and the next have in common they share.

use super::kept::{Kept, Served};
use crate::object::Ingress;
use crate::remark::{Reason, Remark, Severity};
use crate::secrets::{Name, Wanted};
use landfall_ingress_routing::shared::{Keyed, Shared};
use landfall_ingress_routing::{Held, RouteTable};
use std::borrow::Cow;
use std::sync::Arc;

/// A table, and what is known of the objects that it was made of: for people, for the API, and for the next table.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    /// What requests need.
    pub table: Arc<RouteTable>,
    pub(super) ingresses: Shared<Kept>,
    pub(super) ours: usize,
    /// What is to be said of classes, of the default backend and of the default certificate.
    pub(super) general_remarks: [Arc<[Remark]>; 3],
    /// What is to be said of hosts.
    pub(super) host_remarks: Shared<HostRemarks>,
    /// Every Secret that an Ingress of ours, or the operator, names and may name.
    pub wanted: Arc<Wanted>,
}

/// What an Event says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// `Ingress` or `IngressClass`.
    pub kind: String,
    /// Empty for classes.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Tells it from an earlier one of the same name, and `kubectl describe` finds Events by it; empty when it is not known.
    pub uid: String,
    /// One word for programs.
    pub reason: String,
    /// In words.
    pub text: String,
    /// Something is not as asked for; else it is only worth knowing.
    pub warning: bool,
}

/// What is to be said of one host, whether the table has it or not.
#[derive(Debug)]
pub(super) struct HostRemarks {
    pub(super) host: Arc<str>,
    pub(super) remarks: Box<[Remark]>,
}

impl Keyed for HostRemarks {
    fn key(&self) -> &str {
        &self.host
    }
}

impl Snapshot {
    /// Every Ingress that is ours, in no order.
    pub fn ours(&self) -> impl Iterator<Item = &Arc<Ingress>> {
        let ours = self.ingresses.values().filter(|kept| kept.served.is_some());
        ours.map(|kept| &kept.newest)
    }

    /// How many these are.
    pub fn ours_count(&self) -> usize {
        self.ours
    }

    /// What lost against an older object, or could not be used; for people: by object, each remark once.
    pub fn remarks(&self) -> Vec<Cow<'_, Remark>> {
        let general = self.general_remarks.iter().flat_map(|remarks| remarks.iter());
        let served = self.ingresses.values().filter_map(|kept| kept.served.as_ref());
        let own = served.flat_map(|served| &served.remarks);
        let hosts = self.host_remarks.values().flat_map(|entry| &entry.remarks);
        let written = general.chain(own).chain(hosts).map(Cow::Borrowed);
        let mut all: Vec<_> = written.chain(self.overtaken().map(Cow::Owned)).collect();
        all.sort_unstable_by(|a, b| {
            let object = (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name));
            object.then_with(|| a.cmp(b))
        });
        all.dedup();
        all
    }

    /// Younger Ingresses with what the whole proxy has once. Worked out when asked for: who is first says it of all others.
    fn overtaken(&self) -> impl Iterator<Item = Remark> {
        let first = self.table.default_route().map(|route| &route.ingress);
        let held = self
            .table
            .default_certificate()
            .filter(|held| held.certificate.is_some());
        let holder = held.and_then(|held| Some((held, self.served(&held.ingress)?)));
        let served = self.ingresses.values().filter_map(|kept| kept.served.as_ref());
        let main = served.filter(|served| !served.is_canary());
        main.flat_map(move |served| {
            let version = &served.version;
            let said = |severity, reason, text: String| {
                Remark::ingress(&version.namespace, version.name(), severity, reason, text)
            };
            let mut all = vec![];
            if served.has_general_default() && first != Some(&version.label) {
                let of_namespace = self.table.defaults().get(&version.namespace);
                let taken = of_namespace.is_none_or(|route| route.ingress != version.label);
                let (severity, text) = match taken {
                    true => (Severity::Refused, "an older Ingress has the default backend"),
                    false => (
                        Severity::Approximated,
                        "an older Ingress has the default backend of hosts that no Ingress names; this one is for hosts of its namespace alone",
                    ),
                };
                all.push(said(severity, Reason::DefaultTaken, text.to_owned()));
            }
            let later = holder.filter(|(_, holder)| holder.version.age() < version.age());
            let other = |held: &Held| {
                let mut names = version
                    .tls
                    .iter()
                    .filter(|item| item.hosts.is_empty())
                    .filter_map(|item| item.secret.as_deref());
                names.any(|name| Name::new(&version.namespace, name).as_ref().map(Name::text) != held.secret.as_ref())
            };
            if let Some((held, _)) = later.filter(|(held, _)| other(held)) {
                let text = format!("{}, which is older, has the default certificate", held.ingress);
                all.push(said(Severity::Note, Reason::Certificate, text));
            }
            all
        })
    }

    fn served(&self, label: &str) -> Option<&Served> {
        self.ingresses.get(label)?.served.as_ref()
    }

    /// What is to be said of one host.
    pub fn remarks_on(&self, host: &str) -> Vec<Remark> {
        let all = self.remarks().into_iter();
        let about = all.filter(|remark| remark.host.as_deref() == Some(host));
        about.map(Cow::into_owned).collect()
    }

    /// What people should know of their objects, for Events.
    pub fn notes(&self) -> impl Iterator<Item = Note> {
        self.remarks().into_iter().map(|remark| {
            let label = format!("{}/{}", remark.namespace, remark.name);
            let about = self.ingresses.get(&label).filter(|_| remark.kind == "Ingress");
            let remark = remark.into_owned();
            Note {
                uid: about.map(|kept| kept.newest.uid.to_string()).unwrap_or_default(),
                kind: remark.kind,
                namespace: remark.namespace,
                name: remark.name,
                reason: format!("{:?}", remark.reason),
                text: remark.text,
                warning: remark.severity != Severity::Note,
            }
        })
    }
}
