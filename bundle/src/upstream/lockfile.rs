//! The lock file: what a bundle is made of, by address and digest. People may edit it, so every problem is named at once.

use super::catalogue::{ARCHITECTURES, IMAGES};
use super::mirror::check_url;
use super::registry::{AddedImage, ImageAddress};
use crate::source::contents::NODE_PROGRAMS;
use crate::source::{failed, io};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Version of the format that is written; larger ones are refused.
const VERSION: u32 = 1;

const HEAD: &str = "\
# What `landfall bundle build --recipe upstream` takes, by address and SHA-256. Written by `landfall bundle lock`.
# programs: one entry for each program and architecture; member is its name inside the archive at url, absent where the file is the program.
# images: the digest of the manifest for each architecture; the tag in image becomes the tag in the bundle.
# added: images of your own, which pods name as they are named here.
# signatures: whether the publisher's signature of a component's programs was verified when this was written.
";

/// A lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LockFile {
    version: u32,
    /// Version of each component.
    #[serde(default)]
    pub components: BTreeMap<String, String>,
    #[serde(default)]
    pub programs: Vec<LockedProgram>,
    #[serde(default)]
    pub images: Vec<LockedImage>,
    /// Images that the builder adds; they have no name but that in a registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<LockedImage>,
    /// What is known of the publisher's signature of each component's programs; absent in files from before it was verified.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub signatures: BTreeMap<String, String>,
}

/// A program for one architecture. What is missing in a file is empty here, and named by [`LockFile::problems`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub(super) struct LockedProgram {
    pub name: String,
    pub architecture: String,
    pub url: String,
    /// 64 hex digits.
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
}

impl LockedProgram {
    pub fn new(name: &str, architecture: &str, url: String, digest: Digest, member: Option<String>) -> Self {
        Self {
            name: name.to_owned(),
            architecture: architecture.to_owned(),
            url,
            sha256: digest.hex(),
            member,
        }
    }

    /// `None` in a file with problems.
    pub fn digest(&self) -> Option<Digest> {
        format!("sha256:{}", self.sha256).parse().ok()
    }
}

/// An image and its manifest for each architecture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LockedImage {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Registry, repository and tag.
    pub image: String,
    manifests: BTreeMap<String, String>,
}

impl LockedImage {
    pub fn new(name: &str, image: String, manifests: &BTreeMap<String, Digest>) -> Self {
        let text = |(architecture, digest): (&String, &Digest)| (architecture.clone(), digest.to_string());
        Self {
            name: name.to_owned(),
            image,
            manifests: manifests.iter().map(text).collect(),
        }
    }

    /// `None` when it is not locked for this architecture.
    pub fn manifest(&self, architecture: &str) -> Option<Digest> {
        self.manifests.get(architecture)?.parse().ok()
    }
}

/// What is known of a component's signatures, as the lock file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    Verified,
    /// Why.
    NotChecked(String),
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified => f.write_str("verified"),
            Self::NotChecked(why) => write!(f, "not-checked: {why}"),
        }
    }
}

impl FromStr for Known {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let reason = text.strip_prefix("not-checked: ").filter(|why| !why.is_empty());
        match (text, reason) {
            ("verified", _) => Ok(Self::Verified),
            (_, Some(why)) => Ok(Self::NotChecked(why.to_owned())),
            _ => Err(format!("{text:?} is neither \"verified\" nor \"not-checked: REASON\"")),
        }
    }
}

impl LockFile {
    pub fn new(components: BTreeMap<String, String>, programs: Vec<LockedProgram>, images: Vec<LockedImage>) -> Self {
        Self {
            version: VERSION,
            components,
            programs,
            images,
            added: vec![],
            signatures: BTreeMap::new(),
        }
    }

    /// Names the images that `--add-image` asks for and the file lacks.
    pub fn check_added(&self, path: &Path, wanted: &[AddedImage]) -> Result<(), Diagnosis> {
        let locked = |image: &&AddedImage| self.added.iter().any(|locked| locked.image == image.name());
        let missing: Vec<&str> = wanted.iter().filter(|i| !locked(i)).map(AddedImage::name).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let lacks = failed(format!("the lock file {} has not all added images", path.display()));
        let lacks = missing
            .iter()
            .fold(lacks, |lacks, name| lacks.saw(format!("{name} is missing")));
        Err(lacks.next("write it again: `landfall bundle lock` with the same --add-image"))
    }

    /// Reads a lock file that serves for these architectures.
    pub fn read(path: &Path, architectures: &[String]) -> Result<Self, Diagnosis> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let what = format!("the lock file {} cannot be read", path.display());
            Diagnosis::new(Code::FileUnreadable, what).because(&error)
        })?;
        let advice = "correct it, or write a new one by `landfall bundle lock`";
        let lock: Self = serde_yaml::from_str(&text).map_err(|error| {
            failed(format!("{} is no lock file", path.display()))
                .because(&error)
                .next(advice)
        })?;
        let problems = lock.problems(architectures);
        if problems.is_empty() {
            return Ok(lock);
        }
        let wrong = failed(format!("the lock file {} cannot be used", path.display()));
        Err(problems.into_iter().fold(wrong, Diagnosis::saw).next(advice))
    }

    /// Writes the file, by way of a temporary name beside it.
    pub fn write(&self, path: &Path) -> Result<(), Diagnosis> {
        let yaml =
            serde_yaml::to_string(self).map_err(|error| failed("the lock file cannot be written").because(&error))?;
        let part = path.with_extension("part");
        std::fs::write(&part, format!("{HEAD}{yaml}")).map_err(io("written", &part))?;
        std::fs::rename(&part, path).map_err(io("written", path))
    }

    pub fn version_of(&self, component: &str) -> Option<&str> {
        self.components.get(component).map(String::as_str)
    }

    /// What is known of the signatures of a component's programs.
    pub fn signature(&self, component: &str) -> Option<Known> {
        self.signatures.get(component)?.parse().ok()
    }

    fn problems(&self, architectures: &[String]) -> Vec<String> {
        if self.version != VERSION {
            return vec![format!(
                "it has version {}, this landfall reads version {VERSION}",
                self.version
            )];
        }
        let mut problems = Vec::new();
        self.component_problems(&mut problems);
        for program in &self.programs {
            program.problems(&mut problems);
        }
        for image in &self.images {
            image.problems(&mut problems);
        }
        for image in &self.added {
            image.address_problems(&image.image, &mut problems);
            if !image.name.is_empty() {
                problems.push(format!("image {}: an added image has no other name", image.image));
            }
        }
        for (component, text) in &self.signatures {
            if !NODE_PROGRAMS.iter().any(|program| program.component == component) {
                problems.push(format!("signatures: there is no component {component} with programs"));
            }
            if let Err(why) = text.parse::<Known>() {
                problems.push(format!("signatures: {component}: {why}"));
            }
        }
        self.contradictions(&mut problems);
        self.gaps(architectures, &mut problems);
        problems
    }

    fn component_problems(&self, problems: &mut Vec<String>) {
        let programs = NODE_PROGRAMS.iter().map(|program| program.component);
        let wanted: BTreeSet<&str> = programs.chain(IMAGES.iter().map(|image| image.component)).collect();
        for component in wanted.into_iter().filter(|name| *name != "landfall") {
            match self.version_of(component) {
                None => problems.push(format!("components: {component} is missing")),
                Some(version) if !is_version(version) => {
                    problems.push(format!("components: {component}: {version:?} is no version"));
                }
                Some(_) => {}
            }
        }
    }

    /// The same twice, and one file with two digests.
    fn contradictions(&self, problems: &mut Vec<String>) {
        let (mut seen, mut digests) = (BTreeSet::new(), BTreeMap::new());
        for program in &self.programs {
            if !seen.insert((&program.name, &program.architecture)) {
                problems.push(format!("program {}: it is there twice", program.label()));
            }
            if *digests.entry(&program.url).or_insert(&program.sha256) != &program.sha256 {
                problems.push(format!(
                    "program {}: its url has another sha256 elsewhere",
                    program.label()
                ));
            }
        }
        let mut seen = BTreeSet::new();
        for image in self.images.iter().filter(|image| !seen.insert(&image.name)) {
            problems.push(format!("image {}: it is there twice", image.name));
        }
        let mut seen = BTreeSet::new();
        for image in self.added.iter().filter(|image| !seen.insert(&image.image)) {
            problems.push(format!("image {}: it is there twice", image.image));
        }
    }

    /// What a bundle for these architectures needs and the file lacks.
    fn gaps(&self, architectures: &[String], problems: &mut Vec<String>) {
        for architecture in architectures {
            for program in NODE_PROGRAMS.iter().filter(|program| program.component != "landfall") {
                let has = |p: &&LockedProgram| p.name == program.name && p.architecture == *architecture;
                if !self.programs.iter().any(|p| has(&p)) {
                    problems.push(format!("program {} for {architecture} is missing", program.name));
                }
            }
            for wanted in &IMAGES {
                let locked = self.images.iter().find(|image| image.name == wanted.name);
                if !locked.is_some_and(|image| image.manifests.contains_key(architecture)) {
                    problems.push(format!("image {} for {architecture} is missing", wanted.name));
                }
            }
            let lacks = |image: &&LockedImage| !image.manifests.contains_key(architecture);
            for image in self.added.iter().filter(lacks) {
                problems.push(format!("image {} for {architecture} is missing", image.image));
            }
        }
    }
}

impl LockedProgram {
    pub fn label(&self) -> String {
        format!("{} for {}", self.name, self.architecture)
    }

    fn problems(&self, problems: &mut Vec<String>) {
        let label = self.label();
        let mut problem = |text: String| problems.push(format!("program {label}: {text}"));
        if !NODE_PROGRAMS
            .iter()
            .any(|p| p.name == self.name && p.component != "landfall")
        {
            problem("no node needs a program of this name".to_owned());
        }
        if !ARCHITECTURES.contains(&self.architecture.as_str()) {
            problem(format!("the architecture is none of {}", ARCHITECTURES.join(", ")));
        }
        if let Err(why) = check_url(&self.url) {
            problem(format!("url {:?}: {why}", self.url));
        }
        if self.digest().is_none() {
            problem(format!("sha256 {:?} is not 64 lower-case hex digits", self.sha256));
        }
        if self.member.as_deref() == Some("") {
            problem("member is empty".to_owned());
        }
    }
}

impl LockedImage {
    fn problems(&self, problems: &mut Vec<String>) {
        if !IMAGES.iter().any(|image| image.name == self.name) {
            problems.push(format!("image {}: no cluster needs an image of this name", self.name));
        }
        self.address_problems(&self.name, problems);
    }

    fn address_problems(&self, label: &str, problems: &mut Vec<String>) {
        let mut problem = |text: String| problems.push(format!("image {label}: {text}"));
        if let Err(why) = self.image.parse::<ImageAddress>() {
            problem(why);
        }
        for (architecture, digest) in &self.manifests {
            if !ARCHITECTURES.contains(&architecture.as_str()) {
                problem(format!("{architecture:?} is none of {}", ARCHITECTURES.join(", ")));
            }
            if let Err(error) = digest.parse::<Digest>() {
                problem(error.to_string());
            }
        }
    }
}

/// Whether a text may be a version: it becomes part of addresses and tags.
pub(super) fn is_version(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    text.starts_with(|c: char| c.is_ascii_digit()) && text.len() <= 64 && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::super::catalogue;
    use super::*;
    use proptest::prelude::*;

    fn complete() -> LockFile {
        let versions = catalogue::versions();
        let mut programs = Vec::new();
        for program in NODE_PROGRAMS.iter().filter(|p| p.component != "landfall") {
            let version = &versions[program.component];
            let at = catalogue::published(program.component, program.name, version, "amd64").unwrap();
            let digest = Digest::of(at.url.as_bytes());
            programs.push(LockedProgram::new(program.name, "amd64", at.url, digest, at.member));
        }
        let manifests = BTreeMap::from([("amd64".to_owned(), Digest::of(b"manifest"))]);
        let image =
            |i: &catalogue::UpstreamImage| LockedImage::new(i.name, i.reference(&versions[i.component]), &manifests);
        let images = IMAGES.iter().map(image).collect();
        LockFile::new(versions, programs, images)
    }

    fn amd64() -> Vec<String> {
        vec!["amd64".to_owned()]
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("landfall.lock.yaml");
        complete().write(&path).unwrap();
        assert_eq!(LockFile::read(&path, &amd64()).unwrap(), complete());
        let both = ["amd64", "arm64"].map(str::to_owned);
        let refused = LockFile::read(&path, &both).unwrap_err();
        assert_eq!(refused.saw.len(), NODE_PROGRAMS.len() - 1 + IMAGES.len(), "{refused:?}");
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let mut lock = complete();
        lock.components.insert("runc".to_owned(), "../x".to_owned());
        lock.components.remove("etcd");
        lock.programs[0].url = "http://dl.k8s.io/x".to_owned();
        lock.programs[1].sha256 = "abc".to_owned();
        lock.programs[2].name = "bash".to_owned();
        lock.images[0].image = "kube-apiserver".to_owned();
        lock.images[1]
            .manifests
            .insert("amd64".to_owned(), "sha256:1".to_owned());
        lock.signatures.insert("docker".to_owned(), "verified".to_owned());
        lock.signatures.insert("runc".to_owned(), "yes".to_owned());
        let twice = lock.images[2].clone();
        lock.images.push(twice);
        let problems = lock.problems(&amd64()).join("\n");
        for text in [
            "components: runc: \"../x\" is no version",
            "components: etcd is missing",
            "program kubeadm for amd64: url \"http://dl.k8s.io/x\": it must begin with https://",
            "program kubelet for amd64: sha256 \"abc\" is not 64",
            "program bash for amd64: no node needs",
            "program kubectl for amd64 is missing",
            "image kube-apiserver: ",
            "image kube-controller-manager: ",
            "image kube-scheduler: it is there twice",
            "signatures: there is no component docker with programs",
            "signatures: runc: \"yes\" is neither",
        ] {
            assert!(problems.contains(text), "{text:?} is not in:\n{problems}");
        }
    }

    #[test]
    fn what_is_known_is_read_as_it_is_written() {
        for known in [Known::Verified, Known::NotChecked("cosign is not installed".to_owned())] {
            assert_eq!(known.to_string().parse(), Ok(known));
        }
        for wrong in ["", "Verified", "verified: yes", "not-checked", "not-checked: "] {
            assert!(wrong.parse::<Known>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_before_all_else() {
        let mut lock = complete();
        lock.version = VERSION + 1;
        lock.programs.clear();
        assert_eq!(lock.problems(&amd64()).len(), 1);
    }

    proptest! {
        // A file with any one character changed is read as something, or refused; a digest never changes unseen.
        #[test]
        fn no_change_of_a_character_is_fatal(at in any::<prop::sample::Index>(), new in any::<char>()) {
            let mut text: Vec<char> = serde_yaml::to_string(&complete()).unwrap().chars().collect();
            let at = at.index(text.len());
            text[at] = new;
            let text: String = text.into_iter().collect();
            let read = serde_yaml::from_str::<LockFile>(&text).ok();
            if let Some(lock) = read.filter(|lock| lock.problems(&amd64()).is_empty()) {
                prop_assert!(lock.programs.iter().all(|p| p.digest().is_some()));
                prop_assert!(lock.images.iter().all(|i| i.manifest("amd64").is_some()));
            }
        }
    }
}
