//! What is in the layers of an image that others made: programs of Go, and what the databases of Debian's and Alpine's package managers
//! list. Databases that are not read are named.

use super::go::{self, Module};
use super::package::{self, Distribution, Package};
use crate::archive::decompressed;
use landfall_core::name::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Debian's database as a whole, and with a file for each package, as images of distroless have it.
const DPKG: &str = "var/lib/dpkg/status";
const DPKG_FOLDER: &str = "var/lib/dpkg/status.d/";
/// Alpine's database: the old place, and that of Alpine 3.23 and later.
const APK: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];
/// Where a distribution names itself: the link in `etc` leads to the second.
const OS_RELEASE: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];
/// Databases of other package managers: RPM's two places, pacman's, Nix's.
const UNREAD: [&str; 4] = [
    "var/lib/rpm/",
    "usr/lib/sysimage/rpm/",
    "var/lib/pacman/",
    "nix/var/nix/db/",
];
/// The most that a database or a program may have: the largest program of Kubernetes has 120 MB.
const MOST_BYTES: u64 = 1024 * 1024 * 1024;

/// What an image's layers hold together. A file of a later layer replaces that of an earlier one.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// By path.
    pub programs: BTreeMap<String, Program>,
    pub packages: Vec<Package>,
    /// Folders of databases that are not read.
    pub unread: BTreeSet<&'static str>,
}

/// A program that Go has built.
#[derive(Debug)]
pub(super) struct Program {
    pub digest: Digest,
    pub modules: Vec<Module>,
}

/// Reads layers, the lowest first: tars, plain or compressed by gzip or zstd.
pub(super) fn read(layers: &[PathBuf]) -> io::Result<Contents> {
    let mut contents = Contents::default();
    let mut databases = BTreeMap::new();
    for layer in layers {
        read_layer(layer, &mut contents, &mut databases)?;
    }
    let distribution = OS_RELEASE.iter().find_map(|path| databases.get(*path));
    let distribution = distribution.map(|text| Distribution::parse(text)).unwrap_or_default();
    for (path, text) in &databases {
        if path == DPKG || path.starts_with(DPKG_FOLDER) {
            contents.packages.extend(package::of_dpkg(text, &distribution));
        } else if APK.contains(&path.as_str()) {
            contents.packages.extend(package::of_apk(text, &distribution));
        }
    }
    Ok(contents)
}

fn read_layer(path: &Path, contents: &mut Contents, databases: &mut BTreeMap<String, String>) -> io::Result<()> {
    let mut archive = tar::Archive::new(decompressed(path)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let path = path.trim_start_matches("./").trim_start_matches('/').to_owned();
        contents
            .unread
            .extend(UNREAD.iter().find(|folder| path.starts_with(**folder)));
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let mut bytes = Vec::new();
        if is_database(&path) {
            entry.take(MOST_BYTES).read_to_end(&mut bytes)?;
            databases.insert(path, String::from_utf8_lossy(&bytes).into_owned());
            continue;
        }
        contents.programs.remove(&path);
        entry.by_ref().take(4).read_to_end(&mut bytes)?;
        if bytes != b"\x7fELF" {
            continue;
        }
        entry.take(MOST_BYTES).read_to_end(&mut bytes)?;
        let modules = go::modules(&bytes);
        if !modules.is_empty() {
            let digest = Digest::of(&bytes);
            contents.programs.insert(path, Program { digest, modules });
        }
    }
    Ok(())
}

/// Sums of a package's files lie beside it in distroless' folder.
fn is_database(path: &str) -> bool {
    let of_dpkg = path == DPKG || (path.starts_with(DPKG_FOLDER) && !path.ends_with(".md5sums"));
    of_dpkg || APK.contains(&path) || OS_RELEASE.contains(&path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::append;
    use std::io::Write;

    const STATUS: &str = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.41-12\nDescription: C library\n two lines\n\n\
        Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n";

    fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            append(&mut tar, name, bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn go_program(list: &str) -> Vec<u8> {
        let mut bytes = b"\x7fELF".to_vec();
        bytes.resize(16, 0);
        bytes.extend(go::tests::program(list));
        bytes
    }

    /// Three layers: plain, by gzip, by zstd.
    fn contents(layers: [Vec<u8>; 3]) -> Contents {
        let folder = tempfile::tempdir().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&layers[1]).unwrap();
        let bytes = [
            layers[0].clone(),
            gzip.finish().unwrap(),
            zstd::encode_all(layers[2].as_slice(), 3).unwrap(),
        ];
        let paths: Vec<PathBuf> = bytes
            .iter()
            .enumerate()
            .map(|(number, bytes)| {
                let path = folder.path().join(number.to_string());
                std::fs::write(&path, bytes).unwrap();
                path
            })
            .collect();
        read(&paths).unwrap()
    }

    #[test]
    fn programs_and_packages_of_all_layers_are_found() {
        let os: &[u8] = b"ID=debian\nVERSION_CODENAME=trixie\n";
        let found = contents([
            layer(&[(DPKG, STATUS.as_bytes()), ("usr/lib/os-release", os)]),
            layer(&[
                ("bin/coredns", &go_program("dep\ta.example/x\tv1.0.0\n")),
                ("bin/sh", b"\x7fELF"),
            ]),
            layer(&[("etc/passwd", b"root"), ("var/lib/rpm/rpmdb.sqlite", b"x")]),
        ]);
        assert_eq!(found.programs.keys().collect::<Vec<_>>(), ["bin/coredns"]);
        assert_eq!(found.programs["bin/coredns"].modules.len(), 2, "with Go's library");
        let names: Vec<&str> = found.packages.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["libc6"]);
        assert_eq!(found.packages[0].distribution, "trixie");
        assert_eq!(found.unread.iter().copied().collect::<Vec<_>>(), ["var/lib/rpm/"]);
    }

    #[test]
    fn a_later_layer_replaces_files() {
        let program = go_program("dep\ta.example/x\tv1.0.0\n");
        let single = "Package: tzdata\nVersion: 2026a\nArchitecture: all\n";
        let found = contents([
            layer(&[(DPKG, STATUS.as_bytes()), ("bin/a", &program), ("bin/b", &program)]),
            layer(&[
                (DPKG, STATUS.replace("2.41-12", "2.41-13").as_bytes()),
                ("bin/a", b"text"),
            ]),
            layer(&[
                ("./var/lib/dpkg/status.d/tzdata", single.as_bytes()),
                ("./var/lib/dpkg/status.d/tzdata.md5sums", b"0 x\n"),
            ]),
        ]);
        assert_eq!(found.programs.keys().collect::<Vec<_>>(), ["bin/b"]);
        let versions: Vec<_> = found.packages.iter().map(|p| p.version.as_str()).collect();
        assert_eq!(versions, ["2.41-13", "2026a"]);
    }

    #[test]
    fn what_is_no_layer_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layer");
        std::fs::write(&path, [0x1f, 0x8b, 1, 2, 3]).unwrap();
        assert!(read(&[path]).is_err());
    }
}
