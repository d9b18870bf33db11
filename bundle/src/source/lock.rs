//! The lock file: versions and module sums in one place.

use super::{failed, io};
use landfall_core::bundle_index::DebianPackage;
use landfall_core::explain::Diagnosis;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Content of `bundle/source/lock.yaml`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Lock {
    /// Packages of image layers.
    pub debian: Debian,
    /// Packages of the newer nft, which images have beside the one of [`Self::debian`].
    pub newer_nft: Debian,
    pub pause_version: String,
    pub components: BTreeMap<String, Locked>,
    pub module_sums: Vec<String>,
}

/// Packages of one of Debian's suites.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Debian {
    pub suite: String,
    /// Each is a line: name, version, SHA-256 of the file.
    packages: Vec<String>,
}

/// The lock file's place in a checkout.
pub(super) const LOCK_FILE: &str = "bundle/source/lock.yaml";

/// How the lock file gets other packages.
pub(super) const LOCK_ANEW: &str = "lock the newest packages of the suites: `cargo xtask lock-debian`";

fn package(line: &str) -> Option<DebianPackage> {
    let words: Vec<&str> = line.split(' ').collect();
    let [name, version, sha256] = words[..] else {
        return None;
    };
    Some(DebianPackage {
        name: name.to_owned(),
        version: version.to_owned(),
        digest: format!("sha256:{sha256}").parse().ok()?,
    })
}

/// Puts packages into the text of a lock file, in place of those that are there under this key.
pub(super) fn with_packages(text: &str, key: &str, packages: &[DebianPackage]) -> Result<String, Diagnosis> {
    let lacks = || failed(format!("{LOCK_FILE} has no packages under {key}"));
    let head = format!("\n{key}:\n");
    let start = text.find(&head).ok_or_else(lacks)? + head.len();
    // The suite, then the list.
    let (inside, list) = ("  packages:\n", "    - ");
    let start = start + text[start..].find(inside).ok_or_else(lacks)? + inside.len();
    let rest = text[start..].lines().skip_while(|line| line.starts_with(list));
    let line = |p: &DebianPackage| format!("{list}{} {} {}\n", p.name, p.version, p.digest.hex());
    let lines: String = packages.iter().map(line).collect();
    let rest: String = rest.map(|line| format!("{line}\n")).collect();
    Ok(format!("{}{lines}{rest}", &text[..start]))
}

/// One component that is built from Go modules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Locked {
    pub version: String,
    pub module: String,
    pub packages: Vec<String>,
}

impl Lock {
    pub fn read(path: &Path) -> Result<Self, Diagnosis> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| io("read", path)(error).next("run `landfall bundle build` in a checkout of landfall"))?;
        serde_yaml::from_str(&text)
            .map_err(|error| failed(format!("{} is no valid lock file", path.display())).because(&error))
    }

    pub fn version(&self, component: &str) -> Result<&str, Diagnosis> {
        let found = self.components.get(component);
        found
            .map(|c| c.version.as_str())
            .ok_or_else(|| failed(format!("the lock file has no component {component}")))
    }
}

impl Debian {
    /// Returns the locked packages, by name; names all lines that are none.
    pub fn packages(&self) -> Result<BTreeMap<String, DebianPackage>, Diagnosis> {
        let (mut packages, mut wrong) = (BTreeMap::new(), Vec::new());
        for line in &self.packages {
            match package(line) {
                Some(package) => drop(packages.insert(package.name.clone(), package)),
                None => wrong.push(format!(
                    "packages of {}: {line:?} is not a name, a version and a SHA-256",
                    self.suite
                )),
            }
        }
        if wrong.is_empty() {
            return Ok(packages);
        }
        let unusable = failed(format!("{LOCK_FILE} cannot be used"));
        Err(wrong.into_iter().fold(unusable, Diagnosis::saw).next(LOCK_ANEW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::debian;
    use landfall_core::name::Digest;

    fn lock() -> (String, Lock) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("source/lock.yaml");
        (std::fs::read_to_string(&path).unwrap(), Lock::read(&path).unwrap())
    }

    #[test]
    fn every_package_of_an_image_is_locked_and_no_other() {
        for (_, debian, parts) in debian::suites(&lock().1) {
            let locked: Vec<String> = debian.packages().unwrap().into_keys().collect();
            assert_eq!(locked, debian::names(parts), "{}", debian.suite);
        }
    }

    #[test]
    fn packages_are_locked_anew_and_nothing_else_changes() {
        let (text, lock) = lock();
        let all = |debian: &Debian| debian.packages().unwrap().into_values().collect::<Vec<_>>();
        for (key, debian, _) in debian::suites(&lock) {
            assert_eq!(with_packages(&text, key, &all(debian)).unwrap(), text);
        }
        let one = DebianPackage {
            name: "nginx".to_owned(),
            version: "1:2.0-1~deb12u1".to_owned(),
            digest: Digest::of(b"nginx"),
        };
        let new = with_packages(&text, "debian", std::slice::from_ref(&one)).unwrap();
        let read: Lock = serde_yaml::from_str(&new).unwrap();
        assert_eq!(all(&read.debian), std::slice::from_ref(&one));
        assert_eq!(all(&read.newer_nft), all(&lock.newer_nft));
        assert_eq!(read.module_sums, lock.module_sums);
        let new = with_packages(&text, "newerNft", std::slice::from_ref(&one)).unwrap();
        let read: Lock = serde_yaml::from_str(&new).unwrap();
        assert_eq!(
            (all(&read.debian), all(&read.newer_nft)),
            (all(&lock.debian), vec![one])
        );
        assert!(with_packages("x: y\n", "debian", &[]).is_err());
    }

    #[test]
    fn all_lines_that_are_no_package_are_named() {
        let debian = Debian {
            suite: "sid".to_owned(),
            packages: vec!["nginx 1.0".to_owned(), "curl 1 abc".to_owned()],
        };
        let refused = debian.packages().unwrap_err();
        assert_eq!(refused.saw.len(), 2, "{refused:?}");
        assert!(refused.next[0].contains("cargo xtask lock-debian"));
    }
}
