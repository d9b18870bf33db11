//! The image list, derived from what is rendered, so that a missing image is an error of the build.

use crate::{
    ClusterLayout, RenderError, dns_objects, flannel_objects, image, ingress_objects, probe_objects, sample_objects,
};
use landfall_core::bundle_index::BundleIndex;
use landfall_core::name::ImageRef;
use landfall_core::spec::ClusterSpec;
use serde_json::Value;
use std::collections::BTreeSet;

/// Images that kubeadm's static pods and its kube-proxy addon name, and the sandbox.
const KUBEADM_IMAGES: [&str; 6] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "etcd",
    "pause",
];

/// Returns every image that `objects` name.
pub fn images_of(objects: &[Value]) -> BTreeSet<ImageRef> {
    let names = objects
        .iter()
        .flat_map(containers)
        .filter_map(|c| c["image"].as_str()?.parse().ok());
    names.collect()
}

/// Returns the containers of a pod, of a pod template, or of the template of a CronJob's jobs; none of other objects.
pub(crate) fn containers(object: &Value) -> Vec<Value> {
    let spec = match object["kind"].as_str() {
        Some("Pod") => &object["spec"],
        Some("CronJob") => &object["spec"]["jobTemplate"]["spec"]["template"]["spec"],
        _ => &object["spec"]["template"]["spec"],
    };
    let list = |key: &str| spec[key].as_array().cloned().unwrap_or_default();
    [list("initContainers"), list("containers")].concat()
}

/// Returns every image that a cluster of this spec needs, or the name of the first that the bundle lacks.
pub fn required_images(
    spec: &ClusterSpec,
    index: &BundleIndex,
    cluster: &ClusterLayout,
) -> Result<BTreeSet<ImageRef>, RenderError> {
    let mut images = images_of(&own_objects(spec, index, cluster)?);
    for name in KUBEADM_IMAGES {
        images.extend(image(index, name)?.parse::<ImageRef>().ok());
    }
    Ok(images)
}

/// Returns every object that a cluster of this spec has of landfall.
pub(crate) fn own_objects(
    spec: &ClusterSpec,
    index: &BundleIndex,
    cluster: &ClusterLayout,
) -> Result<Vec<Value>, RenderError> {
    let mut objects = flannel_objects(spec, index, cluster)?;
    objects.extend(dns_objects(spec, index, cluster)?);
    objects.extend(probe_objects(index)?);
    if spec.ingress.enabled {
        objects.extend(ingress_objects(spec, index, cluster)?);
    }
    if spec.sample {
        objects.extend(sample_objects(spec, index, cluster)?);
    }
    Ok(objects)
}
