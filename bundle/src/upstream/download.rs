//! Files by digest: hashed as they come, gone on with where a connection broke, kept in the cache under their digest once they are whole.

use super::http::{Client, Patience, Response, Trouble, read_small};
use super::mirror::{Mirror, addresses};
use crate::source::{failed, io};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// More than any file here has (kube-apiserver's image, the largest, has less than 100 MB): a server must not fill the disk.
const LARGEST_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Time between two lines about one file.
const REPORT_EVERY: Duration = Duration::from_secs(3);

/// A place that has the file.
pub(super) struct Source<'a> {
    /// What people call it: an address.
    pub name: String,
    /// Asks for the bytes from this one on.
    pub open: Box<dyn Fn(u64) -> Result<Response, Trouble> + 'a>,
}

/// Fetches files into a folder.
pub(super) struct Downloads<'a> {
    pub folder: PathBuf,
    pub client: &'a Client<'a>,
}

impl Downloads<'_> {
    /// Returns the path of the file with this digest that is at `url`, or at its mirrors.
    pub fn fetch_url(&self, digest: &Digest, what: &str, mirrors: &[Mirror], url: &str) -> Result<PathBuf, Diagnosis> {
        let client = self.client;
        let source = |url: String| Source {
            name: url.clone(),
            open: Box::new(move |offset| {
                let range = format!("bytes={offset}-");
                let headers = [("range", range.as_str())];
                client.get(&url, if offset > 0 { &headers } else { &[] })
            }),
        };
        let sources: Vec<_> = addresses(mirrors, url).into_iter().map(source).collect();
        self.fetch(digest, None, what, &sources)
    }

    /// Returns the path of the file with this digest; fetches it from the first source that has it when it is not there. Blocks, and lets
    /// another process that fetches the same file finish first.
    pub fn fetch(
        &self,
        digest: &Digest,
        size: Option<u64>,
        what: &str,
        sources: &[Source<'_>],
    ) -> Result<PathBuf, Diagnosis> {
        let path = self.folder.join(digest.hex());
        let part = self.folder.join(format!("{}.part", digest.hex()));
        if whole(&path, digest)? {
            return Ok(path);
        }
        let options = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&part);
        let mut file = options.map_err(io("written", &part))?;
        file.lock().map_err(io("locked", &part))?;
        if whole(&path, digest)? {
            // Another process was quicker; its file had the name of ours.
            return Ok(path);
        }
        (self.client.say)(&format!("fetching {what}"));
        let mut refused = Vec::new();
        let mut code = Code::BundleBuild;
        for source in sources {
            let fetch = Fetch {
                client: self.client,
                what,
                digest,
                limit: size.unwrap_or(LARGEST_BYTES),
                source,
            };
            match fetch.run(&mut file, &part)? {
                Ended::Whole => {
                    file.sync_all().map_err(io("written", &part))?;
                    std::fs::rename(&part, &path).map_err(io("written", &path))?;
                    return Ok(path);
                }
                Ended::Without(line) => refused.push(line),
                Ended::Other(line) => {
                    code = Code::BundleDigest;
                    refused.push(line);
                }
            }
            if refused.len() < sources.len() {
                (self.client.say)(&format!(
                    "{what}: {}; asking the next server",
                    refused[refused.len() - 1]
                ));
            }
        }
        let what = format!("{what} cannot be fetched as it was locked");
        let mut diagnosis = refused.into_iter().fold(Diagnosis::new(code, what), Diagnosis::saw);
        if code == Code::BundleDigest {
            diagnosis = diagnosis
                .next("find out why the server's file changed, before you lock it anew by `landfall bundle lock`");
        }
        Err(diagnosis)
    }
}

/// Returns a small file whose digest is not known, from the first server that has it; else what each of them said.
pub(super) fn small_file(
    client: &Client<'_>,
    mirrors: &[Mirror],
    url: &str,
    limit: u64,
) -> Result<Vec<u8>, Vec<String>> {
    let mut refused = Vec::new();
    for url in addresses(mirrors, url) {
        let bytes = client.patiently(&url, || {
            let response = client.get(&url, &[])?;
            if response.status() != 200 {
                return Err(Trouble::lasting(format!("the server answers {}", response.status())));
            }
            read_small(response, limit)
        });
        match bytes {
            Ok(bytes) => return Ok(bytes),
            Err(trouble) => refused.push(format!("{url}: {}", trouble.text)),
        }
    }
    Err(refused)
}

/// Whether the file is there with its bytes; a damaged one is removed.
fn whole(path: &Path, digest: &Digest) -> Result<bool, Diagnosis> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io("read", path)(error)),
    };
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash).map_err(io("read", path))?;
    if Digest::from_bytes(hash.finalize().into()) == *digest {
        return Ok(true);
    }
    std::fs::remove_file(path).map_err(io("removed", path))?;
    Ok(false)
}

/// How a source did.
enum Ended {
    Whole,
    /// It does not give the file.
    Without(String),
    /// It gives another file.
    Other(String),
}

/// One file from one source.
struct Fetch<'a> {
    client: &'a Client<'a>,
    what: &'a str,
    digest: &'a Digest,
    limit: u64,
    source: &'a Source<'a>,
}

/// What is there of the file, and its digest so far.
struct Have {
    bytes: u64,
    hash: Sha256,
    /// Whether some of it comes from an earlier run or another source.
    inherited: bool,
}

impl Have {
    fn nothing() -> Self {
        Self {
            bytes: 0,
            hash: Sha256::new(),
            inherited: false,
        }
    }

    fn of(file: &mut File) -> std::io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        let mut hash = Sha256::new();
        let bytes = std::io::copy(file, &mut hash)?;
        Ok(Self {
            bytes,
            hash,
            inherited: bytes > 0,
        })
    }
}

impl Fetch<'_> {
    fn run(&self, file: &mut File, part: &Path) -> Result<Ended, Diagnosis> {
        let mut have = Have::of(file).map_err(io("read", part))?;
        let mut patience = Patience::default();
        loop {
            let before = have.bytes;
            match self.attempt(file, part, &mut have)? {
                Ok(()) => {
                    let found = Digest::from_bytes(have.hash.clone().finalize().into());
                    if found == *self.digest {
                        return Ok(Ended::Whole);
                    }
                    let inherited = have.inherited;
                    have = restart(file).map_err(io("written", part))?;
                    if !inherited {
                        return Ok(Ended::Other(format!(
                            "{} gives {found}, {} was locked",
                            self.source.name, self.digest
                        )));
                    }
                    (self.client.say)(&format!(
                        "{}: what was there of it is of no use; from the beginning",
                        self.what
                    ));
                }
                Err(trouble) => {
                    if have.bytes > before {
                        patience.restore();
                    }
                    if let Err(trouble) = patience.wait(self.what, trouble, self.client.say) {
                        return Ok(Ended::Without(format!("{}: {}", self.source.name, trouble.text)));
                    }
                }
            }
        }
    }

    /// Takes what one connection gives. The outer error is this machine's, the inner one the server's.
    fn attempt(&self, file: &mut File, part: &Path, have: &mut Have) -> Result<Result<(), Trouble>, Diagnosis> {
        let response = match (self.source.open)(have.bytes) {
            Ok(response) => response,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let status = response.status().as_u16();
        let range = response
            .headers()
            .get("content-range")
            .and_then(|value| value.to_str().ok());
        let goes_on = range.is_some_and(|range| range.starts_with(&format!("bytes {}-", have.bytes)));
        match status {
            200 if have.bytes > 0 => *have = restart(file).map_err(io("written", part))?,
            200 => {}
            206 if goes_on => {}
            // There is nothing behind what is there, or it is not what was asked for: the beginning is asked for next.
            206 | 416 if have.bytes > 0 => {
                *have = restart(file).map_err(io("written", part))?;
                return Ok(Err(Trouble::passing("the server does not go on where it stopped")));
            }
            _ => {
                return Ok(Err(Trouble::lasting(format!(
                    "the server answers {}",
                    response.status()
                ))));
            }
        }
        let rest = response.body().content_length();
        let total = rest.map(|rest| rest + have.bytes);
        if total.is_some_and(|total| total > self.limit) {
            return Ok(Err(Trouble::lasting(format!(
                "it has more than the {} bytes it should",
                self.limit
            ))));
        }
        file.seek(SeekFrom::Start(have.bytes)).map_err(io("written", part))?;
        self.take(response.into_body().into_reader(), total, file, part, have)
    }

    fn take(
        &self,
        mut body: impl Read,
        total: Option<u64>,
        file: &mut File,
        part: &Path,
        have: &mut Have,
    ) -> Result<Result<(), Trouble>, Diagnosis> {
        let mut buffer = vec![0; 256 * 1024];
        let mut said = Instant::now();
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) if total.is_some_and(|total| have.bytes < total) => {
                    return Ok(Err(Trouble::passing("the connection ended too early")));
                }
                Ok(0) => return Ok(Ok(())),
                Ok(count) => count,
                Err(error) => return Ok(Err(Trouble::of_io(&error))),
            };
            file.write_all(&buffer[..count]).map_err(io("written", part))?;
            have.hash.update(&buffer[..count]);
            have.bytes += count as u64;
            if have.bytes > self.limit {
                return Ok(Err(Trouble::lasting(format!(
                    "it has more than the {} bytes it should",
                    self.limit
                ))));
            }
            if said.elapsed() >= REPORT_EVERY {
                said = Instant::now();
                let of = total.map_or_else(String::new, |total| format!(" of {}", megabytes(total)));
                (self.client.say)(&format!("{}: {}{of}", self.what, megabytes(have.bytes)));
            }
        }
    }
}

fn restart(file: &mut File) -> std::io::Result<Have> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(Have::nothing())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Makes the folder of a cache's files.
pub(super) fn folder(cache: &Path) -> Result<PathBuf, Diagnosis> {
    let folder = cache.join("blobs");
    std::fs::create_dir_all(&folder).map_err(io("made", &folder))?;
    Ok(folder)
}

/// Takes a member out of a `.tar.gz`.
pub(super) fn member(archive: &Path, name: &str) -> Result<Vec<u8>, Diagnosis> {
    let unreadable = |error: std::io::Error| failed(format!("{} is no archive", archive.display())).because(&error);
    let file = File::open(archive).map_err(io("read", archive))?;
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
    for entry in tar.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?;
        let named = path.strip_prefix("./").unwrap_or(&path) == Path::new(name);
        if named && entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry
                .by_ref()
                .take(LARGEST_BYTES)
                .read_to_end(&mut bytes)
                .map_err(unreadable)?;
            return Ok(bytes);
        }
    }
    Err(failed(format!("{} holds no file {name}", archive.display())))
}
