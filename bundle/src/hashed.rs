//! A reader or writer that computes the SHA-256 of what passes through it.

use landfall_core::name::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read, Write};

/// Wraps a reader or a writer.
pub struct Hashed<T> {
    inner: T,
    hash: Sha256,
}

impl<T> Hashed<T> {
    /// Wraps it; nothing has passed yet.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }

    /// Returns the digest of what has passed so far.
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(self.hash.clone().finalize().into())
    }

    /// Returns what was wrapped, and the digest of all that passed.
    pub fn finish(self) -> (T, Digest) {
        let digest = self.digest();
        (self.inner, digest)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
