//! Manifests of the bundle's builder: what may be in them, and whether a cluster without internet can run it. All problems are found while
//! the bundle is built, since nothing can be added on the day of the installation.

use crate::images::{containers, own_objects};
use crate::{ClusterLayout, RenderError};
use landfall_core::bundle_index::{BundleIndex, Manifest};
use landfall_core::name::ImageRef;
use landfall_core::plan::objects::ObjectKey;
use landfall_core::spec::ClusterSpec;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Kinds with a namespace, by API group (`kubectl api-resources --namespaced=true` of Kubernetes 1.37, without those that only
/// controllers or requests make).
const NAMESPACED: [(&str, &str); 29] = [
    ("", "ConfigMap"),
    ("", "Endpoints"),
    ("", "LimitRange"),
    ("", "PersistentVolumeClaim"),
    ("", "Pod"),
    ("", "PodTemplate"),
    ("", "ReplicationController"),
    ("", "ResourceQuota"),
    ("", "Secret"),
    ("", "Service"),
    ("", "ServiceAccount"),
    ("apps", "ControllerRevision"),
    ("apps", "DaemonSet"),
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("apps", "StatefulSet"),
    ("autoscaling", "HorizontalPodAutoscaler"),
    ("batch", "CronJob"),
    ("batch", "Job"),
    ("coordination.k8s.io", "Lease"),
    ("discovery.k8s.io", "EndpointSlice"),
    ("networking.k8s.io", "Ingress"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("policy", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io", "Role"),
    ("rbac.authorization.k8s.io", "RoleBinding"),
    ("resource.k8s.io", "ResourceClaim"),
    ("resource.k8s.io", "ResourceClaimTemplate"),
    ("storage.k8s.io", "CSIStorageCapacity"),
];
/// Kinds without a namespace (`--namespaced=false`).
const OF_CLUSTER: [(&str, &str); 24] = [
    ("", "Namespace"),
    ("", "PersistentVolume"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("apiregistration.k8s.io", "APIService"),
    ("certificates.k8s.io", "ClusterTrustBundle"),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"),
    ("networking.k8s.io", "IngressClass"),
    ("networking.k8s.io", "IPAddress"),
    ("networking.k8s.io", "ServiceCIDR"),
    ("node.k8s.io", "RuntimeClass"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("resource.k8s.io", "DeviceClass"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("storage.k8s.io", "CSIDriver"),
    ("storage.k8s.io", "StorageClass"),
    ("storage.k8s.io", "VolumeAttributesClass"),
];
/// Namespaces of every cluster.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// Reads a manifest: documents of YAML or JSON, each an object or a `List` of them. Namespaces and definitions of kinds come first, the rest
/// keeps its order. Returns all problems when there are any.
pub fn read_manifest(file: &str, text: &str) -> Result<Manifest, Vec<String>> {
    let mut objects = Vec::new();
    let mut problems = Vec::new();
    for (number, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        match <Value as serde::Deserialize>::deserialize(document) {
            Ok(Value::Null) => {}
            Ok(Value::Object(mut list)) if list.get("kind").is_some_and(|kind| kind == "List") => {
                let items = list.remove("items").unwrap_or_default();
                objects.extend(items.as_array().cloned().unwrap_or_default());
            }
            Ok(object) => objects.push(object),
            Err(error) => {
                problems.push(format!("{file}: document {}: {error}", number + 1));
                // The rest cannot be split into documents.
                break;
            }
        }
    }
    for (number, object) in objects.iter().enumerate() {
        problems.extend(form_problem(object).map(|why| format!("{file}: object {}: {why}", number + 1)));
    }
    let name = name_of(file);
    if name.is_empty() {
        problems.push(format!("{file}: its name has no letters and digits"));
    }
    if problems.is_empty() && objects.is_empty() {
        problems.push(format!("{file}: there is no object in it"));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let first = |object: &Value| {
        let of = |kind: &str| object["kind"] == kind;
        !(of("Namespace") || of("CustomResourceDefinition"))
    };
    objects.sort_by_key(first);
    for object in &mut objects {
        in_namespace(object);
    }
    Ok(Manifest { name, objects })
}

/// The file's name without its ending, of letters that a step's id may have.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let stem = name
        .rsplit_once('.')
        .map_or(name, |(stem, _)| stem)
        .to_ascii_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    stem.chars().map(plain).collect::<String>().trim_matches('-').to_owned()
}

/// What is wrong with an object by itself.
fn form_problem(object: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    if !text(&object["apiVersion"]) || !text(&object["kind"]) {
        return Some("it has no apiVersion or kind".to_owned());
    }
    if !text(&object["metadata"]["name"]) {
        return Some(format!("a {} without metadata.name", kind_of(object).1));
    }
    // Plans, journals and the bundle hold objects as they are.
    let is_secret = kind_of(object) == ("", "Secret");
    is_secret.then(|| {
        let name = ObjectKey::of(object);
        format!(
            "{name}: a bundle, plans and journals may hold no secret; make it with kubectl once the cluster is there"
        )
    })
}

/// API group and kind.
fn kind_of(object: &Value) -> (&str, &str) {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    (group, object["kind"].as_str().unwrap_or_default())
}

/// Writes the namespace `default` where Kubernetes would assume it, as `kubectl apply` does.
fn in_namespace(object: &mut Value) {
    if NAMESPACED.contains(&kind_of(object)) && object["metadata"]["namespace"].as_str().is_none() {
        object["metadata"]["namespace"] = json!("default");
    }
}

/// Returns why a cluster without internet could not run the manifests of a bundle: kinds and namespaces that nothing makes, objects that are
/// there twice or landfall's own, images that are not inside or that the kubelet would ask a registry for.
pub fn added_problems(
    spec: &ClusterSpec,
    index: &BundleIndex,
    cluster: &ClusterLayout,
) -> Result<Vec<String>, RenderError> {
    let own: BTreeSet<ObjectKey> = own_objects(spec, index, cluster)?.iter().map(ObjectKey::of).collect();
    let images: BTreeSet<&str> = index.images().iter().map(|image| image.reference.as_str()).collect();
    let mut namespaces: BTreeSet<String> = NAMESPACES.map(str::to_owned).into();
    let mut defined: BTreeMap<(String, String), bool> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut problems = Vec::new();
    for manifest in &index.manifests {
        for object in &manifest.objects {
            let key = ObjectKey::of(object);
            let mut problem = |why: String| problems.push(format!("{}: {key}: {why}", manifest.name));
            if own.contains(&key) || key.is_made_by_kubeadm() {
                problem("landfall makes an object of this name".to_owned());
            }
            if !seen.insert(key.clone()) {
                problem("it is there twice".to_owned());
            }
            for why in place_problems(object, &namespaces, &defined) {
                problem(why);
            }
            for container in containers(object) {
                problem_of_image(&container, &images).into_iter().for_each(&mut problem);
            }
            match kind_of(object) {
                ("", "Namespace") => {
                    namespaces.extend(object["metadata"]["name"].as_str().map(str::to_owned));
                }
                ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    let kind = (text(&object["spec"]["group"]), text(&object["spec"]["names"]["kind"]));
                    defined.insert(kind, object["spec"]["scope"] == "Namespaced");
                }
                _ => {}
            }
        }
    }
    Ok(problems)
}

/// Whether the object's kind and namespace are there when its turn comes.
fn place_problems(
    object: &Value,
    namespaces: &BTreeSet<String>,
    defined: &BTreeMap<(String, String), bool>,
) -> Vec<String> {
    let (group, kind) = kind_of(object);
    let namespace = object["metadata"]["namespace"].as_str();
    let namespaced = if NAMESPACED.contains(&(group, kind)) {
        true
    } else if OF_CLUSTER.contains(&(group, kind)) {
        false
    } else {
        match defined.get(&(group.to_owned(), kind.to_owned())) {
            Some(namespaced) => *namespaced,
            None => {
                return vec![format!(
                    "Kubernetes has no such kind, and no manifest defines it before (group {group:?})"
                )];
            }
        }
    };
    match namespace {
        None if namespaced => vec!["it has no metadata.namespace".to_owned()],
        Some(_) if !namespaced => vec!["objects of this kind are in no namespace".to_owned()],
        Some(name) if !namespaces.contains(name) => {
            vec![format!("no manifest makes the namespace {name} before")]
        }
        _ => vec![],
    }
}

fn problem_of_image(container: &Value, images: &BTreeSet<&str>) -> Option<String> {
    let text = container["image"].as_str().unwrap_or_default();
    let image = match ImageRef::normalized(text) {
        Ok(image) => image,
        Err(error) => return Some(error.to_string()),
    };
    if !images.contains(image.as_str()) {
        return Some(format!(
            "the image {image} is not in the bundle: --add-image or --image-archive"
        ));
    }
    // Kubernetes docs, "Images": the policy is Always where none is named and the tag is `latest`.
    let always = match container["imagePullPolicy"].as_str() {
        Some(policy) => policy == "Always",
        None => image.as_str().ends_with(":latest"),
    };
    always.then(|| format!("the kubelet would ask a registry for {image}: set imagePullPolicy: IfNotPresent"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{NAMES, cluster, index};
    use landfall_core::dns_policy::DnsPolicy;

    fn problems(files: &[(&str, &str)]) -> Vec<String> {
        let mut index = index(&NAMES);
        index.manifests = files
            .iter()
            .map(|(file, text)| read_manifest(file, text).unwrap())
            .collect();
        added_problems(&ClusterSpec::default(), &index, &cluster(DnsPolicy::Closed)).unwrap()
    }

    const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";

    #[test]
    fn documents_and_lists_become_objects_with_namespaces() {
        let text = "# only a comment\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n---\n\
                    {\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"shop\"}}\n";
        let manifest = read_manifest("/tmp/My shop.yaml", text).unwrap();
        assert_eq!(manifest.name, "my-shop");
        assert_eq!(manifest.objects[0]["kind"], "Namespace");
        assert_eq!(manifest.objects[1]["metadata"]["namespace"], "default");
    }

    #[test]
    fn what_is_no_object_is_refused_all_at_once() {
        let text = "kind: Pod\n---\napiVersion: v1\nkind: Pod\nmetadata: {generateName: a}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n\
                    stringData: {key: hunter2}\n";
        let found = read_manifest("a.yaml", text).unwrap_err();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(
            found[2].contains("Secret") && !found[2].contains("hunter2"),
            "{found:?}"
        );
        assert_eq!(read_manifest("a.yaml", "---\n").unwrap_err().len(), 1);
        assert_eq!(read_manifest("a.yaml", "a: [\n---\nb: 1\n").unwrap_err().len(), 1);
    }

    #[test]
    fn what_nothing_makes_is_named() {
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n";
        assert_eq!(problems(&[("a.yaml", &format!("{service}---\n{NAMESPACE}"))]), [""; 0]);
        let late = problems(&[("a.yaml", service), ("b.yaml", NAMESPACE)]);
        assert!(late[0].contains("no manifest makes the namespace shop"), "{late:?}");
        let custom = "apiVersion: example.com/v1\nkind: Cart\nmetadata: {name: c}\n";
        assert!(problems(&[("a.yaml", custom)])[0].contains("no such kind"));
        let definition = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: carts.example.com}\n\
                          spec: {group: example.com, scope: Namespaced, names: {kind: Cart, plural: carts}}\n";
        let without = problems(&[("a.yaml", definition), ("b.yaml", custom)]);
        assert!(without[0].contains("has no metadata.namespace"), "{without:?}");
        let role =
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r, namespace: default}\n";
        assert!(problems(&[("a.yaml", role)])[0].contains("in no namespace"));
    }

    #[test]
    fn objects_are_there_once() {
        assert!(problems(&[("a.yaml", NAMESPACE), ("b.yaml", NAMESPACE)])[0].contains("twice"));
        let class = "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: landfall}\n";
        assert!(problems(&[("a.yaml", class)])[0].contains("landfall makes"));
    }

    #[test]
    fn images_are_inside_and_no_registry_is_asked() {
        let pods = |image: &str, policy: &str| {
            let text = format!(
                "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: j}}\nspec: {{jobTemplate: {{spec: {{template: {{spec: \
                 {{containers: [{{name: c, image: '{image}'{policy}}}]}}}}}}}}}}\n"
            );
            problems(&[("a.yaml", &text)])
        };
        assert!(pods("redis:7", "")[0].contains("docker.io/library/redis:7 is not in the bundle"));
        assert!(pods("redis@sha256:00", "")[0].contains("no digest"));
        let inside = index(&NAMES).image_named("nginx").unwrap().reference.to_string();
        assert_eq!(pods(&inside, ""), [""; 0]);
        assert!(pods(&inside, ", imagePullPolicy: Always")[0].contains("IfNotPresent"));
    }
}
