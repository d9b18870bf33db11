//! The recipe `upstream` against CNCF's registry, whose program `cargo xtask test` builds and names by LANDFALL_REGISTRY.

use crate::upstream::{BUILD, Builder};
use landfall_core::name::Digest;
use landfall_test_support::publishers::certificate_files;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `secret` as bcrypt has it, for the user `u` (crypt(3) with cost 5).
const HTPASSWD: &str = "u:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A running registry; it ends when this is dropped.
struct Registry {
    child: Child,
    port: u16,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// Starts the program with what is in `folder/data`, over HTTPS, for users of `folder/htpasswd`.
    fn start(folder: &Path) -> Self {
        let program = std::env::var_os("LANDFALL_REGISTRY").expect("cargo xtask test names the registry's program");
        // The kernel's choice may be taken until the registry has it: then it ends, and the wait below says so.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let at = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\nhttp:\n  addr: 127.0.0.1:{port}\n  \
             tls: {{ certificate: {}, key: {} }}\nauth:\n  htpasswd: {{ realm: test, path: {} }}\n",
            at("data"),
            at("cert.pem"),
            at("key.pem"),
            at("htpasswd")
        );
        std::fs::write(folder.join("config.yml"), config).unwrap();
        let child = Command::new(program)
            .args(["serve", &at("config.yml")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Self { child, port };
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert_eq!(registry.child.try_wait().unwrap(), None, "the registry has ended");
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "the registry does not listen"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        registry
    }
}

/// Writes a file and its folders.
fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Puts all images into the registry's folder, in the form of its filesystem storage (distribution's registry/storage/paths.go).
fn fill(builder: &Builder, data: &Path) {
    let root = data.join("docker/registry/v2");
    let blob = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        let hex = digest.hex();
        write(
            &root.join("blobs/sha256").join(&hex[..2]).join(&hex).join("data"),
            bytes,
        );
        digest
    };
    let digests: Vec<Digest> = builder.publishers.blobs().values().map(|bytes| blob(bytes)).collect();
    for ((_, repository, reference), text) in &builder.publishers.manifests() {
        let repository = root.join("repositories").join(repository);
        let digest = blob(text);
        let link = |folder: &str| {
            let path = repository.join(folder).join("link");
            write(&path, digest.to_string().as_bytes());
        };
        link(&format!("_manifests/revisions/sha256/{}", digest.hex()));
        if !reference.starts_with("sha256:") {
            link(&format!("_manifests/tags/{reference}/current"));
            link(&format!("_manifests/tags/{reference}/index/sha256/{}", digest.hex()));
        }
        for layer in &digests {
            let path = repository.join("_layers/sha256").join(layer.hex()).join("link");
            write(&path, layer.to_string().as_bytes());
        }
    }
}

#[test]
#[ignore = "cargo xtask test builds the registry and runs it"]
fn a_bundle_is_made_of_the_images_of_a_real_registry() {
    let builder = Builder::start();
    let folder = builder.home.path("registry");
    fill(&builder, &folder.join("data"));
    let [chain, key, ca] = certificate_files().unwrap();
    write(&folder.join("cert.pem"), chain.as_bytes());
    write(&folder.join("key.pem"), key.as_bytes());
    write(&folder.join("htpasswd"), HTPASSWD.as_bytes());
    builder.home.write("ca.pem", format!("{}{ca}", builder.publishers.ca()));
    let registry = Registry::start(&folder);
    let host = format!("127.0.0.1:{}", registry.port);
    let mirrors = ["registry.k8s.io", "ghcr.io", "docker.io"].map(|from| format!("{from}=https://{host}"));
    let mut args = [&["bundle"][..], &BUILD].concat();
    args.extend(mirrors.iter().flat_map(|mirror| ["--mirror", mirror]));
    let proxy = builder.publishers.proxy();
    let environment = [("HTTPS_PROXY", proxy.as_str()), ("NO_PROXY", "127.0.0.1")];
    // Without a login the registry refuses, and the server behind it has the image.
    let ran = builder.home.run_with(&environment, &args).ends(0);
    ran.complains(&[&format!("docker login {host}"), "asking the next server"]);
    let of_images = |what: &str| what.contains("/v2/");
    assert!(builder.publishers.seen().iter().any(|seen| of_images(&seen.what)));
    // With one, all images come from the registry, and they are the same.
    let wanted = builder.index().images().to_vec();
    builder.forget();
    std::fs::remove_file(builder.home.path("x.lock.yaml")).unwrap();
    std::fs::create_dir(builder.home.path(".docker")).unwrap();
    // u:secret
    builder.home.write(
        ".docker/config.json",
        format!(r#"{{ "auths": {{ "{host}": {{ "auth": "dTpzZWNyZXQ=" }} }} }}"#),
    );
    builder.publishers.seen();
    builder.home.run_with(&environment, &args).ends(0);
    assert!(!builder.publishers.seen().iter().any(|seen| of_images(&seen.what)));
    assert_eq!(builder.index().images(), wanted);
}
