//! Compares two builds: of bundles every entry, of entries their content. A difference is told by its place: a section of a program, a member
//! of a layer, a value of JSON, a line of text, a byte.

use anyhow::{Context, Result, anyhow};
use landfall_bundle::{Bundle, Verified};
use landfall_core::bundle_index::{BundleIndex, Image};
use landfall_core::name::Digest;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

/// First bytes of a zstd frame (RFC 8878, 3.1.1).
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
/// Lines of one text, or values of one JSON document, that are shown.
const SHOWN: usize = 5;

/// Compares two files of programs or other bytes.
pub fn files(name: &str, one: &Path, other: &Path) -> Result<Vec<String>> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    let mut told = Vec::new();
    describe(name, &read(one)?, &read(other)?, &mut told);
    Ok(told)
}

/// Compares two bundles. No line says that they are the same file, byte for byte.
pub fn bundles(one: &Bundle<Verified>, other: &Bundle<Verified>) -> Result<Vec<String>> {
    let mut told = Vec::new();
    describe("bundle.json", one.index_text(), other.index_text(), &mut told);
    let signature = |bundle: &Bundle<Verified>| bundle.signature().unwrap_or_default().to_owned();
    describe(
        "bundle.json.minisig",
        signature(one).as_bytes(),
        signature(other).as_bytes(),
        &mut told,
    );
    let (of_one, of_other) = (entries(one.index()), entries(other.index()));
    let names: BTreeSet<&String> = of_one.keys().chain(of_other.keys()).collect();
    for name in names {
        match (of_one.get(name), of_other.get(name)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => describe(name, &blob(one, a)?, &blob(other, b)?, &mut told),
            (one, _) => {
                let which = if one.is_some() { "first" } else { "second" };
                told.push(format!("{name}: only in the {which} bundle"));
            }
        }
    }
    if told.is_empty() && !same_file(one.path(), other.path())? {
        told.push("the files differ, and no entry does".to_owned());
    }
    Ok(told)
}

/// Name of each blob that has one, and its digest.
fn entries(index: &BundleIndex) -> BTreeMap<String, Digest> {
    let mut entries = BTreeMap::new();
    for variant in &index.variants {
        for binary in &variant.binaries {
            entries.insert(format!("program {}/{}", variant.architecture, binary.name), binary.blob);
        }
        for image in &variant.images {
            for (number, digest) in image.blobs.iter().enumerate() {
                let name = format!(
                    "image {}/{}, {}",
                    variant.architecture,
                    name_of(image),
                    part(image, digest, number)
                );
                entries.insert(name, *digest);
            }
        }
    }
    entries.extend(index.sbom.map(|digest| ("bill of materials".to_owned(), digest)));
    entries
}

/// Without the tag, which may hold a digest.
fn name_of(image: &Image) -> &str {
    let text = image.reference.as_str();
    text.rsplit_once(':').map_or(text, |(name, _)| name)
}

/// An image's blobs are its manifest, its configuration and its layers, in this order.
fn part(image: &Image, digest: &Digest, number: usize) -> String {
    match number {
        _ if *digest == image.manifest => "manifest".to_owned(),
        1 => "configuration".to_owned(),
        number => format!("layer {}", number.saturating_sub(1)),
    }
}

fn blob(bundle: &Bundle<Verified>, digest: &Digest) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let reader = bundle.blob(digest).map_err(|diagnosis| anyhow!("{diagnosis}"));
    reader?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn same_file(one: &Path, other: &Path) -> Result<bool> {
    // Read one behind the other: a bundle has some hundred MB.
    Ok(Digest::of(&std::fs::read(one)?) == Digest::of(&std::fs::read(other)?))
}

/// Says where two contents differ; nothing when they do not.
fn describe(name: &str, one: &[u8], other: &[u8], told: &mut Vec<String>) {
    if one == other {
        return;
    }
    if let (Some(a), Some(b)) = (decompressed(one), decompressed(other)) {
        if a == b {
            told.push(format!("{name}: the content is the same, its compression differs"));
        }
        return describe(name, &a, &b, told);
    }
    if let (Some(a), Some(b)) = (members(one), members(other)) {
        return describe_members(name, &a, &b, told);
    }
    if let (Ok(a), Ok(b)) = (serde_json::from_slice(one), serde_json::from_slice(other))
        && a != b
    {
        let mut values = Vec::new();
        describe_values("", &a, &b, &mut values);
        return shown(name, &values, told);
    }
    if let (Ok(a), Ok(b)) = (std::str::from_utf8(one), std::str::from_utf8(other)) {
        return describe_lines(name, a, b, told);
    }
    told.push(format!("{name}: {}", describe_bytes(one, other)));
}

fn decompressed(bytes: &[u8]) -> Option<Vec<u8>> {
    bytes.starts_with(ZSTD).then(|| zstd::decode_all(bytes).ok())?
}

/// A member of a tar: what its header says, and its content.
type Members = BTreeMap<String, (String, Vec<u8>)>;

fn members(bytes: &[u8]) -> Option<Members> {
    if bytes.get(257..262)? != b"ustar" {
        return None;
    }
    let mut members = Members::new();
    for entry in tar::Archive::new(bytes).entries().ok()? {
        let mut entry = entry.ok()?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let header = entry.header();
        let link = entry
            .link_name_bytes()
            .map(|link| String::from_utf8_lossy(&link).into_owned());
        let plain = |number: std::io::Result<u64>| number.map_or("none".to_owned(), |number| number.to_string());
        let about = format!(
            "type {:?}, mode {}, owner {}:{}, time {}, link {:?}",
            header.entry_type(),
            header.mode().map_or("none".to_owned(), |mode| format!("{mode:o}")),
            plain(header.uid()),
            plain(header.gid()),
            plain(header.mtime()),
            link.unwrap_or_default()
        );
        let mut content = Vec::new();
        entry.read_to_end(&mut content).ok()?;
        members.insert(path, (about, content));
    }
    Some(members)
}

fn describe_members(name: &str, one: &Members, other: &Members, told: &mut Vec<String>) {
    let before = told.len();
    let paths: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    for path in paths {
        let label = format!("{name}: {path}");
        match (one.get(path), other.get(path)) {
            (Some((about_a, a)), Some((about_b, b))) => {
                if about_a != about_b {
                    told.push(format!("{label}: {about_a} | {about_b}"));
                }
                describe(&label, a, b, told);
            }
            (Some(_), None) => told.push(format!("{label}: only in the first")),
            _ => told.push(format!("{label}: only in the second")),
        }
    }
    if told.len() == before {
        told.push(format!("{name}: the members are the same, their order or form differs"));
    }
}

fn describe_values(at: &str, one: &Value, other: &Value, told: &mut Vec<String>) {
    match (one, other) {
        (a, b) if a == b => {}
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                describe_values(&format!("{at}/{key}"), &of(a), &of(b), told);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (number, (a, b)) in a.iter().zip(b).enumerate() {
                describe_values(&format!("{at}/{number}"), a, b, told);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            told.push(format!("{at}: {} elements | {} elements", a.len(), b.len()));
        }
        (a, b) => told.push(format!("{at}: {a} | {b}")),
    }
}

fn describe_lines(name: &str, one: &str, other: &str, told: &mut Vec<String>) {
    let (a, b): (Vec<&str>, Vec<&str>) = (one.lines().collect(), other.lines().collect());
    let line = |lines: &[&str], number: usize| lines.get(number).copied().unwrap_or("(no line)").to_owned();
    let differ: Vec<String> = (0..a.len().max(b.len()))
        .filter(|number| a.get(*number) != b.get(*number))
        .map(|number| format!("line {}: {} | {}", number + 1, line(&a, number), line(&b, number)))
        .collect();
    if differ.is_empty() {
        told.push(format!("{name}: the ends of lines differ"));
    }
    shown(name, &differ, told);
}

fn shown(name: &str, differ: &[String], told: &mut Vec<String>) {
    told.extend(differ.iter().take(SHOWN).map(|line| format!("{name}: {line}")));
    if differ.len() > SHOWN {
        told.push(format!("{name}: and {} more", differ.len() - SHOWN));
    }
}

fn describe_bytes(one: &[u8], other: &[u8]) -> String {
    let differs = |(n, (a, b)): (usize, (&u8, &u8))| (a != b).then_some(n);
    let places: Vec<usize> = one.iter().zip(other).enumerate().filter_map(differs).collect();
    let first = places.first().copied().unwrap_or(one.len().min(other.len()));
    let around = |bytes: &[u8]| {
        let part = bytes.get(first..bytes.len().min(first + 16)).unwrap_or_default();
        let hex: Vec<String> = part.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{} {:?}", hex.join(" "), String::from_utf8_lossy(part))
    };
    let sizes = match (one.len(), other.len()) {
        (a, b) if a == b => format!("of {a} bytes {} differ", places.len()),
        (a, b) => format!("{a} | {b} bytes"),
    };
    let section = section(one, first).map_or_else(String::new, |name| format!(" (section {name})"));
    format!(
        "{sizes}, first at offset {first:#x}{section}: {} | {}",
        around(one),
        around(other)
    )
}

/// Returns the section of a 64-bit ELF program, little-endian, that has the byte at this offset (elf(5)).
fn section(program: &[u8], offset: usize) -> Option<String> {
    if !program.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    /// Type of sections that have no bytes in the file.
    const NOBITS: usize = 8;
    let number = |at: usize, bytes: usize| -> Option<usize> {
        let part = program.get(at..at.checked_add(bytes)?)?;
        let value = part
            .iter()
            .rev()
            .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).ok()
    };
    let (table, entry, count) = (number(0x28, 8)?, number(0x3a, 2)?, number(0x3c, 2)?);
    let header = |index: usize| table.checked_add(index.checked_mul(entry)?);
    let names = number(header(number(0x3e, 2)?)? + 0x18, 8)?;
    for index in 0..count {
        let at = header(index)?;
        let (kind, start, size) = (number(at + 4, 4)?, number(at + 0x18, 8)?, number(at + 0x20, 8)?);
        if kind != NOBITS && start <= offset && offset - start < size {
            let name = program.get(names.checked_add(number(at, 4)?)?..)?;
            let end = name.iter().position(|byte| *byte == 0)?;
            return Some(String::from_utf8_lossy(&name[..end]).into_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_test_support::bundle;

    fn told(one: &[u8], other: &[u8]) -> Vec<String> {
        let mut told = Vec::new();
        describe("x", one, other, &mut told);
        told
    }

    fn layer(content: &[u8], mode: u32) -> Vec<u8> {
        let mut builder = tar::Builder::new(zstd::Encoder::new(Vec::new(), 3).unwrap());
        for (path, bytes) in [("etc/hosts", b"same".as_slice()), ("usr/bin/a", content)] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(mode);
            builder.append_data(&mut header, path, bytes).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn two_bundles_that_differ_in_one_entry_are_told_apart_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        bundle::write_tiny(&path("one"), bundle::VERSION).unwrap();
        bundle::write_tiny(&path("same"), bundle::VERSION).unwrap();
        bundle::write_repackaged(&path("other"), bundle::VERSION).unwrap();
        bundle::write_build(&path("build"), bundle::VERSION, 2).unwrap();
        let compare = |other: &str| {
            let (one, other) = (bundle::open(&path("one")).unwrap(), bundle::open(&path(other)).unwrap());
            bundles(&one, &other).unwrap()
        };
        assert_eq!(compare("same"), Vec::<String>::new());
        let other = compare("other");
        assert!(
            other
                .iter()
                .any(|line| line == "bundle.json: /packages/0/version: \"12.4\" | \"12.5\""),
            "{other:?}"
        );
        assert!(other.iter().all(|line| line.starts_with("bundle.json")), "{other:?}");
        let build = compare("build");
        let kubelet = "program amd64/kubelet: line 3: # build 1 | # build 2";
        assert!(build.iter().any(|line| line == kubelet), "{build:#?}");
        assert!(!build.iter().any(|line| line.starts_with("image")), "{build:#?}");
    }

    #[test]
    fn members_of_layers_are_named_with_what_differs() {
        let one = layer(b"a\nb\n", 0o644);
        assert_eq!(told(&one, &layer(b"a\nc\n", 0o644)), ["x: usr/bin/a: line 2: b | c"]);
        let mode = told(&one, &layer(b"a\nb\n", 0o600));
        assert_eq!(mode.len(), 2, "{mode:?}");
        assert!(mode[0].contains("etc/hosts") && mode[0].contains("mode 644") && mode[0].contains("mode 600"));
        let harder = zstd::encode_all(zstd::decode_all(one.as_slice()).unwrap().as_slice(), 19).unwrap();
        assert_eq!(
            told(&one, &harder),
            ["x: the content is the same, its compression differs"]
        );
    }

    #[test]
    fn values_of_json_are_named_by_their_path() {
        assert_eq!(
            told(br#"{"a":[1,{"b":"c"}]}"#, br#"{"a":[1,{"b":"d"}]}"#),
            ["x: /a/1/b: \"c\" | \"d\""]
        );
        assert_eq!(
            told(br#"{"a":1}"#, br#"{"a": 1}"#),
            ["x: line 1: {\"a\":1} | {\"a\": 1}"]
        );
        let many = |n: u8| serde_json::to_vec(&vec![n; 9]).unwrap();
        assert_eq!(told(&many(1), &many(2)).last().unwrap(), "x: and 4 more");
    }

    /// This test itself is a program with sections.
    #[test]
    fn a_byte_of_a_program_is_named_by_its_section() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let text = b"a byte that stands nowhere else, 7f3c";
        let at = program.windows(text.len()).position(|part| part == text).unwrap();
        let mut other = program.clone();
        other[at] ^= 1;
        let told = told(&program, &other);
        assert!(
            told[0].contains(&format!("1 differ, first at offset {at:#x} (section .rodata)")),
            "{told:?}"
        );
        assert_eq!(section(&program[..0x40], at), None, "a program that was cut off");
        assert_eq!(section(b"\x7fELF\x02\x01", 0), None);
    }

    #[test]
    fn sizes_that_differ_are_told() {
        let told = told(b"\xff\x00\x01", b"\xff\x00\x01\x02");
        assert!(told[0].contains("3 | 4 bytes, first at offset 0x3"), "{told:?}");
    }
}
