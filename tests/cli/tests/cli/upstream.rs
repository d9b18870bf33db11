//! `landfall bundle lock` and `bundle build` by the recipe `upstream`, against servers of this process.

use crate::program::{Home, Ran, program};
use landfall_bundle::sbom::CrateGraph;
use landfall_bundle::{Bundle, Unverified, own_parts};
use landfall_core::bundle_index::{BundleIndex, OCI_MANIFEST};
use landfall_core::name::Digest;
use landfall_test_support::publishers::{Publishers, elf};

/// What `landfall bundle` is asked for in a [`Builder`]'s home: x.bundle, with landfall's own programs.
pub const BUILD: [&str; 9] = [
    "build",
    "-o",
    "x.bundle",
    "--ca",
    "ca.pem",
    "--part",
    "landfall-agent=landfall-agent.amd64",
    "--part",
    "landfall-ingress=landfall-ingress.amd64",
];

/// A user's home with landfall's own programs, and the way to the servers.
pub struct Builder {
    pub home: Home,
    pub publishers: Publishers,
}

impl Builder {
    pub fn new(publishers: Publishers) -> Self {
        let home = Home::new();
        home.write("ca.pem", publishers.ca());
        for architecture in ["amd64", "arm64"] {
            // On nodes the agent's program has another name.
            for (name, on_nodes) in [("landfall-agent", "landfall"), ("landfall-ingress", "landfall-ingress")] {
                home.write(&format!("{name}.{architecture}"), elf(architecture, on_nodes));
            }
        }
        Self { home, publishers }
    }

    pub fn start() -> Self {
        Self::new(Publishers::start().unwrap())
    }

    /// Runs `landfall bundle …`, with the proxy that leads to the servers.
    #[track_caller]
    pub fn bundle(&self, args: &[&str]) -> Ran {
        let proxy = self.publishers.proxy();
        let args: Vec<&str> = ["bundle"].into_iter().chain(args.iter().copied()).collect();
        self.home.run_with(&[("HTTPS_PROXY", &proxy)], &args)
    }

    #[track_caller]
    pub fn lock(&self, more: &[&str]) -> Ran {
        self.bundle(&[&["lock", "--ca", "ca.pem"], more].concat())
    }

    #[track_caller]
    pub fn build(&self, more: &[&str]) -> Ran {
        self.bundle(&[&BUILD[..], more].concat())
    }

    pub fn index(&self) -> BundleIndex {
        let bundle = Bundle::<Unverified>::open(&self.home.path("x.bundle")).unwrap();
        bundle.index().clone()
    }

    /// Takes the bundle and all that was fetched away.
    pub fn forget(&self) {
        std::fs::remove_dir_all(self.home.path(".cache")).unwrap();
        std::fs::remove_file(self.home.path("x.bundle")).unwrap();
    }
}

#[test]
fn a_bundle_is_made_of_what_publishers_have() {
    let builder = Builder::start();
    let ran = builder.build(&[]).ends(0);
    assert!(ran.err.contains("there is no lock file"), "{}", ran.err);
    builder.home.run(&["bundle", "verify", "x.bundle"]).ends(0);
    let index = builder.index();
    assert_eq!(
        (index.recipe.as_str(), index.kubernetes_version.as_str()),
        ("upstream", "v1.37.2")
    );
    assert_eq!(index.min_upgrade_from.as_deref(), Some("v1.36.0"));
    for binary in index.binaries() {
        assert_eq!(
            binary.digest,
            Digest::of(&elf("amd64", &binary.name)),
            "{}",
            binary.name
        );
    }
    assert_eq!(index.binaries().len(), 12);
    let names: Vec<&str> = index.images().iter().map(|image| image.reference.as_str()).collect();
    for name in [
        "kube-apiserver:v1.37.2",
        "etcd:3.7.0-0",
        "coredns:v1.14.6",
        "flannel:v0.28.4",
        "nginx:1.28.3",
    ] {
        assert!(
            names.contains(&format!("registry.landfall.internal/{name}").as_str()),
            "{names:?}"
        );
    }
    let pause = index.image_named("pause").unwrap();
    assert_eq!(pause.media_type, "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(index.image_named("nginx").unwrap().media_type, OCI_MANIFEST);
    // Layers are as they were published: the base is one blob for all.
    let layer = |name: &str| index.image_named(name).unwrap().blobs[2];
    assert_eq!(layer("pause"), layer("nginx"));
    // Every request went by the proxy, and no login went to those who hold the files.
    assert!(builder.publishers.led().iter().any(|host| host == "dl.k8s.io:443"));
    let seen = builder.publishers.seen();
    assert!(
        seen.iter()
            .all(|s| !s.what.starts_with("files.test") || s.authorization.is_none())
    );
}

#[test]
fn the_bill_of_materials_names_programs_images_and_packages_with_their_places() {
    let builder = Builder::start();
    builder.build(&[]).ends(0);
    let ran = builder.home.run(&["bundle", "sbom", "x.bundle"]).ends(0);
    let bill: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let components = bill["components"].as_array().unwrap();
    let source = |name: &str| {
        let found = components.iter().find(|c| c["name"] == name);
        let found = found.unwrap_or_else(|| panic!("no {name} in {bill:#}"));
        found["externalReferences"][0]["url"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    for binary in builder.index().binaries().iter().filter(|b| b.component != "landfall") {
        assert!(source(&binary.name).starts_with("https://"), "{}", binary.name);
    }
    assert_eq!(
        source("kubelet"),
        "https://dl.k8s.io/release/v1.37.2/bin/linux/amd64/kubelet"
    );
    assert!(
        source("registry.landfall.internal/nginx")
            .starts_with("https://registry-1.docker.io/v2/library/nginx/manifests/sha256:")
    );
    assert_eq!(source("libc6"), "https://snapshot.debian.org/binary/libc6/");
}

#[test]
fn the_same_lock_file_gives_the_same_bytes_and_asks_no_tag_again() {
    let builder = Builder::start();
    builder.build(&[]).ends(0);
    let first = std::fs::read(builder.home.path("x.bundle")).unwrap();
    builder.publishers.seen();
    builder.build(&[]).ends(0);
    assert_eq!(builder.publishers.seen(), [], "everything is in the cache");
    builder.forget();
    builder.build(&["--lock", "x.lock.yaml"]).ends(0);
    assert_eq!(std::fs::read(builder.home.path("x.bundle")).unwrap(), first);
    let asked: Vec<String> = builder.publishers.seen().into_iter().map(|seen| seen.what).collect();
    assert!(!asked.is_empty());
    let tag = |what: &String| what.contains("/manifests/") && !what.contains("sha256:");
    assert!(
        !asked.iter().any(|what| tag(what) || what.contains("sha256sum")),
        "{asked:?}"
    );
}

#[test]
fn one_bundle_is_for_two_architectures() {
    let builder = Builder::start();
    builder
        .lock(&["--architecture", "arm64,amd64", "-o", "both.yaml"])
        .ends(0);
    let both = [
        "--architecture",
        "amd64",
        "--architecture",
        "arm64",
        "--lock",
        "both.yaml",
    ];
    let lacking = builder.build(&both).ends(5);
    lacking.complains(&[
        "there is no landfall-agent for arm64",
        "--part arm64/landfall-agent=FILE",
    ]);
    let own = [
        "--part",
        "arm64/landfall-agent=landfall-agent.arm64",
        "--part",
        "arm64/landfall-ingress=landfall-ingress.arm64",
    ];
    builder.build(&[&both[..], &own].concat()).ends(0);
    let index = builder.index();
    let arm = index.variant("arm64").unwrap();
    for binary in &arm.binaries {
        assert_eq!(
            binary.digest,
            Digest::of(&elf("arm64", &binary.name)),
            "{}",
            binary.name
        );
    }
    assert_eq!(arm.images.len(), index.images().len());
    let wrong = builder
        .build(&["--part", "landfall-agent=landfall-agent.arm64"])
        .ends(5);
    wrong.complains(&["landfall-agent.arm64 is no Linux program for amd64"]);
}

#[test]
fn a_released_program_needs_nothing_beside_it() {
    let builder = Builder::start();
    builder.lock(&["-o", "x.lock.yaml"]).ends(0);
    let released = builder.home.path("landfall");
    let (agent, ingress) = (
        builder.home.path("landfall-agent.amd64"),
        builder.home.path("landfall-ingress.amd64"),
    );
    let crates =
        br#"{"packages": [{"id": "a@1.0.0", "name": "landfall-agent", "version": "0.1.0", "license": "Apache-2.0"}],
        "resolve": {"nodes": [{"id": "a@1.0.0", "deps": []}]}}"#;
    let crates = CrateGraph::parse(crates).unwrap();
    own_parts::attach(program(), &agent, &ingress, &crates, &released).unwrap();
    let proxy = builder.publishers.proxy();
    let args = ["bundle", "build", "-o", "x.bundle", "--ca", "ca.pem"];
    let environment = [("HTTPS_PROXY", proxy.as_str())];
    builder.home.run_program(&released, &environment, &args).ends(0);
    let index = builder.index();
    let on_nodes = index
        .binaries()
        .iter()
        .find(|binary| binary.name == "landfall")
        .unwrap();
    assert_eq!(on_nodes.digest, Digest::of(&std::fs::read(agent).unwrap()));
    assert!(index.image_named("landfall-ingress").is_some());
    let bill = builder.home.run(&["bundle", "sbom", "x.bundle"]).ends(0).out;
    assert!(
        bill.contains("pkg:cargo/landfall-agent@0.1.0"),
        "it names the crates that the program carries"
    );
    // The program as cargo builds it carries nothing, and says so.
    let bare = builder.bundle(&["build", "-o", "y.bundle", "--ca", "ca.pem"]).ends(5);
    bare.complains(&[
        "there is no landfall-agent for amd64",
        "--part amd64/landfall-agent=FILE",
    ]);
}

#[test]
fn the_other_recipe_takes_none_of_the_options() {
    let builder = Builder::start();
    for option in [
        ["--ca", "ca.pem"],
        ["--architecture", "arm64"],
        ["--lock", "x.yaml"],
        ["--add-image", "redis:7"],
    ] {
        let ran = builder.bundle(&[&["build", "--recipe", "source", "-o", "x.bundle"], &option[..]].concat());
        ran.ends(2).complains(&["the recipe source takes no"]);
    }
}

#[test]
fn other_versions_are_asked_for_by_name() {
    let builder = Builder::start();
    let missing = builder.lock(&["--kubernetes", "1.36.3"]).ends(5);
    missing.complains(&[
        "https://dl.k8s.io/release/v1.36.3/bin/linux/amd64/kubeadm.sha256",
        "404",
    ]);
    assert!(!builder.home.path("landfall.lock.yaml").exists());
    builder
        .lock(&["--component", "docker=1.0"])
        .complains(&["there is no component docker", "containerd"]);
    builder
        .lock(&["--kubernetes", "v1.37.2", "--component", "etcd=3.7.0-0"])
        .ends(0);
    let text = std::fs::read_to_string(builder.home.path("landfall.lock.yaml")).unwrap();
    for part in [
        "kubernetes: 1.37.2",
        "member: bin/containerd",
        "image: docker.io/library/nginx:1.28.3",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn all_problems_of_a_lock_file_are_named_at_once() {
    let builder = Builder::start();
    builder.lock(&["-o", "x.lock.yaml"]).ends(0);
    let text = std::fs::read_to_string(builder.home.path("x.lock.yaml")).unwrap();
    let broken = text
        .replacen("url: https://dl.k8s.io", "url: http://dl.k8s.io", 1)
        .replacen("image: docker.io/library/nginx:1.28.3", "image: nginx", 1)
        .replacen("etcd: 3.7.0-0", "etcd: latest", 1);
    builder.home.write("x.lock.yaml", broken);
    let ran = builder.build(&[]).ends(5);
    ran.complains(&[
        "https://",
        "\"nginx\" does not have the form",
        "etcd: \"latest\" is no version",
        "bundle lock",
    ]);
    assert!(!builder.home.path("x.bundle").exists());
}

/// A namespace, and a Deployment of an image.
fn shop(image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, \
         namespace: shop}}\nspec: {{selector: {{matchLabels: {{a: b}}}}, template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: \
         [{{name: c, image: '{image}'}}]}}}}}}\n"
    )
}

#[test]
fn images_and_objects_of_the_builders_own_are_inside() {
    let builder = Builder::start();
    builder.home.write("shop.yaml", shop("nginx:1.28.3"));
    builder.lock(&["-o", "without.yaml"]).ends(0);
    let added = ["--add-manifest", "shop.yaml", "--add-image", "nginx:1.28.3"];
    let ran = builder
        .build(&[&["--lock", "without.yaml"], &added[..]].concat())
        .ends(5);
    ran.complains(&["docker.io/library/nginx:1.28.3 is missing", "landfall bundle lock"]);
    builder
        .lock(&["-o", "x.lock.yaml", "--add-image", "nginx:1.28.3"])
        .ends(0);
    builder.build(&added).ends(0);
    let index = builder.index();
    let names: Vec<&str> = index.images().iter().map(|image| image.reference.as_str()).collect();
    assert!(names.contains(&"docker.io/library/nginx:1.28.3"), "{names:?}");
    assert_eq!(index.manifests.len(), 1);
    let shown = builder.home.run(&["bundle", "inspect", "x.bundle"]).ends(0);
    assert!(
        shown
            .out
            .contains("added objects of shop\n  Namespace shop\n  Deployment shop/web\n"),
        "{}",
        shown.out
    );

    // Without the image the pods could not start, and the bundle is not written.
    builder.home.write("shop.yaml", shop("redis:7.4") + "---\nkind: Pod\n");
    let ran = builder.build(&["--add-manifest", "shop.yaml"]).ends(5);
    ran.complains(&["shop.yaml: object 3: it has no apiVersion or kind"]);
    builder.home.write("shop.yaml", shop("redis:7.4"));
    let ran = builder.build(&["--add-manifest", "shop.yaml"]).ends(5);
    ran.complains(&["shop: Deployment shop/web: the image docker.io/library/redis:7.4 is not in the bundle"]);
}
