//! What the recipe takes by default: versions, and where publishers put their files. No digests: a lock file has those.

use std::collections::BTreeMap;

/// Component and version. Those that the recipe `source` has too are the same there (a test compares). etcd, CoreDNS and pause are the tags
/// that kubeadm 1.37.2 names (cmd/kubeadm/app/constants/constants.go), so that registry.k8s.io has them; nginx is Docker's official image.
const VERSIONS: [(&str, &str); 9] = [
    ("cni", "1.9.1"),
    ("containerd", "2.4.2"),
    ("coredns", "1.14.6"),
    ("etcd", "3.7.0-0"),
    ("flannel", "0.28.4"),
    ("kubernetes", "1.37.2"),
    ("nginx", "1.28.3"),
    ("pause", "3.10.2"),
    ("runc", "1.5.2"),
];

/// Architectures for which all publishers have files, as Go names them.
pub const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// Image, its component, and its name without a tag; `{v}` where the version has a `v` before it.
pub(super) const IMAGES: [UpstreamImage; 9] = [
    UpstreamImage::new("kube-apiserver", "kubernetes", "registry.k8s.io/kube-apiserver:v{v}"),
    UpstreamImage::new(
        "kube-controller-manager",
        "kubernetes",
        "registry.k8s.io/kube-controller-manager:v{v}",
    ),
    UpstreamImage::new("kube-scheduler", "kubernetes", "registry.k8s.io/kube-scheduler:v{v}"),
    UpstreamImage::new("kube-proxy", "kubernetes", "registry.k8s.io/kube-proxy:v{v}"),
    UpstreamImage::new("etcd", "etcd", "registry.k8s.io/etcd:{v}"),
    UpstreamImage::new("coredns", "coredns", "registry.k8s.io/coredns/coredns:v{v}"),
    UpstreamImage::new("pause", "pause", "registry.k8s.io/pause:{v}"),
    UpstreamImage::new("flannel", "flannel", "ghcr.io/flannel-io/flannel:v{v}"),
    UpstreamImage::new("nginx", "nginx", "docker.io/library/nginx:{v}"),
];

/// An image that a publisher has.
pub(super) struct UpstreamImage {
    /// Name in the bundle.
    pub name: &'static str,
    pub component: &'static str,
    reference: &'static str,
}

impl UpstreamImage {
    const fn new(name: &'static str, component: &'static str, reference: &'static str) -> Self {
        Self {
            name,
            component,
            reference,
        }
    }

    pub fn reference(&self, version: &str) -> String {
        self.reference.replace("{v}", version)
    }

    /// Whether control planes alone need it.
    pub fn control_planes_alone(&self) -> bool {
        matches!(
            self.name,
            "kube-apiserver" | "kube-controller-manager" | "kube-scheduler" | "etcd"
        )
    }
}

/// Where a publisher has a program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub url: String,
    /// File with its SHA-256, in the form of `sha256sum` or the digits alone.
    pub sums: String,
    /// The program's name in the archive; `None` where the file is the program.
    pub member: Option<String>,
}

/// Returns the versions of a bundle, by component.
pub(super) fn versions() -> BTreeMap<String, String> {
    let own = |(name, version): (&str, &str)| (name.to_owned(), version.to_owned());
    VERSIONS.into_iter().map(own).collect()
}

/// Returns where the program of a component is; `None` when the component's programs are nowhere published.
pub(super) fn published(component: &str, name: &str, version: &str, architecture: &str) -> Option<Published> {
    let (url, sums, member) = match component {
        "kubernetes" => {
            let url = format!("https://dl.k8s.io/release/v{version}/bin/linux/{architecture}/{name}");
            (url.clone(), format!("{url}.sha256"), None)
        }
        "containerd" => {
            // The static build: the other one needs the glibc of its build machine (docs/getting-started.md there).
            let url = format!(
                "https://github.com/containerd/containerd/releases/download/v{version}/containerd-static-{version}-linux-{architecture}.tar.gz"
            );
            (url.clone(), format!("{url}.sha256sum"), Some(format!("bin/{name}")))
        }
        "runc" => {
            let folder = format!("https://github.com/opencontainers/runc/releases/download/v{version}");
            (
                format!("{folder}/runc.{architecture}"),
                format!("{folder}/runc.sha256sum"),
                None,
            )
        }
        "cni" => {
            let url = format!(
                "https://github.com/containernetworking/plugins/releases/download/v{version}/cni-plugins-linux-{architecture}-v{version}.tgz"
            );
            (url.clone(), format!("{url}.sha256"), Some(name.to_owned()))
        }
        _ => return None,
    };
    Some(Published { url, sums, member })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::contents::NODE_PROGRAMS;

    #[test]
    fn both_recipes_have_the_same_versions() {
        let source: serde_yaml::Value = serde_yaml::from_str(include_str!("../../source/lock.yaml")).unwrap();
        let versions = versions();
        for component in ["kubernetes", "containerd", "runc", "cni", "flannel"] {
            let other = source["components"][component]["version"].as_str().unwrap();
            assert_eq!(versions[component], other, "{component}");
        }
        assert_eq!(versions["pause"], source["pauseVersion"].as_str().unwrap());
    }

    #[test]
    fn every_program_of_a_node_is_published_or_our_own() {
        for program in &NODE_PROGRAMS {
            let found = published(program.component, program.name, "1", "amd64");
            assert_eq!(found.is_none(), program.component == "landfall", "{}", program.name);
        }
        let versions = versions();
        assert!(IMAGES.iter().all(|image| versions.contains_key(image.component)));
    }
}
