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
    /// How the file at `url` is signed.
    pub signing: Signing,
}

/// How a publisher signs a file, as of 2026-11-29.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Signing {
    /// Not at all. CNI plugins: SHA-256 and SHA-512 alone (.github/workflows/release.yaml at v1.9.1).
    Nothing,
    /// Not in this version, but from this one on.
    From(&'static str),
    /// Keyless by cosign, signature and certificate beside the file: Kubernetes, by
    /// <https://kubernetes.io/docs/tasks/administer-cluster/verify-signed-artifacts/>, which is for 1.26 and newer.
    CosignBlob { signature: String, certificate: String },
    /// Build provenance, attested for all archives of a release in one file: containerd (.github/workflows/release.yml at v2.4.2,
    /// actions/attest-build-provenance).
    CosignAttestation { bundle: String, identity: String },
    /// A detached OpenPGP signature by a key of the publisher's keyring: runc (script/release_sign.sh, README.md and runc.keyring at v1.5.2).
    OpenPgp { signature: String },
}

/// Whose signature of Kubernetes' programs counts; the page that [`Signing::CosignBlob`] names has both.
pub(super) const KUBERNETES_SIGNER: &str = "krel-staging@k8s-releng-prod.iam.gserviceaccount.com";
/// Who vouches for that identity.
pub(super) const KUBERNETES_ISSUER: &str = "https://accounts.google.com";
/// Who vouches for workflows of GitHub.
pub(super) const GITHUB_ISSUER: &str = "https://token.actions.githubusercontent.com";
/// Components whose programs are signed by OpenPGP, for which users name keyrings.
pub(super) const OPENPGP: [&str; 1] = ["runc"];

/// Returns the versions of a bundle, by component.
pub(super) fn versions() -> BTreeMap<String, String> {
    let own = |(name, version): (&str, &str)| (name.to_owned(), version.to_owned());
    VERSIONS.into_iter().map(own).collect()
}

/// Returns where the program of a component is; `None` when the component's programs are nowhere published.
pub(super) fn published(component: &str, name: &str, version: &str, architecture: &str) -> Option<Published> {
    let found = match component {
        "kubernetes" => kubernetes(name, version, architecture),
        "containerd" => containerd(name, version, architecture),
        "runc" => runc(version, architecture),
        "cni" => cni(name, version, architecture),
        _ => return None,
    };
    Some(found)
}

fn kubernetes(name: &str, version: &str, architecture: &str) -> Published {
    let url = format!("https://dl.k8s.io/release/v{version}/bin/linux/{architecture}/{name}");
    let blob = || Signing::CosignBlob {
        signature: format!("{url}.sig"),
        certificate: format!("{url}.cert"),
    };
    Published {
        signing: signed_from("1.26.0", version, blob),
        sums: format!("{url}.sha256"),
        url,
        member: None,
    }
}

/// The static build: the other one needs the glibc of its build machine (docs/getting-started.md there).
fn containerd(name: &str, version: &str, architecture: &str) -> Published {
    let folder = format!("https://github.com/containerd/containerd/releases/download/v{version}");
    let url = format!("{folder}/containerd-static-{version}-linux-{architecture}.tar.gz");
    let attestation = || Signing::CosignAttestation {
        bundle: format!("{folder}/containerd-{version}-attestation.intoto.jsonl"),
        identity: format!(
            "https://github.com/containerd/containerd/.github/workflows/release.yml@refs/tags/v{version}"
        ),
    };
    Published {
        // The pull request that published attestations, 11049, is for 2.0, behind 2.0.0 (2024-11-25).
        signing: signed_from("2.1.0", version, attestation),
        sums: format!("{url}.sha256sum"),
        url,
        member: Some(format!("bin/{name}")),
    }
}

fn runc(version: &str, architecture: &str) -> Published {
    let folder = format!("https://github.com/opencontainers/runc/releases/download/v{version}");
    let url = format!("{folder}/runc.{architecture}");
    let detached = || Signing::OpenPgp {
        signature: format!("{url}.asc"),
    };
    Published {
        // The first with a keyring in its repository (CHANGELOG.md).
        signing: signed_from("1.1.7", version, detached),
        sums: format!("{folder}/runc.sha256sum"),
        url,
        member: None,
    }
}

fn cni(name: &str, version: &str, architecture: &str) -> Published {
    let url = format!(
        "https://github.com/containernetworking/plugins/releases/download/v{version}/cni-plugins-linux-{architecture}-v{version}.tgz"
    );
    Published {
        signing: Signing::Nothing,
        sums: format!("{url}.sha256"),
        url,
        member: Some(name.to_owned()),
    }
}

fn signed_from(first: &'static str, version: &str, signing: impl FnOnce() -> Signing) -> Signing {
    let numbers = |text: &str| -> Vec<u64> {
        let plain = text.split(['-', '+']).next().unwrap_or_default();
        plain.split('.').map(|number| number.parse().unwrap_or(0)).collect()
    };
    if numbers(version) < numbers(first) {
        return Signing::From(first);
    }
    signing()
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

    #[test]
    fn signatures_are_where_publishers_put_them_since_they_sign() {
        let signing =
            |component: &str, name: &str, version: &str| published(component, name, version, "amd64").unwrap().signing;
        let runc = "https://github.com/opencontainers/runc/releases/download/v1.5.2/runc.amd64.asc";
        assert_eq!(
            signing("runc", "runc", "1.5.2"),
            Signing::OpenPgp {
                signature: runc.to_owned()
            }
        );
        let kubelet = "https://dl.k8s.io/release/v1.26.0/bin/linux/amd64/kubelet";
        assert_eq!(
            signing("kubernetes", "kubelet", "1.26.0"),
            Signing::CosignBlob {
                signature: format!("{kubelet}.sig"),
                certificate: format!("{kubelet}.cert"),
            }
        );
        let Signing::CosignAttestation { bundle, identity } = signing("containerd", "ctr", "2.4.2") else {
            panic!("containerd attests");
        };
        assert!(
            bundle.ends_with("/v2.4.2/containerd-2.4.2-attestation.intoto.jsonl"),
            "{bundle}"
        );
        assert!(identity.ends_with("release.yml@refs/tags/v2.4.2"), "{identity}");
        assert_eq!(signing("cni", "bridge", "1.9.1"), Signing::Nothing);
        for (component, version, first) in [
            ("kubernetes", "1.25.16", "1.26.0"),
            ("containerd", "1.7.30", "2.1.0"),
            ("runc", "1.1.6", "1.1.7"),
        ] {
            assert_eq!(signing(component, "x", version), Signing::From(first));
        }
    }
}
