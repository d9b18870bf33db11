//! Makes a lock file: asks publishers for their checksums, and registries for what their tags stand for now.

use super::LockOptions;
use super::catalogue::{self, IMAGES, UpstreamImage};
use super::download::{self, Downloads, small_file};
use super::http::Client;
use super::lockfile::{Known, LockFile, LockedImage, LockedProgram, is_version};
use super::login::Logins;
use super::mirror::Mirror;
use super::registry::{ImageAddress, Registries};
use super::signature::Signatures;
use crate::source::contents::NODE_PROGRAMS;
use crate::source::failed;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::Digest;
use std::collections::BTreeMap;

/// The most that a file of checksums may have; publishers' own have less than 10 kB.
const SUMS_BYTES: u64 = 1024 * 1024;

pub(super) fn ask(options: &LockOptions<'_>) -> Result<LockFile, Diagnosis> {
    let network = options.network;
    let versions = versions(options.versions)?;
    let client = Client::new(network)?;
    let mut sums = Sums {
        client: &client,
        mirrors: network.mirrors,
        known: BTreeMap::new(),
    };
    let mut programs = Vec::new();
    for architecture in options.architectures {
        for program in &NODE_PROGRAMS {
            // Only landfall's own is nowhere published.
            let version = versions.get(program.component).map_or("", String::as_str);
            let Some(at) = catalogue::published(program.component, program.name, version, architecture) else {
                continue;
            };
            let digest = sums.of(&at.url, &at.sums)?;
            programs.push(LockedProgram::new(
                program.name,
                architecture,
                at.url,
                digest,
                at.member,
            ));
        }
    }
    let registries = Registries::new(&client, network.mirrors, Logins::read(network.docker_config)?);
    let lock = |name: &str, reference: &str| {
        let address: ImageAddress = reference.parse().map_err(failed)?;
        (client.say)(&format!("asking for {reference}"));
        let manifests = registries.lock(&address, options.architectures)?;
        Ok(LockedImage::new(name, reference.to_owned(), &manifests))
    };
    let of_cluster = |image: &UpstreamImage| {
        let version = versions.get(image.component).map_or("", String::as_str);
        lock(image.name, &image.reference(version))
    };
    let images = IMAGES.iter().map(of_cluster).collect::<Result<_, Diagnosis>>()?;
    let added = options.images.iter().map(|image| lock("", image.name()));
    let added = added.collect::<Result<_, Diagnosis>>()?;
    let mut file = LockFile::new(versions, programs, images);
    file.added = added;
    let downloads = Downloads {
        folder: download::folder(options.cache)?,
        client: &client,
    };
    let signatures = Signatures {
        options: options.signatures,
        network,
        downloads: &downloads,
    };
    let text = |(component, known): (String, Known)| (component, known.to_string());
    let known = signatures.check(&file, options.architectures)?;
    file.signatures = known.into_iter().map(text).collect();
    Ok(file)
}

/// The default versions, with those that were asked for.
fn versions(asked: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Diagnosis> {
    let mut versions = catalogue::versions();
    for (component, version) in asked {
        // Both forms are in use; addresses have the `v` where it belongs.
        let plain = version.strip_prefix('v').unwrap_or(version);
        if !is_version(plain) {
            return Err(Diagnosis::new(
                Code::Usage,
                format!("{component}: {version:?} is no version"),
            ));
        }
        if versions.insert(component.clone(), plain.to_owned()).is_none() {
            let known: Vec<String> = catalogue::versions().into_keys().collect();
            let unknown = Diagnosis::new(Code::Usage, format!("there is no component {component}"));
            return Err(unknown.next(format!("name one of {}", known.join(", "))));
        }
    }
    Ok(versions)
}

/// Files of checksums, each asked for once.
struct Sums<'a> {
    client: &'a Client<'a>,
    mirrors: &'a [Mirror],
    known: BTreeMap<String, String>,
}

impl Sums<'_> {
    /// Returns what the publisher says is the SHA-256 of `url`.
    fn of(&mut self, url: &str, sums: &str) -> Result<Digest, Diagnosis> {
        if !self.known.contains_key(sums) {
            (self.client.say)(&format!("asking for the checksum of {url}"));
            let text = self.read(sums)?;
            self.known.insert(sums.to_owned(), text);
        }
        let file = url.rsplit('/').next().unwrap_or_default();
        sum_of(&self.known[sums], file).ok_or_else(|| {
            failed(format!("{sums} has no SHA-256 of {file}")).next("look whether this version was released")
        })
    }

    fn read(&self, sums: &str) -> Result<String, Diagnosis> {
        let text = small_file(self.client, self.mirrors, sums, SUMS_BYTES).map_err(|refused| {
            let nowhere = failed(format!("the checksum {sums} cannot be had"));
            let nowhere = refused.into_iter().fold(nowhere, Diagnosis::saw);
            nowhere.next("look whether this version was released, and whether this machine reaches the server")
        })?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Finds a file's digest in what `sha256sum` writes, or takes the only word of a file that has one.
fn sum_of(text: &str, file: &str) -> Option<Digest> {
    let digest = |hex: &str| format!("sha256:{}", hex.to_ascii_lowercase()).parse().ok();
    let words: Vec<&str> = text.split_whitespace().collect();
    if let [only] = words[..] {
        return digest(only);
    }
    let mut lines = text
        .lines()
        .filter_map(|line| line.trim().split_once(char::is_whitespace));
    let named = |name: &str| name.trim_start().trim_start_matches('*').rsplit('/').next() == Some(file);
    lines.find(|(_, name)| named(name)).and_then(|(hex, _)| digest(hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_read_in_each_form_that_publishers_use() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(sum_of(&a.hex(), "kubelet"), Some(a));
        assert_eq!(sum_of(&format!("{}\n", a.hex()), "kubelet"), Some(a));
        let list = format!("{}  runc.arm64\n{} *./dist/runc.amd64\n", a.hex(), b.hex());
        assert_eq!(sum_of(&list, "runc.amd64"), Some(b));
        assert_eq!(sum_of(&list, "amd64"), None);
        assert_eq!(sum_of("<html> not found </html>", "kubelet"), None);
        assert_eq!(sum_of("", "kubelet"), None);
    }

    #[test]
    fn versions_are_taken_with_and_without_a_v() {
        let asked = |component: &str, version: &str| versions(&[(component.to_owned(), version.to_owned())].into());
        assert_eq!(asked("kubernetes", "v1.36.3").unwrap()["kubernetes"], "1.36.3");
        assert_eq!(asked("etcd", "3.6.10-0").unwrap()["etcd"], "3.6.10-0");
        assert!(asked("kubernetes", "latest").is_err());
        assert!(asked("docker", "1.0").is_err());
    }
}
