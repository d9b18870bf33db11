//! Debian packages by version and digest, from a package source of our own: of the machine's own sources only the mirror is used.

use super::layer::{LayerBuilder, MERGED};
use super::lock::{self, Debian, LOCK_ANEW, LOCK_FILE, Lock};
use super::tools::run;
use super::{failed, io};
use crate::sbom::copyright;
use landfall_core::bundle_index::DebianPackage;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::Digest;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Packages of one suite in an image, with the programs that are started there.
pub(super) struct Part {
    /// The packages.
    pub names: &'static [&'static str],
    /// Paths of the programs, in the packages.
    programs: &'static [&'static str],
    /// The folder of the image below which the files go, without `/` at its ends; empty for the root.
    below: &'static str,
}

impl Part {
    /// Paths of its programs in the image.
    pub fn paths_of_programs(&self) -> impl Iterator<Item = String> {
        self.programs.iter().map(|program| format!("{}/{program}", self.below))
    }
}

/// What kube-proxy and flannel start: nft, iptables, conntrack, with the libraries they load.
pub(super) const NETWORK: Part = Part {
    names: &[
        "libc6",
        "libgcc-s1",
        "nftables",
        "libnftables1",
        "libnftnl11",
        "libmnl0",
        "libjansson4",
        "libgmp10",
        "libedit2",
        "libtinfo6",
        "libbsd0",
        "libmd0",
        "libxtables12",
        "iptables",
        "libip4tc2",
        "libip6tc2",
        "libnetfilter-conntrack3",
        "libnfnetlink0",
        "kmod",
        "libkmod2",
        "liblzma5",
        "libzstd1",
        "libssl3",
        "conntrack",
        "zlib1g",
        "libcrypt1",
        "netbase",
    ],
    programs: &[
        "usr/sbin/nft",
        "usr/sbin/xtables-nft-multi",
        "usr/sbin/conntrack",
        "usr/bin/kmod",
    ],
    below: "",
};

/// A newer nft, for nodes whose own nft is newer than that of [`NETWORK`] (`bundle/nft` chooses), and the libraries that it loads.
pub(super) const NEWER_NFT: Part = Part {
    names: &[
        "libc6",
        "nftables",
        "libnftables1",
        "libnftnl11",
        "libmnl0",
        "libjansson4",
        "libgmp10",
        "libedit2",
        "libtinfo6",
        "libbsd0",
        "libmd0",
        "libxtables12",
    ],
    programs: &["usr/sbin/nft"],
    below: "opt/debian-13",
};

/// The sample: nginx and the libraries it loads.
pub(super) const WEB: Part = Part {
    names: &[
        "libc6",
        "libgcc-s1",
        "libcrypt1",
        "libpcre2-8-0",
        "libssl3",
        "libzstd1",
        "zlib1g",
        "nginx",
    ],
    programs: &["usr/sbin/nginx"],
    below: "",
};

/// Where the packages have the loader of programs and its libraries.
const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Age after which the list of packages is fetched again.
const LIST_AGE: Duration = Duration::from_hours(24);

/// A list of packages in the lock file: its key, itself, and what of images it is for.
type Suite<'a> = (&'static str, &'a Debian, &'static [&'static Part]);

/// The lists of packages in the lock file.
pub(super) fn suites(lock: &Lock) -> [Suite<'_>; 2] {
    [
        ("debian", &lock.debian, &[&NETWORK, &WEB]),
        ("newerNft", &lock.newer_nft, &[&NEWER_NFT]),
    ]
}

/// Every package of these parts, sorted.
pub(super) fn names(parts: &[&Part]) -> Vec<&'static str> {
    let all: BTreeSet<&str> = parts.iter().flat_map(|part| part.names).copied().collect();
    all.into_iter().collect()
}

/// A package that is in a layer.
pub(super) struct Unpacked {
    pub package: DebianPackage,
    /// SPDX expression, where its copyright file says it.
    pub licence: Option<String>,
}

/// Adds the files of a part's packages to a layer, as they are locked; returns what was added.
pub(super) fn unpack(
    part: &Part,
    debian: &Debian,
    cache: &Path,
    layer: &mut LayerBuilder,
) -> Result<Vec<Unpacked>, Diagnosis> {
    let locked = debian.packages()?;
    let lacks = |name: &&str| {
        let what = format!("the lock file has no Debian package {name} of {}", debian.suite);
        failed(what).next(LOCK_ANEW)
    };
    let wanted = part
        .names
        .iter()
        .map(|name| locked.get(*name).cloned().ok_or_else(|| lacks(name)));
    let wanted: Vec<DebianPackage> = wanted.collect::<Result<_, _>>()?;
    let paths = fetch(&wanted, &debian.suite, cache)?;
    let mut unpacked = Vec::new();
    for (package, path) in wanted.into_iter().zip(paths) {
        let tar = run(
            Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&path),
            &format!("unpacking {}", package.name),
        )?;
        layer.unpack(tar.as_slice(), part.below)?;
        let licence = copyright_file(&tar, &package.name).and_then(|text| copyright::licence(&text));
        unpacked.push(Unpacked { package, licence });
    }
    // base-files would make them, and programs name their loader as /lib64/ld-linux-x86-64.so.2.
    for folder in MERGED {
        layer.link(&format!("{}/{folder}", part.below), format!("usr/{folder}"));
    }
    Ok(unpacked)
}

/// Makes an error of libraries that a program of these parts needs and that are not in the layer, as the part's own loader finds them. What a
/// program loads later, by name, is not seen. The layer is unpacked for it, into a folder that goes again.
pub(super) fn check_libraries(layer: &LayerBuilder, parts: &[&Part]) -> Result<(), Diagnosis> {
    let folder = tempfile::tempdir().map_err(io("made", Path::new("a temporary folder")))?;
    let mut tar = Vec::new();
    layer.write(&mut tar).map_err(io("written", folder.path()))?;
    tar::Archive::new(tar.as_slice())
        .unpack(folder.path())
        .map_err(io("written", folder.path()))?;
    for part in parts {
        let root = folder.path().join(part.below);
        for program in part.programs {
            let mut list = Command::new(root.join(LOADER));
            list.args(["--inhibit-cache", "--library-path"])
                .arg(root.join(LIBRARIES))
                .arg("--list")
                .arg(root.join(program));
            let output = run(&mut list, &format!("looking for the libraries of /{program}"))?;
            let missing = outside(&String::from_utf8_lossy(&output), &root);
            if !missing.is_empty() {
                return Err(failed(format!("/{program} needs libraries that no package of its image has"))
                    .saw(missing.join(", "))
                    .next("add the packages that have them to the lists in bundle/src/source/debian.rs, and lock them: `cargo xtask lock-debian`"));
            }
        }
    }
    Ok(())
}

/// Returns the libraries that the loader found elsewhere than under this folder; a line is `NAME => PATH (ADDRESS)`.
fn outside(lines: &str, root: &Path) -> Vec<String> {
    let found = lines.lines().filter_map(|line| line.trim().split_once(" => "));
    let elsewhere = found.filter(|(_, path)| !path.starts_with(&*root.to_string_lossy()));
    elsewhere.map(|(name, _)| name.to_owned()).collect()
}

/// Takes the copyright file out of a package's files. Some packages have a link to another one's folder of documents, and none of their own.
fn copyright_file(tar: &[u8], name: &str) -> Option<String> {
    let wanted = format!("usr/share/doc/{name}/copyright");
    for entry in tar::Archive::new(tar).entries().ok()? {
        let mut entry = entry.ok()?;
        let found = entry
            .path()
            .is_ok_and(|path| path.strip_prefix("./").unwrap_or(&path) == Path::new(&wanted));
        if found && entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).ok()?;
            return Some(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    None
}

/// Returns the packages' files, in this order. What lies in the cache is found by its digest; for the rest the mirror is asked.
fn fetch(packages: &[DebianPackage], suite: &str, cache: &Path) -> Result<Vec<PathBuf>, Diagnosis> {
    let folder = cache.join("apt").join("packages");
    std::fs::create_dir_all(&folder).map_err(io("made", &folder))?;
    let path = |package: &DebianPackage| folder.join(format!("{}.deb", package.digest.hex()));
    let mut absent = Vec::new();
    for package in packages {
        match std::fs::read(path(package)) {
            Ok(bytes) if Digest::of(&bytes) == package.digest => {}
            _ => absent.push(package),
        }
    }
    if !absent.is_empty() {
        let versions: Vec<String> = absent.iter().map(|p| format!("{}={}", p.name, p.version)).collect();
        let mut apt = Apt::open(suite, cache, LIST_AGE)?;
        let mut files = apt.download(&versions);
        if files.is_err() {
            // The list may be older than the lock file.
            apt = Apt::open(suite, cache, Duration::ZERO)?;
            files = apt.download(&versions);
        }
        let files = files.map_err(|missing| {
            let gone = "a locked package may be gone: Debian's mirrors drop a version soon after a newer one";
            let another =
                "or name a mirror that still has them, as snapshot.debian.org does, by LANDFALL_DEBIAN_MIRROR";
            missing.saw(gone).next(LOCK_ANEW).next(another)
        })?;
        for (package, file) in absent.into_iter().zip(files) {
            let bytes = std::fs::read(&file).map_err(io("read", &file))?;
            let found = Digest::of(&bytes);
            if found != package.digest {
                let what = format!("{} {} is another file than was locked", package.name, package.version);
                let other =
                    Diagnosis::new(Code::BundleDigest, what).saw(format!("{found}, {} was locked", package.digest));
                return Err(other.next(
                    "find out why the mirror's file changed, before you lock it anew by `cargo xtask lock-debian`",
                ));
            }
            std::fs::rename(&file, path(package)).map_err(io("renamed", &file))?;
        }
    }
    Ok(packages.iter().map(path).collect())
}

/// Fetches every locked package into the cache, so that a build needs no mirror. Blocks on the network. The error has the code
/// [`Code::BundleDigest`] when the mirror has another file under a locked version, and another code when it has none.
pub fn fetch_locked(checkout: &Path, cache: &Path) -> Result<(), Diagnosis> {
    let lock = Lock::read(&checkout.join(LOCK_FILE))?;
    for (_, debian, _) in suites(&lock) {
        let packages: Vec<DebianPackage> = debian.packages()?.into_values().collect();
        fetch(&packages, &debian.suite, cache)?;
    }
    Ok(())
}

/// Writes the newest packages of the suites into the lock file of a checkout; returns those that are new there. Blocks on the network.
pub fn lock_anew(checkout: &Path, cache: &Path) -> Result<Vec<DebianPackage>, Diagnosis> {
    let path = checkout.join(LOCK_FILE);
    let mut text = std::fs::read_to_string(&path).map_err(io("read", &path))?;
    let lock = Lock::read(&path)?;
    let mut new = Vec::new();
    for (key, debian, parts) in suites(&lock) {
        let found = Apt::open(&debian.suite, cache, Duration::ZERO)?.newest(&names(parts))?;
        text = lock::with_packages(&text, key, &found)?;
        // What is locked by lines that are wrong is locked anew too.
        let before = debian.packages().unwrap_or_default();
        new.extend(
            found
                .into_iter()
                .filter(|package| before.get(&package.name) != Some(package)),
        );
    }
    let part = path.with_extension("part");
    std::fs::write(&part, text).map_err(io("written", &part))?;
    std::fs::rename(&part, &path).map_err(io("written", &path))?;
    Ok(new)
}

/// The names by which iptables' multi-call program is started; maintainer scripts would make them.
pub(super) fn iptables_links(layer: &mut LayerBuilder) {
    for name in [
        "iptables",
        "iptables-save",
        "iptables-restore",
        "ip6tables",
        "ip6tables-save",
        "ip6tables-restore",
    ] {
        layer.link(&format!("/usr/sbin/{name}"), "xtables-nft-multi");
    }
}

/// What nginx needs beside its package: users, folders, a configuration that logs to the container's streams, the page.
pub(super) fn web_files(layer: &mut LayerBuilder) {
    layer.file(
        "/etc/passwd",
        0o644,
        "root:x:0:0::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\nwww-data:x:33:33::/:/bin/false\n",
    );
    layer.file("/etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\nwww-data:x:33:\n");
    layer.file(
        "/etc/nginx/nginx.conf",
        0o644,
        "worker_processes 1;\nerror_log /dev/stderr;\npid /run/nginx.pid;\nevents {}\nhttp {\n  access_log /dev/stdout;\n  \
         default_type text/html;\n  server { listen 80; root /usr/share/nginx/html; }\n}\n",
    );
    layer.file(
        "/usr/share/nginx/html/index.html",
        0o644,
        "<!DOCTYPE html>\n<html>\n<head><title>Welcome to nginx!</title></head>\n<body>\n<h1>Welcome to nginx!</h1>\n\
         <p>This page comes from the sample that landfall deploys.</p>\n</body>\n</html>\n",
    );
    for (folder, mode) in [
        ("/var/log/nginx", 0o755),
        ("/var/lib/nginx", 0o755),
        ("/run", 0o755),
        ("/tmp", 0o1777),
    ] {
        layer.directory(folder, mode);
    }
}

/// apt with its own sources, lists and cache.
struct Apt {
    root: PathBuf,
    downloads: PathBuf,
}

impl Apt {
    /// With a list of packages that is not older than this.
    fn open(suite: &str, cache: &Path, list_age: Duration) -> Result<Self, Diagnosis> {
        let root = cache.join("apt").join(suite);
        let apt = Self {
            downloads: root.join("downloads"),
            root,
        };
        for folder in ["lists/partial", "cache/archives/partial", "downloads", "empty"] {
            let folder = apt.root.join(folder);
            std::fs::create_dir_all(&folder).map_err(io("made", &folder))?;
        }
        let keyring = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
        if !keyring.exists() {
            return Err(failed("the keys of Debian's archive are not on this machine")
                .saw(format!("{} is absent", keyring.display()))
                .next("install the package debian-archive-keyring"));
        }
        let (main, security) = mirrors()?;
        let signed = format!("[signed-by={} arch=amd64]", keyring.display());
        let sources = format!(
            "deb {signed} {main} {suite} main\ndeb {signed} {main} {suite}-updates main\ndeb {signed} {security} {suite}-security main\n"
        );
        let list = apt.root.join("sources.list");
        let fresh = list.metadata().and_then(|m| m.modified()).is_ok_and(|changed| {
            SystemTime::now()
                .duration_since(changed)
                .is_ok_and(|age| age < list_age)
        }) && std::fs::read_to_string(&list).is_ok_and(|text| text == sources);
        if !fresh {
            let new = apt.root.join("sources.list.new");
            std::fs::write(&new, &sources).map_err(io("written", &new))?;
            run(apt.command(&new).arg("update"), "fetching Debian's list of packages")?;
            std::fs::rename(&new, &list).map_err(io("written", &list))?;
        }
        Ok(apt)
    }

    fn command(&self, sources: &Path) -> Command {
        let mut command = Command::new("apt-get");
        let set = |name: &str, path: &Path| format!("{name}={}", path.display());
        command
            .current_dir(&self.downloads)
            .env("LC_ALL", "C.UTF-8")
            .args([
                "-qq",
                "-o",
                "APT::Architecture=amd64",
                "-o",
                "APT::Sandbox::User=",
                "-o",
                "Acquire::Retries=3",
            ])
            .args(["-o", &set("Dir::Etc::sourcelist", sources)])
            .args(["-o", &set("Dir::Etc::sourceparts", &self.root.join("empty"))])
            .args(["-o", &set("Dir::State::lists", &self.root.join("lists"))])
            .args(["-o", &set("Dir::Cache", &self.root.join("cache"))]);
        command
    }

    /// What apt would download, a line for each: `'URI' file size SHA256:…`.
    fn uris(&self, wanted: &[impl AsRef<OsStr>]) -> Result<String, Diagnosis> {
        let mut print = self.command(&self.root.join("sources.list"));
        // apt prints nothing for a file that lies in its folder already.
        print.current_dir(self.root.join("empty"));
        let lines = run(
            print.args(["--print-uris", "download"]).args(wanted),
            "asking for Debian packages",
        )?;
        Ok(String::from_utf8_lossy(&lines).into_owned())
    }

    /// Returns the newest versions in the suite, in the order of the names.
    fn newest(&self, names: &[&str]) -> Result<Vec<DebianPackage>, Diagnosis> {
        let lines = self.uris(names)?;
        let found: Vec<DebianPackage> = lines.lines().filter_map(said).collect();
        let of = |name: &&str| {
            let package = found.iter().find(|package| package.name == **name).cloned();
            package.ok_or_else(|| failed(format!("apt names no file with a SHA-256 for {name}")))
        };
        names.iter().map(of).collect()
    }

    /// Downloads packages, each `NAME=VERSION`; returns their files in this order.
    fn download(&self, wanted: &[String]) -> Result<Vec<PathBuf>, Diagnosis> {
        let lines = self.uris(wanted)?;
        let files: Vec<&str> = lines
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        let sources = self.root.join("sources.list");
        run(
            self.command(&sources).arg("download").args(wanted),
            "fetching Debian packages",
        )?;
        let path = |wanted: &String| {
            let name = wanted.split('=').next();
            let file = files.iter().find(|file| file.split('_').next() == name);
            let file = file.ok_or_else(|| failed(format!("apt names no file for {wanted}")))?;
            Ok(self.downloads.join(file))
        };
        wanted.iter().map(path).collect()
    }
}

/// Reads one of apt's lines. In names of files a colon is `%3a`.
fn said(line: &str) -> Option<DebianPackage> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut parts = words.get(1)?.split('_');
    Some(DebianPackage {
        name: parts.next()?.to_owned(),
        version: parts.next()?.replace("%3a", ":"),
        digest: words.get(3)?.replace("SHA256:", "sha256:").parse().ok()?,
    })
}

/// Debian's mirrors: `LANDFALL_DEBIAN_MIRROR`, else the ones this machine uses itself, else Debian's own.
fn mirrors() -> Result<(String, String), Diagnosis> {
    if let Ok(main) = std::env::var("LANDFALL_DEBIAN_MIRROR") {
        let main = main.trim_end_matches('/').to_owned();
        let security = format!("{}-security", main);
        return Ok((main, security));
    }
    let mut policy = Command::new("apt-get");
    policy.args(["indextargets", "--format", "$(SITE) $(REPO_URI)"]);
    let output = run(&mut policy, "asking apt for its sources")?;
    let text = String::from_utf8_lossy(&output);
    let find = |end: &str| {
        let uris = text.lines().filter_map(|line| line.split_whitespace().nth(1));
        let mut matching = uris.map(|u| u.trim_end_matches('/')).filter(|u| u.ends_with(end));
        matching.next().map(str::to_owned)
    };
    let main = find("/debian").unwrap_or_else(|| "http://deb.debian.org/debian".to_owned());
    let security = find("/debian-security").unwrap_or_else(|| format!("{main}-security"));
    Ok((main, security))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_as_apt_names_them() {
        let digest = Digest::of(b"x");
        let line = format!(
            "'http://m/debian/pool/c/conntrack_1.4.7-1%2bb2_amd64.deb' conntrack_1%3a1.4.7-1+b2_amd64.deb 35204 SHA256:{}",
            digest.hex()
        );
        let package = said(&line).unwrap();
        assert_eq!(
            (package.name.as_str(), package.version.as_str()),
            ("conntrack", "1:1.4.7-1+b2")
        );
        assert_eq!(package.digest, digest);
        assert_eq!(said("'http://m/x.deb' x_1_amd64.deb 3 MD5Sum:abc"), None);
        assert_eq!(said(""), None);
    }

    #[test]
    fn libraries_that_only_the_building_machine_has_are_named() {
        let lines = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /t/root/usr/lib/libc.so.6 (0x2)\n\tlibzstd.so.1 => /lib/libzstd.so.1 (0x3)\n\
                     \t/lib64/ld-linux-x86-64.so.2 (0x4)\n";
        assert_eq!(outside(lines, Path::new("/t/root")), ["libzstd.so.1"]);
    }

    #[test]
    fn the_copyright_file_of_the_package_itself_is_taken() {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, text) in [
            ("./usr/share/doc/y/copyright", "of y"),
            ("./usr/share/doc/x/copyright", "of x"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        let tar = builder.into_inner().unwrap();
        assert_eq!(copyright_file(&tar, "x").as_deref(), Some("of x"));
        assert_eq!(copyright_file(&tar, "z"), None);
        assert_eq!(copyright_file(b"no tar", "x"), None);
    }

    #[test]
    fn what_is_in_the_cache_is_taken_by_its_digest_without_a_mirror() {
        let cache = tempfile::tempdir().unwrap();
        let package = |bytes: &[u8]| DebianPackage {
            name: "x".to_owned(),
            version: "1".to_owned(),
            digest: Digest::of(bytes),
        };
        let (one, other) = (package(b"one"), package(b"other"));
        let folder = cache.path().join("apt/packages");
        std::fs::create_dir_all(&folder).unwrap();
        for package in [&one, &other] {
            let bytes = if package == &one { b"one".as_slice() } else { b"other" };
            std::fs::write(folder.join(format!("{}.deb", package.digest.hex())), bytes).unwrap();
        }
        let paths = fetch(&[other.clone(), one], "no-such-suite", cache.path()).unwrap();
        assert_eq!(std::fs::read(&paths[0]).unwrap(), b"other");
    }
}
