//! A large file in parts that fit on a stick, and the file out of its parts.

use crate::BundleError;
use crate::hashed::Hashed;
use crate::writer::{unreadable, unwritable, write_whole};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::Digest;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Name of the index beside the parts.
pub const INDEX_NAME: &str = "parts.json";
/// Version of the index that this build writes; a larger one is refused.
const VERSION: u32 = 1;
/// Most parts of a file: a mistyped size must not fill a disk with files.
const MAX_PARTS: u64 = 9999;
/// The index of so many parts has 1.5 MB.
const MAX_INDEX_BYTES: u64 = 4 * 1024 * 1024;

/// How much of a file is read or written at once.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Why a file cannot be split or joined.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The size of the parts is too small.
    #[error("{path} would have {count} parts, and {MAX_PARTS} is the most")]
    TooMany {
        /// The file.
        path: PathBuf,
        /// How many.
        count: u64,
    },
    /// The index of the parts is not usable.
    #[error("{path} is no index of parts: {why}")]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Parts are not as the index says.
    #[error("{} of {count} parts in {folder} cannot be used", faults.len())]
    Parts {
        /// The folder.
        folder: PathBuf,
        /// How many parts there are to be.
        count: usize,
        /// What is wrong with each that cannot be used.
        faults: Vec<PartFault>,
    },
    /// All parts are as the index says, and the whole is not.
    #[error("what the parts make has digest {found}, and {INDEX_NAME} says {wanted}")]
    Whole {
        /// Digest of the index.
        wanted: Digest,
        /// Digest of what came out.
        found: Digest,
    },
}

/// What is wrong with one part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartFault {
    /// It is not there.
    #[error("{0} is missing")]
    Missing(String),
    /// It is there and cannot be read.
    #[error("{0} cannot be read: {1}")]
    Unreadable(String, String),
    /// It holds what belongs in another part.
    #[error("{0} holds what belongs in {1}")]
    Swapped(String, String),
    /// It is shorter or longer.
    #[error("{name} has {found} bytes, and {wanted} belong in it")]
    Size {
        /// The part.
        name: String,
        /// Size in the index, in bytes.
        wanted: u64,
        /// Size of the file, in bytes.
        found: u64,
    },
    /// It has other bytes.
    #[error("{0} is damaged")]
    Damaged(String),
}

impl From<PartsError> for Diagnosis {
    fn from(error: PartsError) -> Self {
        let (code, next) = match &error {
            PartsError::Bundle(_) => (Code::FileUnreadable, Code::FileUnreadable.next()),
            PartsError::TooMany { .. } => (Code::Usage, "give a larger --size"),
            PartsError::Index { .. } => (Code::BundleFormat, "copy it again from where the file was split"),
            PartsError::Parts { .. } => (Code::BundleDigest, "copy the parts that are named again"),
            PartsError::Whole { .. } => (Code::BundleDigest, "split the file again, and copy all of it"),
        };
        let mut diagnosis = Self::new(code, "the file cannot be split or joined").because(&error);
        if let PartsError::Parts { faults, .. } = &error {
            for fault in faults {
                diagnosis = diagnosis.saw(fault.to_string());
            }
        }
        diagnosis.next(next)
    }
}

/// What the parts are, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Index {
    version: u32,
    size_bytes: u64,
    digest: Digest,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Part {
    name: String,
    size_bytes: u64,
    digest: Digest,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

/// Cuts a file into parts of `size_bytes` at most, in a folder that is made where it is not there. The index comes last. Blocks on disk.
/// Returns the number of parts.
pub fn split(input: &Path, size_bytes: u64, folder: &Path) -> Result<usize, PartsError> {
    let file = File::open(input).map_err(|error| unreadable(input, error))?;
    let length = file.metadata().map_err(|error| unreadable(input, error))?.len();
    let count = length.div_ceil(size_bytes.max(1));
    if count > MAX_PARTS {
        let path = input.to_owned();
        return Err(PartsError::TooMany { path, count });
    }
    std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, error))?;
    let stem = input.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut index = Index {
        version: VERSION,
        size_bytes: 0,
        digest: Digest::of(b""),
        parts: vec![],
    };
    let mut whole = Hashed::new(BufReader::with_capacity(BUFFER_BYTES, file));
    for number in 1..=count.max(1) {
        let name = format!("{stem}.{number:03}");
        let mut hashed = None;
        write_whole(&folder.join(&name), |part| {
            let mut out = Hashed::new(BufWriter::with_capacity(BUFFER_BYTES, part));
            let bytes = io::copy(&mut whole.by_ref().take(size_bytes), &mut out)?;
            out.flush()?;
            let (file, digest) = out.finish();
            file.get_ref().sync_all()?;
            hashed = Some((bytes, digest));
            Ok(())
        })?;
        let (bytes, digest) = hashed.unwrap_or((0, Digest::of(b"")));
        index.size_bytes += bytes;
        index.parts.push(Part {
            name,
            size_bytes: bytes,
            digest,
        });
    }
    index.digest = whole.digest();
    let text = serde_json::to_vec_pretty(&index).map_err(|error| BundleError::Stream(error.into()))?;
    write_whole(&folder.join(INDEX_NAME), |mut file| {
        file.write_all(&text)?;
        file.sync_all()
    })?;
    Ok(index.parts.len())
}

/// Makes the file of its parts. All parts are checked first, and all that cannot be used are named at once. Blocks on disk.
pub fn join(folder: &Path, output: &Path) -> Result<u64, PartsError> {
    let index = Index::read(folder)?;
    let faults: Vec<PartFault> = index
        .parts
        .iter()
        .filter_map(|part| fault(folder, part, &index))
        .collect();
    if !faults.is_empty() {
        return Err(PartsError::Parts {
            folder: folder.to_owned(),
            count: index.parts.len(),
            faults,
        });
    }
    let mut found = None;
    let written = write_whole(output, |file| {
        let mut out = Hashed::new(BufWriter::with_capacity(BUFFER_BYTES, file));
        for part in &index.parts {
            io::copy(&mut open(folder, part)?, &mut out)?;
        }
        out.flush()?;
        let (out, digest) = out.finish();
        if digest != index.digest {
            found = Some(digest);
            return Err(io::ErrorKind::InvalidData.into());
        }
        out.get_ref().sync_all()
    });
    match found {
        Some(found) => Err(PartsError::Whole {
            wanted: index.digest,
            found,
        }),
        None => Ok(written.map(|()| index.size_bytes)?),
    }
}

impl Index {
    fn read(folder: &Path) -> Result<Self, PartsError> {
        let path = folder.join(INDEX_NAME);
        let wrong = |why: String| PartsError::Index {
            path: path.clone(),
            why,
        };
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_INDEX_BYTES).read_to_end(&mut text))
            .map_err(|error| unreadable(&path, error))?;
        let syntax = |error: serde_json::Error| wrong(error.to_string());
        let VersionOnly { version } = serde_json::from_slice(&text).map_err(syntax)?;
        if version != VERSION {
            let why = format!("it has version {version}, this landfall reads {VERSION}");
            return Err(wrong(why));
        }
        let index: Self = serde_json::from_slice(&text).map_err(syntax)?;
        let mut sum = 0u64;
        for part in &index.parts {
            let is_plain = Path::new(&part.name)
                .file_name()
                .is_some_and(|name| name == part.name.as_str());
            if !is_plain {
                return Err(wrong(format!("{:?} is no name of a file beside it", part.name)));
            }
            sum = sum.saturating_add(part.size_bytes);
        }
        if sum != index.size_bytes {
            let why = format!(
                "its parts have {sum} bytes together, and the whole has {}",
                index.size_bytes
            );
            return Err(wrong(why));
        }
        Ok(index)
    }
}

fn open(folder: &Path, part: &Part) -> io::Result<BufReader<File>> {
    let file = File::open(folder.join(&part.name))?;
    Ok(BufReader::with_capacity(BUFFER_BYTES, file))
}

/// Reads a part and says what is wrong with it.
fn fault(folder: &Path, part: &Part, index: &Index) -> Option<PartFault> {
    let name = part.name.clone();
    let read = open(folder, part).and_then(|file| {
        let mut file = Hashed::new(file);
        Ok((io::copy(&mut file, &mut io::sink())?, file.digest()))
    });
    let (found, digest) = match read {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(PartFault::Missing(name)),
        Err(error) => return Some(PartFault::Unreadable(name, error.to_string())),
    };
    if digest == part.digest && found == part.size_bytes {
        return None;
    }
    if let Some(other) = index.parts.iter().find(|other| other.digest == digest) {
        return Some(PartFault::Swapped(name, other.name.clone()));
    }
    if found != part.size_bytes {
        let wanted = part.size_bytes;
        return Some(PartFault::Size { name, wanted, found });
    }
    Some(PartFault::Damaged(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of 10,000 bytes in parts of 3,000.
    fn parts() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let home = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..10_000u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let input = home.path().join("x.bundle");
        std::fs::write(&input, &bytes).unwrap();
        let folder = home.path().join("stick");
        assert_eq!(split(&input, 3000, &folder).unwrap(), 4);
        (home, folder, bytes)
    }

    #[test]
    fn parts_make_the_file_again() {
        let (home, folder, bytes) = parts();
        let sizes =
            ["001", "002", "003", "004"].map(|n| folder.join(format!("x.bundle.{n}")).metadata().unwrap().len());
        assert_eq!(sizes, [3000, 3000, 3000, 1000]);
        let out = home.path().join("y");
        assert_eq!(join(&folder, &out).unwrap(), 10_000);
        assert!(std::fs::read(&out).unwrap() == bytes);
        for size in [1, 9999, 10_000, 10_001, 4_000_000_000] {
            let folder = home.path().join(size.to_string());
            match split(&home.path().join("x.bundle"), size, &folder) {
                Err(PartsError::TooMany { count: 10_000, .. }) => assert_eq!((size, folder.exists()), (1, false)),
                parts => {
                    assert_eq!(parts.unwrap(), if size < 10_000 { 2 } else { 1 });
                    join(&folder, &out).unwrap();
                    assert!(std::fs::read(&out).unwrap() == bytes, "{size}");
                }
            }
        }
    }

    #[test]
    fn parts_that_cannot_be_used_are_named_all_at_once() {
        let (home, folder, _) = parts();
        let part = |n: usize| folder.join(format!("x.bundle.00{n}"));
        std::fs::rename(part(1), home.path().join("tmp")).unwrap();
        std::fs::rename(part(2), part(1)).unwrap();
        std::fs::rename(home.path().join("tmp"), part(2)).unwrap();
        std::fs::remove_file(part(3)).unwrap();
        std::fs::write(part(4), vec![0; 1000]).unwrap();
        let out = home.path().join("out");
        let Err(PartsError::Parts { faults, count: 4, .. }) = join(&folder, &out) else {
            panic!("it was joined");
        };
        let name = |n: usize| format!("x.bundle.00{n}");
        let wanted = [
            PartFault::Swapped(name(1), name(2)),
            PartFault::Swapped(name(2), name(1)),
            PartFault::Missing(name(3)),
            PartFault::Damaged(name(4)),
        ];
        assert_eq!(faults, wanted);
        std::fs::write(part(4), vec![0; 999]).unwrap();
        let error = Diagnosis::from(join(&folder, &out).unwrap_err());
        assert_eq!((error.code, error.saw.len()), (Code::BundleDigest, 4));
        assert_eq!(error.saw[3], "x.bundle.004 has 999 bytes, and 1000 belong in it");
        assert_eq!(
            std::fs::read_dir(home.path()).unwrap().count(),
            2,
            "nothing was written"
        );
    }

    #[test]
    fn a_flipped_byte_of_the_index_leads_to_no_other_file() {
        let (home, folder, bytes) = parts();
        let (path, out) = (folder.join(INDEX_NAME), home.path().join("out"));
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= (at % 127 + 1) as u8;
            std::fs::write(&path, &flipped).unwrap();
            match join(&folder, &out) {
                // White space, for instance.
                Ok(_) => assert!(std::fs::read(&out).unwrap() == bytes, "byte {at}"),
                Err(_) => assert!(!out.exists(), "byte {at}"),
            }
            let _ = std::fs::remove_file(&out);
        }
        std::fs::write(
            &path,
            String::from_utf8(whole).unwrap().replace("x.bundle.001", "../x.bundle"),
        )
        .unwrap();
        assert!(matches!(join(&folder, &out), Err(PartsError::Index { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(join(&folder, &out), Err(PartsError::Bundle(_))));
    }
}
