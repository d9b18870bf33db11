//! Whose an object of the cluster is, by the journals, and which of ours a changed spec leaves out.
//!
//! An apply's recipe names the objects that were absent before it: those are landfall's. What was there before is never removed, and
//! never taken over unless kubeadm made it for landfall. A deletion that came later takes an object out again.

use crate::action::Undo;
use crate::journal::{Entry, EntryState, Ownership};
use crate::name::StepId;
use crate::plan::Stage;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// First word of the steps that apply a group.
pub(crate) const APPLY: &str = "apply-";
/// First word of the steps that remove what a group left out.
pub(crate) const REMOVE: &str = "remove-";
/// Objects that `kubeadm init` makes and landfall changes afterwards (kubeadm 1.37, cmd/kubeadm/app/phases/addons), and those of its
/// CoreDNS addon, whose names landfall's own CoreDNS has. All of them lie in kube-system or in no namespace.
const KUBEADM_OBJECTS: [(&str, &str); 8] = [
    ("ConfigMap", "kube-proxy"),
    ("DaemonSet", "kube-proxy"),
    ("ServiceAccount", "coredns"),
    ("ClusterRole", "system:coredns"),
    ("ClusterRoleBinding", "system:coredns"),
    ("ConfigMap", "coredns"),
    ("Deployment", "coredns"),
    ("Service", "kube-dns"),
];

/// First words of the groups by which `landfall ingress allow` lets the ingress proxy read Secrets: all, all of a namespace, those of a
/// namespace that are named. An install with an ingress proxy keeps them.
pub const ALLOWED: &str = "ingress-allow";
/// See [`ALLOWED`].
pub const ALLOWED_NAMED: &str = "ingress-named";
/// First word of the groups that the builder of the bundle added, one for each manifest.
pub const ADDED: &str = "added-";
/// Name of the ingress proxy's group.
pub const INGRESS: &str = "ingress";

/// Stands for a value of a Secret that is made once for each cluster: by whoever applies the Secret, when it is not there. So the value is
/// in no plan and no journal. (It is no base64, so no API server takes it for a value.)
pub const GENERATED: &str = "${generated}";

/// Annotation of a Secret of type kubernetes.io/tls whose values are made: the host that the certificate is for.
pub const CERTIFICATE_FOR: &str = "landfall.io/certificate-for";

/// Says whether a body is a Secret whose values are made when it is applied.
pub fn is_generated(object: &Value) -> bool {
    let data = object["data"].as_object();
    object["kind"] == "Secret" && data.is_some_and(|data| data.values().any(|value| value == GENERATED))
}

/// Returns a body as a journal may hold it: of a Secret without its values, so that who puts it back makes new ones.
pub fn without_secrets(object: Value) -> Value {
    if object["kind"] != "Secret" {
        return object;
    }
    // Other annotations go too: `kubectl apply` keeps the whole body in one.
    let mut kept = identity(&object);
    kept["metadata"]["labels"] = object["metadata"]["labels"].clone();
    if let Some(host) = object["metadata"]["annotations"].get(CERTIFICATE_FOR) {
        kept["metadata"]["annotations"] = json!({ CERTIFICATE_FOR: host });
    }
    kept["type"] = object["type"].clone();
    let names = object["data"].as_object().into_iter().flatten();
    kept["data"] = names.map(|(name, _)| (name.clone(), json!(GENERATED))).collect();
    kept
}

/// What tells an object from all others. The version of its API is no part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    group: String,
    kind: String,
    namespace: Option<String>,
    name: String,
}

impl ObjectKey {
    /// Reads it out of a body.
    pub fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let api = text(&object["apiVersion"]);
        Self {
            group: api.split_once('/').map_or("", |(group, _)| group).to_owned(),
            kind: text(&object["kind"]),
            namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
            name: text(&object["metadata"]["name"]),
        }
    }

    /// Says whether kubeadm makes the object, so that landfall may change it all the same.
    pub fn is_made_by_kubeadm(&self) -> bool {
        let listed = KUBEADM_OBJECTS.contains(&(self.kind.as_str(), self.name.as_str()));
        listed && self.namespace.as_deref().is_none_or(|n| n == "kube-system")
    }
}

/// Kind, namespace and name, for people.
impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// Returns of a body what names the object.
pub fn identity(object: &Value) -> Value {
    json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": { "name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"] },
    })
}

/// Kubernetes objects that are applied together.
#[derive(Debug, Clone)]
pub struct ObjectGroup {
    /// Name, for instance `flannel`.
    pub name: String,
    /// Label.
    pub stage: Stage,
    /// Bodies.
    pub objects: Vec<serde_json::Value>,
    /// When it is applied.
    pub when: ApplyWhen,
}

/// When a group of objects is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyWhen {
    /// As soon as the API answers: DaemonSets follow the nodes.
    FirstApiServer,
    /// When all nodes are Ready, so that replicas spread: the scheduler takes no other.
    AllReady,
}

/// Objects of one group that are landfall's and wanted no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The group that applied them.
    pub group: String,
    /// What names each of them, in the order in which they were applied.
    pub objects: Vec<Value>,
}

/// Returns the objects that landfall made, by one node's journal, also in steps that were interrupted.
pub fn made_by(own: &Ownership) -> BTreeSet<ObjectKey> {
    let groups = made_in_groups(std::iter::once(own)).into_values();
    groups.flatten().map(|object| ObjectKey::of(&object)).collect()
}

/// Compares what the journals say was made with what is wanted. `owned` in the order of the members; a step that several nodes
/// journal counts once.
pub fn left_out<'a>(owned: impl IntoIterator<Item = &'a Ownership>, wanted: &[ObjectGroup]) -> Vec<LeftOut> {
    let ingress = wanted.iter().any(|group| group.name == INGRESS);
    let kept = |group: &str| ingress && [ALLOWED, ALLOWED_NAMED].iter().any(|word| group.starts_with(word));
    let wanted: BTreeSet<ObjectKey> = wanted
        .iter()
        .flat_map(|g| g.objects.iter().map(ObjectKey::of))
        .collect();
    let left = made_in_groups(owned).into_iter().map(|(group, objects)| LeftOut {
        group,
        objects: objects
            .into_iter()
            .filter(|o| !wanted.contains(&ObjectKey::of(o)))
            .collect(),
    });
    left.filter(|l| !l.objects.is_empty() && !kept(&l.group)).collect()
}

/// What landfall made and did not remove since, by group.
fn made_in_groups<'a>(owned: impl IntoIterator<Item = &'a Ownership>) -> BTreeMap<String, Vec<Value>> {
    let mut made: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for own in owned {
        let mut here: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut theirs: BTreeSet<ObjectKey> = BTreeSet::new();
        for entry in &own.entries {
            let Undo::RestoreObjects { prior, absent } = &entry.undo else {
                continue;
            };
            if let Some(group) = group_of(&entry.step, APPLY) {
                let list = here.entry(group.to_owned()).or_default();
                let known: BTreeSet<_> = list.iter().map(ObjectKey::of).collect();
                theirs.extend(prior.iter().map(ObjectKey::of).filter(|key| !known.contains(key)));
                let new = |o: &&Value| !known.contains(&ObjectKey::of(o)) && !theirs.contains(&ObjectKey::of(o));
                list.extend(absent.iter().filter(new).map(identity));
            } else if let Some(group) = group_of(&entry.step, REMOVE).filter(|_| is_removed(entry)) {
                let gone: BTreeSet<_> = prior.iter().map(ObjectKey::of).collect();
                here.entry(group.to_owned())
                    .or_default()
                    .retain(|o| !gone.contains(&ObjectKey::of(o)));
            }
        }
        for (group, objects) in here {
            let list = made.entry(group).or_default();
            for object in objects {
                if !list.iter().any(|o| ObjectKey::of(o) == ObjectKey::of(&object)) {
                    list.push(object);
                }
            }
        }
    }
    made
}

fn is_removed(entry: &Entry) -> bool {
    entry.state == EntryState::Owned
}

/// `sample` of `apply-sample/cp-1`.
fn group_of<'a>(step: &'a StepId, word: &str) -> Option<&'a str> {
    // Journals of version 1 name the node behind the group.
    let what = step.as_str().split('/').next()?;
    what.strip_prefix(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Digest;
    use crate::plan::Stage;

    fn object(kind: &str, name: &str) -> Value {
        json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": name, "namespace": "n" }, "spec": { "replicas": 1 } })
    }

    fn entry(step: &str, prior: &[Value], absent: &[Value]) -> Entry {
        Entry {
            run: "r".parse().unwrap(),
            step: step.parse().unwrap(),
            action: Digest::of(b""),
            undo: Undo::RestoreObjects {
                prior: prior.to_vec(),
                absent: absent.iter().map(identity).collect(),
            },
            state: EntryState::Owned,
            stamp: None,
            wanted: None,
        }
    }

    fn own(entries: Vec<Entry>) -> Ownership {
        Ownership {
            entries,
            ..Ownership::default()
        }
    }

    fn wanted(name: &str, objects: &[Value]) -> ObjectGroup {
        ObjectGroup {
            name: name.to_owned(),
            stage: Stage::Sample,
            objects: objects.to_vec(),
            when: ApplyWhen::AllReady,
        }
    }

    fn names(left: &[LeftOut]) -> Vec<(&str, Vec<&str>)> {
        let of = |l: &'_ LeftOut| -> Vec<String> {
            l.objects
                .iter()
                .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
                .collect()
        };
        left.iter()
            .map(|l| (l.group.as_str(), of(l).into_iter().map(|s| &*s.leak()).collect()))
            .collect()
    }

    #[test]
    fn a_group_and_a_part_of_a_group_are_left_out() {
        let (a, b, c) = (
            object("Deployment", "a"),
            object("Service", "b"),
            object("Service", "c"),
        );
        let journal = own(vec![
            entry("apply-sample/cp-1", &[], &[a.clone(), b.clone()]),
            entry("apply-ingress/cp-1", &[], std::slice::from_ref(&c)),
        ]);
        let all = [
            wanted("sample", &[a.clone(), b.clone()]),
            wanted("ingress", std::slice::from_ref(&c)),
        ];
        assert_eq!(left_out([&journal], &all), vec![]);
        let part = [wanted("sample", std::slice::from_ref(&a))];
        let left = left_out([&journal, &journal], &part);
        assert_eq!(names(&left), [("ingress", vec!["c"]), ("sample", vec!["b"])]);
    }

    #[test]
    fn what_was_allowed_is_kept_as_long_as_there_is_an_ingress_proxy() {
        let (role, binding) = (object("DaemonSet", "landfall-ingress"), object("RoleBinding", "b"));
        let one = std::slice::from_ref(&binding);
        let journal = own(vec![
            entry("apply-ingress", &[], std::slice::from_ref(&role)),
            entry("apply-ingress-allow-shop", &[], one),
        ]);
        let ingress = [wanted("ingress", &[role])];
        assert_eq!(left_out([&journal], &ingress), vec![]);
        let all = left_out([&journal], &[]);
        assert_eq!(
            names(&all),
            [("ingress", vec!["landfall-ingress"]), ("ingress-allow-shop", vec!["b"])]
        );
    }

    #[test]
    fn what_was_there_before_is_never_left_out() {
        let (theirs, ours) = (object("Deployment", "theirs"), object("Service", "ours"));
        let journal = own(vec![
            entry(
                "apply-sample/cp-1",
                std::slice::from_ref(&theirs),
                std::slice::from_ref(&ours),
            ),
            // A later run found both, and a third time theirs was away for a moment.
            entry("apply-sample/cp-1", &[theirs.clone(), ours.clone()], &[]),
            entry(
                "apply-sample/cp-1",
                std::slice::from_ref(&ours),
                std::slice::from_ref(&theirs),
            ),
        ]);
        assert_eq!(names(&left_out([&journal], &[])), [("sample", vec!["ours"])]);
        assert_eq!(made_by(&journal), [ObjectKey::of(&ours)].into());
    }

    #[test]
    fn what_is_removed_is_not_removed_again_until_it_was_made_again() {
        let a = object("Deployment", "a");
        let one = std::slice::from_ref(&a);
        let mut entries = vec![
            entry("apply-sample/cp-1", &[], one),
            entry("remove-sample/cp-1", one, &[]),
        ];
        assert_eq!(left_out([&own(entries.clone())], &[]), vec![]);
        entries[1].state = EntryState::Intended;
        assert_eq!(names(&left_out([&own(entries.clone())], &[])), [("sample", vec!["a"])]);
        entries[1].state = EntryState::Owned;
        entries.push(entry("apply-sample/cp-1", &[], one));
        assert_eq!(names(&left_out([&own(entries)], &[])), [("sample", vec!["a"])]);
    }

    #[test]
    fn the_values_of_a_secret_are_in_no_journal() {
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth",
            "metadata": { "name": "s", "namespace": "n", "labels": { "a": "b" },
                "annotations": { CERTIFICATE_FOR: "h", "kubectl.kubernetes.io/last-applied-configuration": "{\"data\":{\"password\":\"aHVudGVyMg==\"}}" } },
            "data": { "username": "YQ==", "password": "aHVudGVyMg==" }, "stringData": { "x": "hunter2" } });
        let kept = without_secrets(secret.clone());
        assert!(is_generated(&kept) && !is_generated(&secret));
        let text = kept.to_string();
        assert!(!text.contains("aHVudGVyMg") && !text.contains("hunter2"), "{text}");
        assert_eq!(ObjectKey::of(&kept), ObjectKey::of(&secret));
        assert_eq!(kept["data"], json!({ "username": GENERATED, "password": GENERATED }));
        assert_eq!(kept["metadata"]["labels"], json!({ "a": "b" }));
        assert_eq!(kept["metadata"]["annotations"], json!({ CERTIFICATE_FOR: "h" }));
        let other = object("ConfigMap", "c");
        assert_eq!(without_secrets(other.clone()), other);
    }

    #[test]
    fn kubeadms_objects_are_known_by_kind_name_and_namespace() {
        let of = |kind: &str, namespace: Option<&str>, name: &str| {
            ObjectKey::of(
                &json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name, "namespace": namespace } }),
            )
        };
        assert!(of("ConfigMap", Some("kube-system"), "kube-proxy").is_made_by_kubeadm());
        assert!(of("ClusterRole", None, "system:coredns").is_made_by_kubeadm());
        assert!(!of("ConfigMap", Some("default"), "kube-proxy").is_made_by_kubeadm());
        assert!(!of("Secret", Some("kube-system"), "kube-proxy").is_made_by_kubeadm());
    }
}
