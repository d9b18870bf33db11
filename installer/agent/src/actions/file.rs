//! Directories, files and programs.

use super::Work;
use crate::error::{AgentError, Result, if_there, io_at};
use crate::files::{self, Meta};
use crate::host::Host;
use base64::Engine;
use landfall_core::action::{Content, Undo};
use landfall_core::name::Digest;
use std::fs::{File, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Returns `path` and those of its parents that are absent, deepest first.
pub fn absent_directories(host: &Host, path: &Path) -> Result<Vec<PathBuf>> {
    let mut absent = Vec::new();
    for at in path.ancestors() {
        let real = host.at(at);
        match if_there(std::fs::metadata(&real)).map_err(io_at("looking at", &real))? {
            Some(meta) if meta.is_dir() => break,
            Some(_) => {
                return Err(AgentError::Foreign {
                    path: at.to_owned(),
                    found: "a file where a directory is wanted",
                });
            }
            None => absent.push(at.to_owned()),
        }
    }
    Ok(absent)
}

/// Makes a directory; parents that are absent get the usual mode. When it returns, their names are on disk.
pub fn make_directory(host: &Host, path: &Path, mode: u32) -> Result<()> {
    for at in absent_directories(host, path)?.iter().rev() {
        let real = host.at(at);
        match std::fs::create_dir(&real) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(io_at("creating", &real)(error));
            }
            _ => {}
        }
        let mode = if at == path { mode } else { 0o755 };
        std::fs::set_permissions(&real, Permissions::from_mode(mode)).map_err(io_at("setting the mode of", &real))?;
        files::sync_parent(&real)?;
    }
    Ok(())
}

/// Returns the recipe that puts a path back to what it is now.
pub fn restore_of(host: &Host, path: &Path) -> Result<Undo> {
    let prior = files::keep_prior(&host.at(path), &host.state("prior"))?;
    Ok(Undo::RestorePath {
        path: path.to_owned(),
        prior,
    })
}

/// Writes a file.
pub fn write_content(work: &Work, path: &Path, mode: u32, content: &Content) -> Result<()> {
    let real = work.agent.host.at(path);
    let meta = Meta::mode(mode);
    match content {
        Content::Text(text) => files::write_bytes(&real, meta, text.as_bytes()),
        Content::Generated(template) => files::write_bytes(&real, meta, generate(template)?.as_bytes()),
        Content::Secret(id) => {
            let secret = work.agent.secret(id);
            let secret =
                secret.ok_or_else(|| AgentError::Refused(format!("the secret {id} was not brought to this node")))?;
            files::write_bytes(&real, meta, secret.expose())
        }
    }
}

/// Replaces every `${random:BYTES}` by so many random bytes in base64.
fn generate(template: &str) -> Result<String> {
    const OPEN: &str = "${random:";
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(OPEN) {
        out.push_str(&rest[..at]);
        let tail = &rest[at + OPEN.len()..];
        let wrong = || AgentError::Refused("a ${random:BYTES} place holder is not well formed".to_owned());
        let end = tail.find('}').ok_or_else(wrong)?;
        let count: usize = tail[..end]
            .parse()
            .ok()
            .filter(|n| (1..=256).contains(n))
            .ok_or_else(wrong)?;
        let mut bytes = vec![0u8; count];
        let filled =
            rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).map_err(|errno| {
                AgentError::Kernel {
                    what: "asking for random bytes".to_owned(),
                    source: errno.into(),
                }
            })?;
        if filled != count {
            return Err(AgentError::Refused(
                "the kernel gave fewer random bytes than asked for".to_owned(),
            ));
        }
        out.push_str(&base64::engine::general_purpose::STANDARD.encode(&bytes));
        rest = &tail[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Unpacks a program from the blob store into place; it is renamed there only when its digest is right.
pub fn install(host: &Host, path: &Path, blob: &Digest, digest: &Digest, size_bytes: u64) -> Result<()> {
    let stored = host.blob(blob);
    let from = if_there(File::open(&stored))
        .map_err(io_at("opening", &stored))?
        .ok_or(AgentError::BlobMissing(*blob))?;
    let real = host.at(path);
    let installed = files::write(&real, Meta::mode(0o755), |file| {
        let mut to = BufWriter::with_capacity(256 * 1024, file);
        let found = landfall_bundle::decompress_binary(from, &mut to)?;
        to.flush().map_err(io_at("writing", path))?;
        let length = to.get_ref().metadata().map_err(io_at("looking at", path))?.len();
        if found != *digest || length != size_bytes {
            return Err(AgentError::WrongDigest {
                what: format!("the program {}", path.display()),
                digest: *digest,
            });
        }
        Ok(())
    });
    if installed.is_err() {
        forget_damaged(host, [blob])?;
    }
    installed
}

/// Removes stored blobs that are not what they were when they came, so that the next run brings them again.
pub fn forget_damaged<'a>(host: &Host, blobs: impl IntoIterator<Item = &'a Digest>) -> Result<()> {
    for blob in blobs {
        let stored = host.blob(blob);
        if stored.exists() && files::digest(&stored)? != *blob {
            files::remove_file(&stored)?;
            return Err(wrong_digest(*blob));
        }
    }
    Ok(())
}

/// The error of a stored blob that is not what it was when it came.
pub fn wrong_digest(digest: Digest) -> AgentError {
    AgentError::WrongDigest {
        what: "a blob in the node's store".to_owned(),
        digest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_holders_become_random_bytes() {
        let text = generate("a ${random:32} b ${random:1}").unwrap();
        let words: Vec<_> = text.split(' ').collect();
        assert_eq!((words[0], words[2], words[1].len(), words[3].len()), ("a", "b", 44, 4));
        assert_ne!(text, generate("a ${random:32} b ${random:1}").unwrap());
        for bad in ["${random:", "${random:x}", "${random:0}", "${random:999}"] {
            assert!(generate(bad).is_err(), "{bad}");
        }
    }
}
