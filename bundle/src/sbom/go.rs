//! Reads from a program which Go modules it was built of. Go writes that into every program (`debug/buildinfo`; the form is that of
//! Go 1.18 and later).

use super::{Component, encoded};

/// Stands at the beginning of the section, at a multiple of 16 bytes (`buildInfoMagic`, `buildInfoAlign`).
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// Where the strings begin (`buildInfoHeaderSize`).
const HEADER: usize = 32;
/// Says that the strings stand in the section itself (`flagsVersionInl`).
const INLINE: u8 = 2;
/// The list of modules stands between 16 bytes that mark its beginning and 16 that mark its end.
const MARK: usize = 16;

/// A Go module with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    pub path: String,
    pub version: String,
    /// Digest of its files in the form of `go.sum`, where Go recorded it.
    sum: Option<String>,
}

/// Returns the modules of a program, Go's standard library first. None when Go has not built it.
pub(crate) fn modules(program: &[u8]) -> Vec<Module> {
    let places = program
        .chunks(MARK)
        .enumerate()
        .filter(|(_, line)| line.starts_with(MAGIC));
    let found = places.filter_map(|(n, _)| parse(&program[n * MARK..])).next();
    found.unwrap_or_default()
}

fn parse(section: &[u8]) -> Option<Vec<Module>> {
    if section.get(15)? & INLINE == 0 {
        return None;
    }
    let (version, rest) = string(section.get(HEADER..)?)?;
    let version = std::str::from_utf8(version).ok()?.strip_prefix("go")?;
    let (list, _) = string(rest)?;
    let mut modules = vec![Module {
        path: STANDARD_LIBRARY.to_owned(),
        // Experiments stand behind a space.
        version: version.split(' ').next().unwrap_or(version).to_owned(),
        sum: None,
    }];
    let inside = list.get(MARK..list.len().checked_sub(MARK)?).unwrap_or_default();
    for line in String::from_utf8_lossy(inside).lines() {
        let mut fields = line.split('\t');
        let kind = fields.next().unwrap_or_default();
        let (Some(path), version) = (fields.next(), fields.next().unwrap_or_default()) else {
            continue;
        };
        let module = Module {
            path: path.to_owned(),
            version: version.to_owned(),
            sum: fields.next().filter(|sum| !sum.is_empty()).map(str::to_owned),
        };
        match kind {
            // The wrapper module of a build has no version of its own, and nothing but a list of names.
            "mod" | "dep" if version != "(devel)" => modules.push(module),
            "=>" if modules.len() > 1 => {
                modules.pop();
                modules.push(module);
            }
            _ => {}
        }
    }
    Some(modules)
}

/// Reads a string behind its length, a varint of 7 bits a byte (`encoding/binary`).
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0usize;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        length |= usize::from(byte & 0x7f).checked_shl(7 * at as u32)?;
        if byte & 0x80 == 0 {
            let rest = &bytes[at + 1..];
            return (length <= rest.len()).then(|| rest.split_at(length));
        }
    }
    None
}

impl Module {
    /// As a component. The source is where Go's own tool gets it (go.dev/ref/mod, "GOPROXY protocol").
    pub(super) fn component(&self) -> Component {
        let source = match self.path.as_str() {
            STANDARD_LIBRARY => format!("https://go.dev/dl/go{}.src.tar.gz", self.version),
            path => format!(
                "https://proxy.golang.org/{}/@v/{}.zip",
                escaped(path),
                escaped(&self.version)
            ),
        };
        let sum = self.sum.iter().map(|sum| ("go:sum", sum.clone()));
        Component {
            kind: "library",
            name: self.path.clone(),
            version: self.version.clone(),
            purl: Some(format!(
                "pkg:golang/{}@{}",
                encoded(&self.path, true),
                encoded(&self.version, false)
            )),
            source: Some(("source-distribution", source)),
            properties: sum.collect(),
            ..Component::default()
        }
    }
}

/// Name of the path of Go's standard library, as a module.
pub(crate) const STANDARD_LIBRARY: &str = "stdlib";

/// Upper-case letters become `!` and the lower-case letter (go.dev/ref/mod, "GOPROXY protocol").
pub(crate) fn escaped(path: &str) -> String {
    let mut out = String::new();
    for c in path.chars() {
        if c.is_ascii_uppercase() {
            out.push('!');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::sbom) fn program(list: &str) -> Vec<u8> {
        let mut bytes = vec![0x7f; 48];
        bytes.extend(MAGIC);
        bytes.extend([8, INLINE]);
        bytes.resize(48 + HEADER, 0);
        let text = [vec![1; MARK], list.as_bytes().to_vec(), vec![2; MARK]].concat();
        for string in [b"go1.26.1 X:a".as_slice(), &text] {
            let mut length = string.len();
            while length >= 0x80 {
                bytes.push(length as u8 | 0x80);
                length >>= 7;
            }
            bytes.push(length as u8);
            bytes.extend(string);
        }
        bytes
    }

    #[test]
    fn modules_are_read_as_go_writes_them() {
        let list = "path\tk8s.io/kubernetes/cmd/kubeadm\nmod\twrapper\t(devel)\t\ndep\tgithub.com/Azure/x\tv1.2.0\th1:abc=\n\
                    dep\told.example/y\tv0.1.0\n=>\tnew.example/y\tv0.2.0\th1:def=\nbuild\t-compiler=gc\n";
        let found = modules(&program(list));
        let short: Vec<_> = found
            .iter()
            .map(|m| (m.path.as_str(), m.version.as_str(), m.sum.as_deref()))
            .collect();
        let wanted = [
            ("stdlib", "1.26.1", None),
            ("github.com/Azure/x", "v1.2.0", Some("h1:abc=")),
            ("new.example/y", "v0.2.0", Some("h1:def=")),
        ];
        assert_eq!(short, wanted);
        let component = found[1].component();
        assert_eq!(component.purl.as_deref(), Some("pkg:golang/github.com/Azure/x@v1.2.0"));
        let address = "https://proxy.golang.org/github.com/!azure/x/@v/v1.2.0.zip";
        assert_eq!(component.source.as_ref().map(|s| s.1.as_str()), Some(address));
        assert_eq!(modules(b"\x7fELF and no Go"), []);
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(tail in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..300) {
            let mut bytes = program("dep\ta\tv1\n");
            bytes.truncate(48 + cut);
            bytes.extend(tail);
            modules(&bytes);
        }
    }
}
