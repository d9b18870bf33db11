//! Programs: Go modules by their wrappers, pause from its C source, our own from this checkout.

use super::lock::{Lock, Locked};
use super::tools::run;
use super::{AGENT_PACKAGE, BuildOptions, INGRESS_PACKAGE, NFT_PACKAGE, failed, io};
use crate::sbom::CrateGraph;
use landfall_core::explain::Diagnosis;
use landfall_core::name::Digest;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where every built program lies.
pub(super) struct Programs {
    paths: BTreeMap<String, PathBuf>,
    versions: BTreeMap<String, String>,
}

/// Flags of Go's compiler: the linker leaves debugging information out, so none is made.
const COMPILE: &str = "all=-dwarf=false";

/// How a component is built, beside its packages.
struct Recipe {
    cgo: bool,
    tags: &'static str,
    /// Linker flags; `{v}` is the version.
    link: &'static str,
    /// Programs whose package has another name.
    rename: &'static [(&'static str, &'static str)],
}

const KUBERNETES_LINK: &str = "-X k8s.io/component-base/version.gitVersion=v{v} -X k8s.io/component-base/version.gitMajor={major} \
     -X k8s.io/component-base/version.gitMinor={minor} -X k8s.io/component-base/version.gitTreeState=clean \
     -X k8s.io/client-go/pkg/version.gitVersion=v{v}";

fn recipe(component: &str) -> Recipe {
    let plain = Recipe {
        cgo: false,
        tags: "",
        link: "",
        rename: &[],
    };
    match component {
        "kubernetes" => Recipe {
            link: KUBERNETES_LINK,
            ..plain
        },
        "containerd" => Recipe {
            link: "-X github.com/containerd/containerd/v2/version.Version={v}",
            ..plain
        },
        // The package go.etcd.io/etcd/server/v3 is named after its folder.
        "etcd" => Recipe {
            rename: &[("server", "etcd"), ("v3", "etcd")],
            ..plain
        },
        "runc" => Recipe {
            cgo: true,
            tags: "seccomp,netgo,osusergo",
            link: "-X main.version={v} -extldflags -static",
            ..plain
        },
        "flannel" => Recipe {
            cgo: true,
            tags: "netgo,osusergo",
            link: "-X github.com/flannel-io/flannel/pkg/version.Version=v{v} -extldflags -static",
            rename: &[("flannel", "flanneld")],
        },
        _ => plain,
    }
}

impl Programs {
    pub fn build(options: &BuildOptions<'_>, lock: &Lock) -> Result<Self, Diagnosis> {
        let (mut paths, mut versions) = (BTreeMap::new(), BTreeMap::new());
        let go = run(Command::new("go").arg("version"), "asking Go for its version")?;
        for (name, locked) in &lock.components {
            let folder = go_component(options, lock, name, locked, &go)?;
            for entry in std::fs::read_dir(&folder).map_err(io("read", &folder))? {
                let path = entry.map_err(io("read", &folder))?.path();
                if let Some(file) = path.file_name().and_then(|f| f.to_str()) {
                    paths.insert(file.to_owned(), path.clone());
                    versions.insert(file.to_owned(), locked.version.clone());
                }
            }
        }
        for package in [AGENT_PACKAGE, INGRESS_PACKAGE, NFT_PACKAGE] {
            (options.progress)(&format!("building {package}"));
            paths.insert(package.to_owned(), own_program(options, package)?);
        }
        versions.insert("pause".to_owned(), lock.pause_version.clone());
        Ok(Self { paths, versions })
    }

    /// Every program that was built.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        self.paths.values().map(PathBuf::as_path)
    }

    /// Version of a program; those of this checkout have this crate's.
    pub fn version(&self, name: &str) -> &str {
        self.versions
            .get(name)
            .map_or(env!("CARGO_PKG_VERSION"), String::as_str)
    }

    /// Path of a program; one that was not built is found missing when it is read.
    pub fn path(&self, name: &str) -> PathBuf {
        self.paths.get(name).cloned().unwrap_or_else(|| PathBuf::from(name))
    }
}

/// Builds a component, or takes it from the cache; returns the folder of its programs.
fn go_component(
    options: &BuildOptions<'_>,
    lock: &Lock,
    name: &str,
    locked: &Locked,
    go: &[u8],
) -> Result<PathBuf, Diagnosis> {
    let source = options.checkout.join("bundle/source").join(name);
    let read = |file: &str| {
        let path = source.join(file);
        std::fs::read_to_string(&path).map_err(io("read", &path))
    };
    let (module, tools) = (read("go.mod")?, read("tools.go")?);
    if !module.contains(&format!("{} v{}\n", locked.module, locked.version)) {
        return Err(failed(format!(
            "bundle/source/{name}/go.mod does not require {} v{}, as the lock file has it",
            locked.module, locked.version
        )));
    }
    let how = recipe(name);
    let mut numbers = locked.version.split('.');
    let link = how
        .link
        .replace("{v}", &locked.version)
        .replace("{major}", numbers.next().unwrap_or_default())
        .replace("{minor}", numbers.next().unwrap_or_default());
    let link = format!("-s -w -buildid= {link}");
    let sums = lock.module_sums.join("\n") + "\n";
    let pause = if name == "kubernetes" { &lock.pause_version } else { "" };
    let inputs = format!(
        "{module}\0{tools}\0{sums}\0{link}\0{COMPILE}\0{}\0{}\0{:?}\0{pause}\0{}",
        how.tags,
        how.cgo,
        locked.packages,
        String::from_utf8_lossy(go)
    );
    let done = options
        .cache
        .join("programs")
        .join(format!("{name}-{}", &Digest::of(inputs.as_bytes()).hex()[..24]));
    if done.is_dir() {
        (options.progress)(&format!("{name} {} is built already", locked.version));
        return Ok(done);
    }
    (options.progress)(&format!("building {name} {} from Go modules", locked.version));
    let work = tempdir(options.cache)?;
    let at = |file: &str| work.join(file);
    for (file, text) in [("go.mod", &module), ("tools.go", &tools), ("go.sum", &sums)] {
        std::fs::write(at(file), text).map_err(io("written", &at(file)))?;
    }
    let out = at("out");
    std::fs::create_dir(&out).map_err(io("made", &out))?;
    let mut command = go_command(&work);
    command
        .env("CGO_ENABLED", if how.cgo { "1" } else { "0" })
        .args(["build", "-trimpath", "-gcflags", COMPILE, "-tags", how.tags])
        .args(["-ldflags", &link, "-o"])
        .arg(format!("{}/", out.display()))
        .args(&locked.packages);
    run(&mut command, &format!("building {name}"))?;
    for (from, to) in how.rename {
        if out.join(from).exists() {
            std::fs::rename(out.join(from), out.join(to)).map_err(io("renamed", &out))?;
        }
    }
    if name == "kubernetes" {
        build_pause(&work, &out, &lock.pause_version)?;
    }
    let parent = options.cache.join("programs");
    std::fs::create_dir_all(&parent).map_err(io("made", &parent))?;
    std::fs::rename(&out, &done).map_err(io("renamed", &done))?;
    std::fs::remove_dir_all(&work).map_err(io("removed", &work))?;
    Ok(done)
}

/// Go, with its own toolchain only and nothing of the user's workspace.
pub(super) fn go_command(work: &Path) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(work)
        .env("GOFLAGS", "-mod=readonly")
        .env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off");
    command
}

/// pause is the one C program; its source comes with the Kubernetes module.
fn build_pause(work: &Path, out: &Path, version: &str) -> Result<(), Diagnosis> {
    let mut list = go_command(work);
    list.args(["list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"]);
    let module = run(&mut list, "looking for the Kubernetes module")?;
    let source = PathBuf::from(String::from_utf8_lossy(&module).trim()).join("build/pause/linux/pause.c");
    let mut cc = Command::new("cc");
    cc.args(["-Os", "-Wall", "-static", "-s"])
        .arg(format!("-DVERSION=v{version}"))
        .arg("-o")
        .arg(out.join("pause"))
        .arg(source);
    run(&mut cc, "building pause").map(drop)
}

/// Arguments of `cargo build --release` by which a program names no folder of the machine that builds it, and so has the same bytes on
/// another one: cargo's home and the checkout have fixed names in panic messages (rustc's `--remap-path-prefix`). cargo joins the list with the
/// one in `.cargo/config.toml`.
pub fn release_arguments(checkout: &Path) -> [String; 2] {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let flag = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let mut flags = vec![flag(checkout, "/landfall")];
    // Of several that fit, rustc takes the last.
    flags.extend(home.map(|home| flag(&home, "/cargo")));
    // The form of a list of strings is the same in TOML and JSON.
    let list = serde_json::Value::from(flags);
    [
        "--config".to_owned(),
        format!("target.x86_64-unknown-linux-gnu.rustflags={list}"),
    ]
}

/// Builds the program of a package of the checkout in its target directory; cargo is its own cache.
fn own_program(options: &BuildOptions<'_>, package: &str) -> Result<PathBuf, Diagnosis> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(options.checkout).args([
        "build",
        "--release",
        "--locked",
        "--package",
        package,
        "--message-format=json-render-diagnostics",
    ]);
    cargo.args(release_arguments(options.checkout));
    let output = run(&mut cargo, &format!("building {package}"))?;
    let text = String::from_utf8_lossy(&output);
    let found = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back();
    found.ok_or_else(|| failed(format!("cargo built {package} but names no program")))
}

/// Asks cargo which crates the programs of this checkout consist of, as they are built for nodes.
pub fn crates(checkout: &Path) -> Result<CrateGraph, Diagnosis> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(checkout).args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform=x86_64-unknown-linux-gnu",
    ]);
    let text = run(&mut cargo, "asking cargo for the crates of this checkout")?;
    CrateGraph::parse(&text).map_err(|error| failed("what cargo says of its crates cannot be read").because(&error))
}

/// A folder of this process's own below the cache, on the same file system.
pub(super) fn tempdir(cache: &Path) -> Result<PathBuf, Diagnosis> {
    let path = cache.join(format!("work-{}", std::process::id()));
    if path.exists() {
        std::fs::remove_dir_all(&path).map_err(io("removed", &path))?;
    }
    std::fs::create_dir_all(&path).map_err(io("made", &path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_program_names_no_folder_of_its_builder() {
        let [flag, value] = release_arguments(Path::new("/work/\"quoted\""));
        assert_eq!(flag, "--config");
        let list = value
            .strip_prefix("target.x86_64-unknown-linux-gnu.rustflags=")
            .unwrap();
        let flags: Vec<String> = serde_json::from_str(list).unwrap();
        assert_eq!(flags[0], "--remap-path-prefix=/work/\"quoted\"=/landfall");
        assert!(flags[1].ends_with("=/cargo"), "{flags:?}");
    }
}
