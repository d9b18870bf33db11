//! Opens a bundle on the operator. A bundle has one form: every header, every padding byte, every member and their order follow from the
//! index. What differs is named and refused. Blobs themselves are not read by opening.

use crate::archive::{all_images, checksums, image_index, member_header};
use crate::blob::{BlobReader, DamagedChunk};
use crate::minisign::Signature;
use crate::trust::{Judged, judge};
use crate::{BLOB_FOLDER, BundleError, CHECKSUMS_NAME, INDEX_NAME, OCI_LAYOUT, ROLE_NAME, SIGNATURE_NAME};
use landfall_core::bundle_index::{BlobEntry, BundleIndex, BundleRole, IndexError};
use landfall_core::explain::Diagnosis;
use landfall_core::name::Digest;
use landfall_core::trust::{KeyId, TrustOffer};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An index is some tens of kilobytes; anything above this is no bundle of ours.
const MAX_INDEX_BYTES: u64 = 64 * 1024 * 1024;
/// Block of a tar.
const BLOCK: u64 = 512;

/// State of a bundle whose signature was not checked: it can be looked at, and nothing of it can be sent or run.
#[derive(Debug)]
pub struct Unverified(());

/// State of a bundle that a trusted key has signed, or that the operator lets pass unsigned.
#[derive(Debug)]
pub struct Verified {
    signer: Option<KeyId>,
    offer: TrustOffer,
}

/// An open bundle. Blobs can be read from many threads at once, once it is [`Verified`].
#[derive(Debug)]
pub struct Bundle<S> {
    path: PathBuf,
    file: Arc<File>,
    index: BundleIndex,
    index_text: Vec<u8>,
    signature: Option<String>,
    /// The role whose blobs alone are in the file; `None` when all are.
    role: Option<BundleRole>,
    places: BTreeMap<Digest, u64>,
    state: S,
}

impl Bundle<Unverified> {
    /// Opens a bundle and checks that it has the one form that its index allows, up to the content of blobs.
    pub fn open(path: &Path) -> Result<Self, Diagnosis> {
        Ok(Self::open_file(path)?)
    }

    fn open_file(path: &Path) -> Result<Self, BundleError> {
        let mut scan = Scan::open(path)?;
        let index_text = scan.small(INDEX_NAME)?;
        let layout = scan.small("oci-layout")?;
        let images = scan.small("index.json")?;
        let listed = scan.small(CHECKSUMS_NAME)?;
        let written = checksums(&[
            (INDEX_NAME, &index_text),
            ("oci-layout", &layout),
            ("index.json", &images),
        ]);
        if listed != written.as_bytes() {
            let lines = String::from_utf8_lossy(&listed);
            let names = written.lines().filter(|line| !lines.lines().any(|l| l == *line));
            let names: Vec<&str> = names.filter_map(|line| line.split("  ").nth(1)).collect();
            let of = if names.is_empty() {
                CHECKSUMS_NAME.to_owned()
            } else {
                names.join(", ")
            };
            return Err(scan.malformed(format!("{of} and {CHECKSUMS_NAME} do not fit together")));
        }
        let index = BundleIndex::parse(&index_text).map_err(|error| match error {
            IndexError::Version(found) => BundleError::Version {
                path: path.to_owned(),
                found,
            },
            other => scan.malformed(format!("{INDEX_NAME}: {other}")),
        })?;
        if layout != OCI_LAYOUT {
            return Err(scan.malformed("oci-layout is not the one of image-spec 1.1".to_owned()));
        }
        if images != image_index(all_images(&index)) {
            return Err(scan.malformed("index.json lists other images than bundle.json".to_owned()));
        }
        let signature = match scan.next_name()?.as_deref() {
            Some(SIGNATURE_NAME) => Some(scan.signature()?),
            _ => None,
        };
        let role = match scan.next_name()?.as_deref() {
            Some(ROLE_NAME) => Some(scan.role()?),
            _ => None,
        };
        let mut places = BTreeMap::new();
        for blob in held(&index, role) {
            places.insert(blob.digest, scan.blob(blob.digest, blob.size_bytes)?);
        }
        scan.end()?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(scan.file),
            index,
            index_text,
            signature,
            role,
            places,
            state: Unverified(()),
        })
    }

    /// Checks the signature by the operator's keys. Starts no program and opens no connection.
    pub fn verify(self, offer: &TrustOffer) -> Result<Bundle<Verified>, Diagnosis> {
        let Judged { signer, .. } = judge(offer, None, &self.index_text, self.signature.as_deref())?;
        Ok(Bundle {
            path: self.path,
            file: self.file,
            index: self.index,
            index_text: self.index_text,
            signature: self.signature,
            role: self.role,
            places: self.places,
            state: Verified {
                signer,
                offer: offer.clone(),
            },
        })
    }
}

impl<S> Bundle<S> {
    /// Returns the file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what the bundle contains.
    pub fn index(&self) -> &BundleIndex {
        &self.index
    }

    /// Returns the index's own bytes, which are what is signed.
    pub fn index_text(&self) -> &[u8] {
        &self.index_text
    }

    /// Returns the signature's file, if the bundle is signed.
    pub fn signature(&self) -> Option<&str> {
        self.signature.as_deref()
    }

    /// Returns the digest of the index, which names the bundle's whole content.
    pub fn index_digest(&self) -> Digest {
        Digest::of(&self.index_text)
    }

    /// Returns the role whose blobs alone are in the file; `None` when all are.
    pub fn role(&self) -> Option<BundleRole> {
        self.role
    }

    pub(crate) fn reader(&self, digest: &Digest) -> Result<BlobReader, BundleError> {
        if let Some(role) = self.role
            && !self.places.contains_key(digest)
            && self.index.blob(digest).is_some()
        {
            let path = self.path.clone();
            return Err(BundleError::OtherRole { path, role, count: 1 });
        }
        let found = self.places.get(digest).zip(self.index.blob(digest));
        let (start, entry) = found.ok_or_else(|| BundleError::Blob {
            path: self.path.clone(),
            digest: *digest,
            what: "missing".to_owned(),
        })?;
        let file = Arc::clone(&self.file);
        Ok(BlobReader::new(self.path.clone(), file, *start, entry.clone()))
    }

    /// Reads the bill of materials, CycloneDX in JSON; `None` when the bundle has none. Blocks on disk.
    pub fn sbom(&self) -> Result<Option<Vec<u8>>, Diagnosis> {
        let Some(digest) = &self.index.sbom else {
            return Ok(None);
        };
        let mut text = Vec::new();
        let read = self.reader(digest)?.read_to_end(&mut text);
        read.map_err(|error| self.blob_fault(error))?;
        Ok(Some(text))
    }

    /// Reads and hashes every blob; names each damaged chunk. Blocks on disk; says `(done, total)` in bytes.
    pub fn check_blobs(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Vec<Diagnosis>> {
        self.check_some_blobs(self.places.keys(), progress)
    }

    /// Like [`Bundle::check_blobs`], for some of the blobs. Those that only another role needs are one fault together, where the file lacks
    /// them.
    pub fn check_some_blobs<'a>(
        &self,
        digests: impl Iterator<Item = &'a Digest> + Clone,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Vec<Diagnosis>> {
        let size = |digest| self.index.blob(digest).map_or(0, |blob| blob.size_bytes);
        let total = digests.clone().map(size).sum();
        let mut done = 0;
        let mut faults = Vec::new();
        let others = digests
            .clone()
            .filter(|digest| !self.places.contains_key(digest))
            .count();
        if let Some(role) = self.role.filter(|_| others > 0) {
            let (path, count) = (self.path.clone(), others);
            return Err(vec![BundleError::OtherRole { path, role, count }.into()]);
        }
        for digest in digests {
            let mut reader = match self.reader(digest) {
                Ok(reader) => reader,
                Err(fault) => {
                    faults.push(fault.into());
                    continue;
                }
            };
            loop {
                match reader.next_chunk() {
                    Ok(None) => break,
                    Ok(Some(bytes)) => {
                        done += bytes;
                        progress(done, total);
                    }
                    Err(error) => faults.push(self.blob_fault(error)),
                }
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Makes what went wrong in reading a blob readable for people.
    pub fn blob_fault(&self, source: io::Error) -> Diagnosis {
        let damaged = source.get_ref().and_then(|inner| inner.downcast_ref::<DamagedChunk>());
        match damaged.cloned() {
            Some(chunk) => BundleError::Chunk(chunk).into(),
            None => BundleError::Io {
                path: self.path.clone(),
                verb: "read",
                source,
            }
            .into(),
        }
    }
}

impl Bundle<Verified> {
    /// Opens one blob. Every chunk is checked before a byte of it is handed on.
    pub fn blob(&self, digest: &Digest) -> Result<BlobReader, Diagnosis> {
        Ok(self.reader(digest)?)
    }

    /// Returns the id of the key that signed it; `None` when the operator lets it pass unsigned.
    pub fn signer(&self) -> Option<&KeyId> {
        self.state.signer.as_ref()
    }

    /// Returns what the operator trusted when it was checked.
    pub fn offer(&self) -> &TrustOffer {
        &self.state.offer
    }
}

/// The blobs that are in the file of a bundle: all, or those for one role.
pub(crate) fn held(index: &BundleIndex, role: Option<BundleRole>) -> impl Iterator<Item = &BlobEntry> {
    let is_held = move |blob: &&BlobEntry| role.is_none_or(|role| index.is_for(role, &blob.digest));
    index.blobs.iter().filter(is_held)
}

/// Walks over the members of the file. Each must be the expected one, byte for byte.
pub(crate) struct Scan {
    path: PathBuf,
    pub(crate) file: File,
    length: u64,
    at: u64,
}

impl Scan {
    pub(crate) fn open(path: &Path) -> Result<Self, BundleError> {
        let unreadable = |source| BundleError::Io {
            path: path.to_owned(),
            verb: "read",
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
            at: 0,
        })
    }

    pub(crate) fn malformed(&self, why: String) -> BundleError {
        BundleError::Format {
            path: self.path.clone(),
            why,
        }
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), BundleError> {
        if at + buffer.len() as u64 > self.length {
            return Err(self.malformed(format!("it ends at byte {}, and more must follow", self.length)));
        }
        self.file.read_exact_at(buffer, at).map_err(|source| BundleError::Io {
            path: self.path.clone(),
            verb: "read",
            source,
        })
    }

    /// Name of the member here, as its header says; `None` at the end.
    pub(crate) fn next_name(&self) -> Result<Option<String>, BundleError> {
        let header = self.header()?;
        let name = String::from_utf8_lossy(&header.path_bytes()).into_owned();
        Ok(Some(name).filter(|name| !name.is_empty()))
    }

    fn header(&self) -> Result<tar::Header, BundleError> {
        let mut header = tar::Header::new_old();
        self.read(self.at, &mut header.as_mut_bytes()[..])?;
        Ok(header)
    }

    /// Goes behind the member `name` of `size` bytes, whose header and padding must be as they are written. Returns where its content is.
    pub(crate) fn member(&mut self, name: &str, size: u64) -> Result<u64, BundleError> {
        let found = self.header()?;
        let wanted = member_header(name, size).map_err(|error| self.malformed(error.to_string()))?;
        if found.as_bytes() != wanted.as_bytes() {
            let differs = found.as_bytes().iter().zip(wanted.as_bytes()).position(|(a, b)| a != b);
            let at = self.at + differs.unwrap_or(0) as u64;
            let seen = String::from_utf8_lossy(&found.path_bytes()).into_owned();
            return Err(self.malformed(format!(
                "the header of {name} ({size} bytes) must be at byte {}; there is that of {seen:?}, and byte {at} differs",
                self.at
            )));
        }
        let content = self.at + BLOCK;
        let end = content.checked_add(size).filter(|end| *end <= self.length);
        let end = end.ok_or_else(|| self.malformed(format!("it ends within {name}")))?;
        let mut padding = vec![0; (end.next_multiple_of(BLOCK) - end) as usize];
        self.read(end, &mut padding)?;
        if let Some(at) = padding.iter().position(|byte| *byte != 0) {
            return Err(self.malformed(format!("byte {} behind {name} is not zero", end + at as u64)));
        }
        self.at = end.next_multiple_of(BLOCK);
        Ok(content)
    }

    /// Reads a member that is no blob.
    pub(crate) fn small(&mut self, name: &str) -> Result<Vec<u8>, BundleError> {
        let size = self.header()?.entry_size();
        let size = size.map_err(|_| self.malformed(format!("the header of {name} at byte {} has no size", self.at)))?;
        if size > MAX_INDEX_BYTES {
            return Err(self.malformed(format!("{name} has {size} bytes")));
        }
        let at = self.member(name, size)?;
        let mut content = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        self.read(at, &mut content)?;
        Ok(content)
    }

    /// Reads the signature; it must be written in the one way in which [`Signature`] is.
    pub(crate) fn signature(&mut self) -> Result<String, BundleError> {
        let text = String::from_utf8_lossy(&self.small(SIGNATURE_NAME)?).into_owned();
        let read = Signature::parse(&text).map_err(|error| self.malformed(format!("{SIGNATURE_NAME}: {error}")))?;
        if read.to_text() != text {
            let why = format!("{SIGNATURE_NAME} is not in the form in which landfall writes it");
            return Err(self.malformed(why));
        }
        Ok(text)
    }

    /// Reads for which role the file was made. There is one way to write that.
    fn role(&mut self) -> Result<BundleRole, BundleError> {
        let text = self.small(ROLE_NAME)?;
        let named = std::str::from_utf8(&text).ok().and_then(|text| text.strip_suffix('\n'));
        let role = named.and_then(BundleRole::parse);
        role.ok_or_else(|| self.malformed(format!("{ROLE_NAME} names no role")))
    }

    fn blob(&mut self, digest: Digest, size: u64) -> Result<u64, BundleError> {
        let name = format!("{BLOB_FOLDER}{}", digest.hex());
        let Some(found) = self.next_name()? else {
            return Err(BundleError::Blob {
                path: self.path.clone(),
                digest,
                what: "missing".to_owned(),
            });
        };
        let found_size = self.header()?.entry_size().unwrap_or(0);
        if found == name && found_size != size {
            return Err(BundleError::Blob {
                path: self.path.clone(),
                digest,
                what: format!("of {found_size} bytes, the index says {size}"),
            });
        }
        self.member(&name, size)
    }

    /// A tar ends in two blocks of zeros, and a bundle ends with them.
    pub(crate) fn end(&mut self) -> Result<(), BundleError> {
        let mut end = [0; 2 * BLOCK as usize];
        self.read(self.at, &mut end)?;
        if let Some(at) = end.iter().position(|byte| *byte != 0) {
            let why = format!("byte {} is behind the last blob and not zero", self.at + at as u64);
            return Err(self.malformed(why));
        }
        let rest = self.length - self.at - 2 * BLOCK;
        if rest > 0 {
            return Err(self.malformed(format!("{rest} bytes follow its end")));
        }
        Ok(())
    }
}
