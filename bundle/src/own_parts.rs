//! landfall's own programs for a bundle. A released `landfall` carries the ingress proxy behind its own bytes, and what both consist of, so
//! that a bundle can be made of it alone; it goes to nodes without. The form: program, zstd frame of a tar, then a trailer of the frame's
//! SHA-256, its size and [`MAGIC`].

use crate::archive::append;
use crate::sbom::CrateGraph;
use crate::source::{failed, io};
use landfall_core::bundle_index::NODE_ARCHITECTURE;
use landfall_core::explain::Diagnosis;
use landfall_core::name::Digest;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Last bytes of a program that carries parts; the digit is the version of the form.
const MAGIC: &[u8; 16] = b"landfall-parts-1";
/// Digest, size in little-endian order, magic.
const TRAILER_BYTES: usize = 32 + 8 + 16;
/// Members of the tar.
const INGRESS: &str = "landfall-ingress";
const CRATES: &str = "crates.json";
/// zstd level of the carried program: it is made once for each release (zstd's own tables: 19 is a sixth smaller than 3 for programs).
const ZSTD_LEVEL: i32 = 19;

/// landfall's own programs for one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnParts {
    /// As Go names it.
    pub architecture: String,
    /// The program `landfall`, without parts: what runs on nodes.
    pub agent: PathBuf,
    /// The program `landfall-ingress`.
    pub ingress: PathBuf,
    /// What both consist of, when the running program says it.
    pub crates: Option<CrateGraph>,
}

/// What a program carries.
struct Carried {
    ingress: Vec<u8>,
    crates: CrateGraph,
}

/// A file that the user names for one of the own programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPart {
    architecture: String,
    name: String,
    path: PathBuf,
}

impl std::str::FromStr for NamedPart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            format!(
                "{text:?} does not have the form [ARCHITECTURE/]NAME=FILE, with landfall or landfall-ingress as NAME"
            )
        };
        let (what, path) = text.split_once('=').ok_or_else(form)?;
        let (architecture, name) = what.split_once('/').unwrap_or((NODE_ARCHITECTURE, what));
        if !["landfall", "landfall-ingress"].contains(&name) || machine(architecture).is_none() || path.is_empty() {
            return Err(form());
        }
        Ok(Self {
            architecture: architecture.to_owned(),
            name: name.to_owned(),
            path: PathBuf::from(path),
        })
    }
}

/// Writes `program` with the ingress proxy behind it, and the crates of both. Parts that it carries already are replaced.
pub fn attach(program: &Path, ingress: &Path, crates: &CrateGraph, output: &Path) -> Result<(), Diagnosis> {
    let mut whole = plain(program)?;
    let proxy = std::fs::read(ingress).map_err(io("read", ingress))?;
    let pack = || -> std::io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?);
        append(&mut tar, INGRESS, &proxy)?;
        append(&mut tar, CRATES, &serde_json::to_vec(crates)?)?;
        tar.into_inner()?.finish()
    };
    let frame = pack().map_err(io("compressed", ingress))?;
    whole.extend_from_slice(&frame);
    let digest = Digest::of(&frame).hex();
    let pairs = (0..32).filter_map(|at| u8::from_str_radix(&digest[2 * at..2 * at + 2], 16).ok());
    whole.extend(pairs);
    whole.extend_from_slice(&(frame.len() as u64).to_le_bytes());
    whole.extend_from_slice(MAGIC);
    write_program(output, &whole)
}

/// Returns the own programs for an architecture: those that are named, else the running program and what it carries. Writes into the cache.
pub fn own_parts(running: &Path, named: &[NamedPart], architecture: &str, cache: &Path) -> Result<OwnParts, Diagnosis> {
    let find = |name: &str| {
        let part = named
            .iter()
            .rfind(|part| part.architecture == architecture && part.name == name);
        part.map(|part| check_machine(part).map(|()| part.path.clone()))
            .transpose()
    };
    let missing = |name: &str| {
        failed(format!("there is no {name} for {architecture}"))
            .next(format!("name the program: --part {architecture}/{name}=FILE"))
    };
    let native = architecture == NODE_ARCHITECTURE;
    let (carried, crates) = match carried(running)? {
        Some(Carried { ingress, crates }) => (Some(ingress), Some(crates)),
        None => (None, None),
    };
    let agent = match find("landfall")? {
        Some(path) => path,
        None if native => agent(running, cache)?,
        None => return Err(missing("landfall")),
    };
    let ingress = match find("landfall-ingress")? {
        Some(path) => path,
        None if native => match carried {
            Some(bytes) => keep(cache, "landfall-ingress", &bytes)?,
            None => {
                return Err(missing("landfall-ingress")
                    .saw(format!("{} carries none, as released programs do", running.display())));
            }
        },
        None => return Err(missing("landfall-ingress")),
    };
    Ok(OwnParts {
        architecture: architecture.to_owned(),
        agent,
        ingress,
        crates,
    })
}

/// Returns the program that nodes get: the running one, or a copy in the cache when it carries parts.
pub fn agent(running: &Path, cache: &Path) -> Result<PathBuf, Diagnosis> {
    let carries = File::open(running).and_then(|file| trailer(&file));
    match carries.map_err(io("read", running))? {
        None => Ok(running.to_owned()),
        Some(_) => keep(cache, "landfall", &plain(running)?),
    }
}

/// Where the frame lies in a program.
struct Trailer {
    start: u64,
    size: u64,
    digest: [u8; 32],
}

fn trailer(program: &File) -> std::io::Result<Option<Trailer>> {
    let Some(behind) = program.metadata()?.len().checked_sub(TRAILER_BYTES as u64) else {
        return Ok(None);
    };
    let mut bytes = [0; TRAILER_BYTES];
    program.read_exact_at(&mut bytes, behind)?;
    if bytes[40..] != MAGIC[..] {
        return Ok(None);
    }
    let (mut digest, mut length) = ([0; 32], [0; 8]);
    digest.copy_from_slice(&bytes[..32]);
    length.copy_from_slice(&bytes[32..40]);
    let size = u64::from_le_bytes(length);
    match behind.checked_sub(size) {
        Some(start) => Ok(Some(Trailer { start, size, digest })),
        None => Err(std::io::Error::other("what it carries is longer than the file")),
    }
}

/// Returns how many bytes at the start of a program are the program itself, without what it carries. Blocks on disk.
pub fn program_length(program: &File) -> std::io::Result<u64> {
    match trailer(program)? {
        Some(trailer) => Ok(trailer.start),
        None => Ok(program.metadata()?.len()),
    }
}

fn damaged(program: &Path) -> Diagnosis {
    failed(format!("what {} carries is damaged", program.display()))
        .next("get the program again from where it was released")
}

/// The bytes of a program without what it carries.
fn plain(program: &Path) -> Result<Vec<u8>, Diagnosis> {
    let read = || {
        let file = File::open(program)?;
        let mut bytes = Vec::new();
        (&file).take(program_length(&file)?).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(io("read", program))
}

fn carried(program: &Path) -> Result<Option<Carried>, Diagnosis> {
    let mut file = File::open(program).map_err(io("read", program))?;
    let Some(trailer) = trailer(&file).map_err(io("read", program))? else {
        return Ok(None);
    };
    file.seek(SeekFrom::Start(trailer.start)).map_err(io("read", program))?;
    let mut frame = Vec::new();
    file.take(trailer.size)
        .read_to_end(&mut frame)
        .map_err(io("read", program))?;
    if Digest::of(&frame) != Digest::from_bytes(trailer.digest) {
        return Err(damaged(program));
    }
    let mut members = unpack(&frame).map_err(|error| damaged(program).because(&error))?;
    let mut member = |name: &str| members.remove(name).ok_or_else(|| damaged(program));
    let (ingress, crates) = (member(INGRESS)?, member(CRATES)?);
    let crates = CrateGraph::parse(&crates).map_err(|error| damaged(program).because(&error))?;
    Ok(Some(Carried { ingress, crates }))
}

fn unpack(frame: &[u8]) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(frame)?);
    let mut members = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        members.insert(name, bytes);
    }
    Ok(members)
}

/// Keeps a program in the cache under its digest.
fn keep(cache: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, Diagnosis> {
    let folder = cache.join("own");
    std::fs::create_dir_all(&folder).map_err(io("made", &folder))?;
    let path = folder.join(format!("{name}-{}", &Digest::of(bytes).hex()[..24]));
    if std::fs::read(&path).is_ok_and(|there| there == bytes) {
        return Ok(path);
    }
    write_program(&path, bytes)?;
    Ok(path)
}

/// Writes an executable file, by way of a temporary name beside it.
fn write_program(path: &Path, bytes: &[u8]) -> Result<(), Diagnosis> {
    use std::os::unix::fs::OpenOptionsExt;
    let part = path.with_extension(format!("part-{}", std::process::id()));
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o755)
        .open(&part);
    file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&part, path))
        .map_err(io("written", path))
}

/// `e_machine` of an architecture's programs (ELF specification, gABI 4.1: EM_X86_64, EM_AARCH64).
fn machine(architecture: &str) -> Option<u16> {
    match architecture {
        "amd64" => Some(62),
        "arm64" => Some(183),
        _ => None,
    }
}

/// A program for other machines would be noticed on the first node only.
fn check_machine(part: &NamedPart) -> Result<(), Diagnosis> {
    let mut head = Vec::new();
    File::open(&part.path)
        .and_then(|file| file.take(20).read_to_end(&mut head))
        .map_err(io("read", &part.path))?;
    let found = head.get(18..20).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    if head.starts_with(b"\x7fELF") && found == machine(&part.architecture) {
        return Ok(());
    }
    Err(failed(format!(
        "{} is no Linux program for {}",
        part.path.display(),
        part.architecture
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u16, text: &str) -> Vec<u8> {
        let mut bytes = b"\x7fELF".to_vec();
        bytes.resize(18, 0);
        bytes.extend(machine.to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    fn crates() -> CrateGraph {
        CrateGraph::parse(br#"{"packages": [], "resolve": {"nodes": []}}"#).unwrap()
    }

    #[test]
    fn a_program_gives_back_what_it_carries_and_goes_to_nodes_without() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("program"), "a program").unwrap();
        std::fs::write(at("proxy"), "a proxy".repeat(1000)).unwrap();
        attach(&at("program"), &at("proxy"), &crates(), &at("released")).unwrap();
        // Attaching again replaces.
        attach(&at("released"), &at("proxy"), &crates(), &at("released again")).unwrap();
        assert_eq!(
            std::fs::read(at("released")).unwrap(),
            std::fs::read(at("released again")).unwrap()
        );
        let cache = at("cache");
        let own = own_parts(&at("released"), &[], "amd64", &cache).unwrap();
        assert_eq!(std::fs::read(&own.agent).unwrap(), b"a program");
        assert_eq!(std::fs::read(&own.ingress).unwrap(), "a proxy".repeat(1000).as_bytes());
        assert_eq!(own.crates, Some(crates()));
        assert_eq!(agent(&at("program"), &cache).unwrap(), at("program"));
    }

    #[test]
    fn any_damage_of_what_is_carried_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("program"), "a program").unwrap();
        std::fs::write(at("proxy"), "a proxy").unwrap();
        attach(&at("program"), &at("proxy"), &crates(), &at("released")).unwrap();
        let good = std::fs::read(at("released")).unwrap();
        for byte in "a program".len()..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 1;
            std::fs::write(at("bad"), &bad).unwrap();
            // A broken magic makes a program that carries nothing.
            let found = carried(&at("bad"));
            assert!(
                !matches!(&found, Ok(Some(carried)) if carried.ingress == b"a proxy"),
                "byte {byte}"
            );
        }
    }

    #[test]
    fn programs_for_other_machines_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("amd64"), elf(62, "x")).unwrap();
        std::fs::write(at("arm64"), elf(183, "x")).unwrap();
        std::fs::write(at("text"), "#!/bin/sh").unwrap();
        let named = |text: &str| -> NamedPart {
            text.replace("DIR", &folder.path().display().to_string())
                .parse()
                .unwrap()
        };
        let arm = [
            named("arm64/landfall=DIR/arm64"),
            named("arm64/landfall-ingress=DIR/arm64"),
        ];
        assert!(own_parts(&at("text"), &arm, "arm64", &at("cache")).is_ok());
        for wrong in [
            "arm64/landfall=DIR/amd64",
            "arm64/landfall=DIR/text",
            "arm64/landfall=DIR/none",
        ] {
            assert!(
                own_parts(&at("text"), &[named(wrong)], "arm64", &at("cache")).is_err(),
                "{wrong}"
            );
        }
        let none = own_parts(&at("text"), &[], "amd64", &at("cache")).unwrap_err();
        assert_eq!(none.next, ["name the program: --part amd64/landfall-ingress=FILE"]);
        for wrong in ["landfall", "x=y", "landfall=", "sparc/landfall=x"] {
            assert!(wrong.parse::<NamedPart>().is_err(), "{wrong}");
        }
    }
}
