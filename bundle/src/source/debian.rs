//! Debian packages by suite, from a package source of our own: of the machine's own sources only the mirror is used.

use super::layer::LayerBuilder;
use super::tools::run;
use super::{failed, io};
use landfall_core::bundle_index::DebianPackage;
use landfall_core::explain::Diagnosis;
use landfall_core::name::Digest;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// What kube-proxy and flannel start: nft, iptables, conntrack, with the libraries they load.
pub(super) const NETWORK: [&str; 29] = [
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
    "libcap2",
    "libelf1",
    "zlib1g",
    "libcrypt1",
    "netbase",
];

/// The sample: nginx and the libraries it loads.
pub(super) const WEB: [&str; 7] = [
    "libc6",
    "libgcc-s1",
    "libcrypt1",
    "libpcre2-8-0",
    "libssl3",
    "zlib1g",
    "nginx",
];

/// Age after which the list of packages is fetched again.
const LIST_AGE: Duration = Duration::from_hours(24);

/// Adds the packages' files to a layer; returns what was resolved.
pub(super) fn unpack(
    packages: &[&str],
    suite: &str,
    cache: &Path,
    layer: &mut LayerBuilder,
) -> Result<Vec<DebianPackage>, Diagnosis> {
    let apt = Apt::open(suite, cache)?;
    let mut found = Vec::new();
    for (name, path) in packages.iter().zip(apt.fetch(packages)?) {
        let bytes = std::fs::read(&path).map_err(io("read", &path))?;
        let version = run(
            Command::new("dpkg-deb").arg("--field").arg(&path).arg("Version"),
            &format!("reading {name}"),
        )?;
        let tar = run(
            Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&path),
            &format!("unpacking {name}"),
        )?;
        layer.unpack(tar.as_slice())?;
        found.push(DebianPackage {
            name: (*name).to_owned(),
            version: String::from_utf8_lossy(&version).trim().to_owned(),
            digest: Digest::of(&bytes),
        });
    }
    Ok(found)
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
    fn open(suite: &str, cache: &Path) -> Result<Self, Diagnosis> {
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
                .is_ok_and(|age| age < LIST_AGE)
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

    /// Downloads the newest versions of the suite; returns their files in the order of the names.
    fn fetch(&self, names: &[&str]) -> Result<Vec<PathBuf>, Diagnosis> {
        let sources = self.root.join("sources.list");
        let doing = "fetching Debian packages";
        let mut print = self.command(&sources);
        // apt prints nothing for a file that lies in its folder already.
        print.current_dir(self.root.join("empty"));
        let lines = run(print.args(["--print-uris", "download"]).args(names), doing)?;
        let lines = String::from_utf8_lossy(&lines);
        // 'URI' file size SHA256:…
        let files: Vec<&str> = lines.lines().filter_map(|l| l.split_whitespace().nth(1)).collect();
        let mut paths = Vec::new();
        let mut absent = Vec::new();
        for name in names {
            let file = files.iter().find(|f| f.split('_').next() == Some(name));
            let file = file.ok_or_else(|| failed(format!("{doing}: apt names no file for {name}")))?;
            let path = self.downloads.join(file);
            if !path.exists() {
                absent.push(*name);
            }
            paths.push(path);
        }
        if !absent.is_empty() {
            run(self.command(&sources).arg("download").args(absent), doing)?;
        }
        Ok(paths)
    }
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
