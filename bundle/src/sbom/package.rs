//! Packages of distributions, as their package managers' databases list them.

use super::{Component, encoded};

/// A package of a distribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    /// Kind of package in a package URL: `deb` or `apk`.
    pub kind: &'static str,
    /// The distribution, as `ID` of os-release has it (os-release(5)).
    pub vendor: String,
    /// Its version or code name.
    pub distribution: String,
    pub name: String,
    pub version: String,
    pub architecture: String,
    /// As the database has it.
    pub licence: Option<String>,
    /// Commit of Alpine's packaging of which it was built.
    commit: Option<String>,
    /// SHA-256 of the package's file, in hex.
    pub sha256: Option<String>,
}

/// A distribution and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Distribution {
    id: String,
    version: String,
}

impl Default for Distribution {
    /// What stands in package URLs when an image does not say it (os-release(5): `ID` is `linux` then).
    fn default() -> Self {
        Self {
            id: "linux".to_owned(),
            version: String::new(),
        }
    }
}

impl Distribution {
    /// Reads os-release. The code name, which Debian's packages are known by, comes before the number.
    pub fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(|value| value.trim().trim_matches(['"', '\'']).to_owned())
        };
        let default = Self::default();
        Self {
            id: value("ID").unwrap_or(default.id),
            version: value("VERSION_CODENAME")
                .or_else(|| value("VERSION_ID"))
                .unwrap_or_default(),
        }
    }
}

/// Reads Debian's database: paragraphs of fields (deb822(5)). What is not installed is left out.
pub(super) fn of_dpkg(text: &str, distribution: &Distribution) -> Vec<Package> {
    let of_paragraph = |paragraph: &str| {
        let field = |name: &str| {
            let line = paragraph
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned())
        };
        // Files of distroless have no status.
        let is_there = field("Status").is_none_or(|status| status.ends_with(" installed"));
        let package = Package {
            kind: "deb",
            vendor: distribution.id.clone(),
            distribution: distribution.version.clone(),
            name: field("Package")?,
            version: field("Version")?,
            architecture: field("Architecture").unwrap_or_default(),
            licence: None,
            commit: None,
            sha256: None,
        };
        is_there.then_some(package)
    };
    text.split("\n\n").filter_map(of_paragraph).collect()
}

/// Reads Alpine's database: paragraphs of lines with a letter for each field (Alpine's wiki, "Apk spec": P name, V version, A architecture,
/// L licence, c commit).
pub(super) fn of_apk(text: &str, distribution: &Distribution) -> Vec<Package> {
    let of_paragraph = |paragraph: &str| {
        let field = |letter: &str| {
            let line = paragraph
                .lines()
                .find_map(|line| line.strip_prefix(letter)?.strip_prefix(':'));
            line.map(str::to_owned).filter(|value| !value.is_empty())
        };
        Some(Package {
            kind: "apk",
            vendor: distribution.id.clone(),
            distribution: distribution.version.clone(),
            name: field("P")?,
            version: field("V")?,
            architecture: field("A").unwrap_or_default(),
            licence: field("L"),
            commit: field("c"),
            sha256: None,
        })
    };
    text.split("\n\n").filter_map(of_paragraph).collect()
}

impl Package {
    /// A package of Debian's for amd64, of which the file is known.
    pub fn of_debian(name: &str, version: &str, suite: &str, sha256: String) -> Self {
        Self {
            kind: "deb",
            vendor: "debian".to_owned(),
            distribution: suite.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: "amd64".to_owned(),
            licence: None,
            commit: None,
            sha256: Some(sha256),
        }
    }

    /// As a component. The source is where the distribution keeps it for good, where there is such a place.
    pub fn component(&self) -> Component {
        let Self { name, version, .. } = self;
        let mut purl = format!(
            "pkg:{}/{}/{}@{}",
            self.kind,
            encoded(&self.vendor, false),
            encoded(name, false),
            encoded(version, false)
        );
        let qualifiers = [("arch", &self.architecture), ("distro", &self.distribution)];
        let said = qualifiers.into_iter().filter(|(_, value)| !value.is_empty());
        for (number, (key, value)) in said.enumerate() {
            let mark = if number == 0 { '?' } else { '&' };
            purl.push_str(&format!("{mark}{key}={}", encoded(value, false)));
        }
        let source = match (self.vendor.as_str(), &self.commit) {
            ("debian", _) => Some((
                "source-distribution",
                format!("https://snapshot.debian.org/binary/{}/", encoded(name, false)),
            )),
            ("alpine", Some(commit)) => Some((
                "vcs",
                format!(
                    "https://gitlab.alpinelinux.org/alpine/aports/-/tree/{}",
                    encoded(commit, false)
                ),
            )),
            _ => None,
        };
        Component {
            kind: "library",
            name: name.clone(),
            version: version.clone(),
            purl: Some(purl),
            sha256: self.sha256.clone(),
            licence: self.licence.clone(),
            source,
            ..Component::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpine_names_licence_and_commit() {
        let text = "C:Q1abc=\nP:musl\nV:1.2.5-r10\nA:x86_64\nL:MIT\nc:0123abcd\nF:lib\n\nP:busybox\nV:1.37.0-r1\nA:x86_64\nL:GPL-2.0-only\n";
        let found = of_apk(
            text,
            &Distribution::parse("NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.22.1\n"),
        );
        assert_eq!(found.len(), 2);
        let musl = found[0].component();
        assert_eq!(
            musl.purl.as_deref(),
            Some("pkg:apk/alpine/musl@1.2.5-r10?arch=x86_64&distro=3.22.1")
        );
        assert_eq!(musl.licence.as_deref(), Some("MIT"));
        let source = musl.source.unwrap().1;
        assert_eq!(source, "https://gitlab.alpinelinux.org/alpine/aports/-/tree/0123abcd");
        assert_eq!(found[1].component().source, None, "no commit is named");
    }

    #[test]
    fn what_an_image_does_not_say_is_left_out() {
        let found = of_dpkg("Package: x\nVersion: 1~rc+2\n", &Distribution::default());
        assert_eq!(found[0].component().purl.as_deref(), Some("pkg:deb/linux/x@1~rc%2B2"));
        assert_eq!(of_dpkg("Package: x\n\nVersion: 1\n", &Distribution::default()), []);
    }
}
