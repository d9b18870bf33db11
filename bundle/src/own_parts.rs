//! landfall's own programs. A released `landfall` carries the agent, which it puts on nodes, and the ingress proxy, so that a bundle can be
//! made of it alone. The form: program, agent by gzip, as nodes get it, zstd frame of a tar with the proxy and what all three consist of, then a
//! trailer: SHA-256 of the agent's program, size and SHA-256 of each of the two parts, SHA-256 of these fields, and [`MAGIC`].

use crate::archive::append;
use crate::sbom::CrateGraph;
use crate::source::{AGENT_PACKAGE, INGRESS_PACKAGE, failed, io};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use landfall_core::bundle_index::NODE_ARCHITECTURE;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::Digest;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Last bytes of a program that carries parts; the digit is the version of the form.
const MAGIC: &[u8; 16] = b"landfall-parts-2";
const DIGEST_BYTES: usize = 32;
/// Size, in little-endian order, and digest.
const PART_BYTES: usize = 8 + DIGEST_BYTES;
const FIELDS_BYTES: usize = DIGEST_BYTES + 2 * PART_BYTES;
const TRAILER_BYTES: usize = FIELDS_BYTES + DIGEST_BYTES + MAGIC.len();
/// The tar has this member and the proxy.
const CRATES: &str = "crates.json";
/// zstd level of the carried program: it is made once for each release (zstd's own tables: 19 is a sixth smaller than 3 for programs).
const ZSTD_LEVEL: i32 = 19;

/// landfall's own programs for one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnParts {
    /// As Go names it.
    pub architecture: String,
    /// The program `landfall-agent`, which runs on nodes.
    pub agent: PathBuf,
    /// The program `landfall-ingress`.
    pub ingress: PathBuf,
    /// What they consist of, when the running program says it.
    pub crates: Option<CrateGraph>,
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
                "{text:?} does not have the form [ARCHITECTURE/]NAME=FILE, with {AGENT_PACKAGE} or {INGRESS_PACKAGE} as NAME"
            )
        };
        let (what, path) = text.split_once('=').ok_or_else(form)?;
        let (architecture, name) = what.split_once('/').unwrap_or((NODE_ARCHITECTURE, what));
        if ![AGENT_PACKAGE, INGRESS_PACKAGE].contains(&name) || machine(architecture).is_none() || path.is_empty() {
            return Err(form());
        }
        Ok(Self {
            architecture: architecture.to_owned(),
            name: name.to_owned(),
            path: PathBuf::from(path),
        })
    }
}

/// Writes `program` with the agent and the ingress proxy behind it, and the crates of all three. Parts that it carries already are replaced.
pub fn attach(
    program: &Path,
    agent_path: &Path,
    ingress: &Path,
    crates: &CrateGraph,
    output: &Path,
) -> Result<(), Diagnosis> {
    let mut whole = plain(program)?;
    let agent = std::fs::read(agent_path).map_err(io("read", agent_path))?;
    let proxy = std::fs::read(ingress).map_err(io("read", ingress))?;
    let pack = || -> std::io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?);
        append(&mut tar, INGRESS_PACKAGE, &proxy)?;
        append(&mut tar, CRATES, &serde_json::to_vec(crates)?)?;
        tar.into_inner()?.finish()
    };
    let frame = pack().map_err(io("compressed", ingress))?;
    let parts = [
        compress(&agent, Compression::best()).map_err(io("compressed", agent_path))?,
        frame,
    ];
    whole.extend(parts.iter().flatten());
    let mut fields = Digest::of(&agent).as_bytes().to_vec();
    for part in &parts {
        fields.extend_from_slice(&(part.len() as u64).to_le_bytes());
        fields.extend_from_slice(Digest::of(part).as_bytes());
    }
    whole.extend_from_slice(&fields);
    whole.extend_from_slice(Digest::of(&fields).as_bytes());
    whole.extend_from_slice(MAGIC);
    write_program(output, &whole)
}

/// Compresses an agent's program, the same bytes each time.
fn compress(program: &[u8], level: Compression) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(program)?;
    encoder.finish()
}

/// Returns the own programs for an architecture: those that are named, else what the running program carries. Writes into the cache.
pub fn own_parts(running: &Path, named: &[NamedPart], architecture: &str, cache: &Path) -> Result<OwnParts, Diagnosis> {
    let find = |name: &str| {
        let part = named
            .iter()
            .rfind(|part| part.architecture == architecture && part.name == name);
        part.map(|part| check_machine(part).map(|()| part.path.clone()))
            .transpose()
    };
    let native = architecture == NODE_ARCHITECTURE;
    let missing = |name: &str| {
        let missing = failed(format!("there is no {name} for {architecture}"))
            .next(format!("name the program: --part {architecture}/{name}=FILE"));
        match native {
            true => missing.saw(format!("{} carries none, as released programs do", running.display())),
            false => missing,
        }
    };
    let carried = Carried::of(running)?;
    let own = carried.as_ref().filter(|_| native);
    let part = |name: &str, bytes: fn(&Carried) -> &[u8]| match (find(name)?, own) {
        (Some(path), _) => Ok(path),
        (None, Some(own)) => keep(cache, name, bytes(own)),
        (None, None) => Err(missing(name)),
    };
    Ok(OwnParts {
        architecture: architecture.to_owned(),
        agent: part(AGENT_PACKAGE, |carried| &carried.agent)?,
        ingress: part(INGRESS_PACKAGE, |carried| &carried.ingress)?,
        crates: carried.map(|carried| carried.crates),
    })
}

/// The agent's program in memory, as nodes get it.
#[derive(Debug)]
pub struct AgentProgram {
    /// By gzip.
    packed: Vec<u8>,
    digest: Digest,
}

impl AgentProgram {
    /// Reads the agent that a program carries, if it carries one. Blocks on disk.
    pub fn carried(program: &Path) -> Result<Option<Self>, Diagnosis> {
        let read = || -> std::io::Result<_> {
            let file = File::open(program)?;
            let Some(Trailer { agent, digest, .. }) = trailer(&file)? else {
                return Ok(None);
            };
            Ok(Some(agent.read(&file)?.map(|packed| Self { packed, digest })))
        };
        let carried = read().map_err(unreadable(program))?;
        carried.map(|whole| whole.ok_or_else(|| damaged(program))).transpose()
    }

    /// Reads the agent's program from a file of its own, and compresses it. Blocks on disk.
    pub fn open(file: &Path) -> Result<Self, Diagnosis> {
        let read = || -> std::io::Result<_> {
            let bytes = std::fs::read(file)?;
            Ok(Self {
                packed: compress(&bytes, Compression::fast())?,
                digest: Digest::of(&bytes),
            })
        };
        read().map_err(unreadable(file))
    }

    /// The program by gzip.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// SHA-256 of the program.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns a reader of the unpacked program.
    pub fn plain(&self) -> impl Read {
        GzDecoder::new(self.packed.as_slice())
    }
}

/// A part of a file.
struct Part {
    start: u64,
    size_bytes: u64,
    digest: Digest,
}

impl Part {
    /// Reads it; `None` when it is damaged.
    fn read(&self, mut file: &File) -> std::io::Result<Option<Vec<u8>>> {
        file.seek(SeekFrom::Start(self.start))?;
        let mut bytes = Vec::new();
        file.take(self.size_bytes).read_to_end(&mut bytes)?;
        Ok(Some(bytes).filter(|bytes| Digest::of(bytes) == self.digest))
    }
}

/// Where the parts of a program are.
struct Trailer {
    /// The agent's program by gzip.
    agent: Part,
    /// SHA-256 of the agent's program.
    digest: Digest,
    frame: Part,
}

fn trailer(program: &File) -> std::io::Result<Option<Trailer>> {
    let Some(behind) = program.metadata()?.len().checked_sub(TRAILER_BYTES as u64) else {
        return Ok(None);
    };
    let mut bytes = [0; TRAILER_BYTES];
    program.read_exact_at(&mut bytes, behind)?;
    if !bytes.ends_with(MAGIC) {
        return Ok(None);
    }
    let digest = |at: usize| {
        let mut digest = [0; DIGEST_BYTES];
        digest.copy_from_slice(&bytes[at..at + DIGEST_BYTES]);
        Digest::from_bytes(digest)
    };
    if Digest::of(&bytes[..FIELDS_BYTES]) != digest(FIELDS_BYTES) {
        return Err(std::io::Error::other("the list of what it carries is damaged"));
    }
    let part = |at: usize, end: u64| {
        let mut size = [0; 8];
        size.copy_from_slice(&bytes[at..at + 8]);
        let size_bytes = u64::from_le_bytes(size);
        let start = end.checked_sub(size_bytes);
        let start = start.ok_or_else(|| std::io::Error::other("what it carries is longer than the file"))?;
        Ok::<_, std::io::Error>(Part {
            start,
            size_bytes,
            digest: digest(at + 8),
        })
    };
    let frame = part(DIGEST_BYTES + PART_BYTES, behind)?;
    let agent = part(DIGEST_BYTES, frame.start)?;
    Ok(Some(Trailer {
        agent,
        digest: digest(0),
        frame,
    }))
}

fn damaged(program: &Path) -> Diagnosis {
    Diagnosis::new(
        Code::FileUnreadable,
        format!("what {} carries is damaged", program.display()),
    )
    .next("get the program again from where it was released")
}

fn unreadable(program: &Path) -> impl FnOnce(std::io::Error) -> Diagnosis {
    move |error| {
        Diagnosis::new(
            Code::FileUnreadable,
            format!("the program {} cannot be read", program.display()),
        )
        .because(&error)
    }
}

/// The bytes of a program without what it carries.
fn plain(program: &Path) -> Result<Vec<u8>, Diagnosis> {
    let read = || {
        let file = File::open(program)?;
        let size_bytes = match trailer(&file)? {
            Some(Trailer { agent, .. }) => agent.start,
            None => file.metadata()?.len(),
        };
        let mut bytes = Vec::new();
        file.take(size_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(io("read", program))
}

/// What a program carries.
struct Carried {
    agent: Vec<u8>,
    ingress: Vec<u8>,
    crates: CrateGraph,
}

impl Carried {
    /// Reads what a program carries. Damage is an error. Blocks on disk.
    fn of(program: &Path) -> Result<Option<Self>, Diagnosis> {
        let file = File::open(program).map_err(io("read", program))?;
        let Some(Trailer { agent, frame, .. }) = trailer(&file).map_err(io("read", program))? else {
            return Ok(None);
        };
        let read = |part: &Part| {
            let bytes = part.read(&file).map_err(io("read", program))?;
            bytes.ok_or_else(|| damaged(program))
        };
        let (packed, frame) = (read(&agent)?, read(&frame)?);
        let mut agent = Vec::new();
        let unpacked = GzDecoder::new(packed.as_slice()).read_to_end(&mut agent);
        unpacked.map_err(|error| damaged(program).because(&error))?;
        let mut members = unpack(&frame).map_err(|error| damaged(program).because(&error))?;
        let mut member = |name: &str| members.remove(name).ok_or_else(|| damaged(program));
        let (ingress, crates) = (member(INGRESS_PACKAGE)?, member(CRATES)?);
        let crates = CrateGraph::parse(&crates).map_err(|error| damaged(program).because(&error))?;
        Ok(Some(Self { agent, ingress, crates }))
    }
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

    /// Writes the files of a release into a folder, and the released program.
    fn release(folder: &Path) {
        let at = |name: &str| folder.join(name);
        std::fs::write(at("program"), "a program").unwrap();
        std::fs::write(at("agent"), "an agent".repeat(50_000)).unwrap();
        std::fs::write(at("proxy"), "a proxy".repeat(1000)).unwrap();
        attach(&at("program"), &at("agent"), &at("proxy"), &crates(), &at("released")).unwrap();
    }

    #[test]
    fn a_program_gives_back_what_it_carries() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        release(folder.path());
        let read = |path: &Path| std::fs::read(path).unwrap();
        assert!(AgentProgram::carried(&at("program")).unwrap().is_none());
        assert!(AgentProgram::carried(&at("released")).unwrap().is_some());
        // Attaching again replaces.
        attach(&at("released"), &at("agent"), &at("proxy"), &crates(), &at("again")).unwrap();
        assert_eq!(read(&at("released")), read(&at("again")));
        let own = own_parts(&at("released"), &[], "amd64", &at("cache")).unwrap();
        assert_eq!(read(&own.agent), read(&at("agent")));
        assert_eq!(read(&own.ingress), read(&at("proxy")));
        assert_eq!(own.crates, Some(crates()));
    }

    #[test]
    fn nodes_get_the_agent_that_a_released_program_carries() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        release(folder.path());
        let agent = std::fs::read(at("agent")).unwrap();
        let carried = AgentProgram::carried(&at("released")).unwrap().unwrap();
        for (name, program) in [
            ("agent", AgentProgram::open(&at("agent")).unwrap()),
            ("released", carried),
        ] {
            let mut plain = Vec::new();
            program.plain().read_to_end(&mut plain).unwrap();
            assert!(plain == agent && program.packed().len() < agent.len(), "{name}");
            assert_eq!(program.digest(), Digest::of(&agent), "{name}");
        }
    }

    #[test]
    fn any_damage_of_what_is_carried_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [("program", "a program"), ("agent", "an agent"), ("proxy", "a proxy")] {
            std::fs::write(at(name), text).unwrap();
        }
        attach(&at("program"), &at("agent"), &at("proxy"), &crates(), &at("released")).unwrap();
        let good = std::fs::read(at("released")).unwrap();
        let (start, end) = ("a program".len(), good.len() - MAGIC.len());
        for byte in start..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 1;
            std::fs::write(at("bad"), &bad).unwrap();
            // A broken magic makes a program that carries nothing.
            assert_eq!(matches!(Carried::of(&at("bad")), Ok(None)), byte >= end, "byte {byte}");
            assert!(!matches!(Carried::of(&at("bad")), Ok(Some(_))), "byte {byte}");
            let Ok(Some(agent)) = AgentProgram::carried(&at("bad")) else {
                continue;
            };
            assert!(agent.digest() == Digest::of(b"an agent") || byte >= end, "byte {byte}");
            let mut plain = Vec::new();
            agent.plain().read_to_end(&mut plain).unwrap();
            let is_whole = plain == b"an agent";
            assert!(is_whole || byte >= end, "byte {byte}");
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
            named("arm64/landfall-agent=DIR/arm64"),
            named("arm64/landfall-ingress=DIR/arm64"),
        ];
        assert!(own_parts(&at("text"), &arm, "arm64", &at("cache")).is_ok());
        for wrong in [
            "arm64/landfall-agent=DIR/amd64",
            "arm64/landfall-agent=DIR/text",
            "arm64/landfall-agent=DIR/none",
        ] {
            assert!(
                own_parts(&at("text"), &[named(wrong)], "arm64", &at("cache")).is_err(),
                "{wrong}"
            );
        }
        let none = own_parts(&at("text"), &[], "amd64", &at("cache")).unwrap_err();
        assert_eq!(none.next, ["name the program: --part amd64/landfall-agent=FILE"]);
        for wrong in [
            "landfall-agent",
            "landfall=x",
            "landfall-agent=",
            "sparc/landfall-agent=x",
        ] {
            assert!(wrong.parse::<NamedPart>().is_err(), "{wrong}");
        }
    }
}
