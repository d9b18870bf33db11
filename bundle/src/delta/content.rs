//! What is inside a blob, and how the blob is made of it again to the byte.

use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// First bytes of a zstd frame (RFC 8878, 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// How a blob is made of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Form {
    /// The content is the blob.
    Stored,
    /// The blob is what landfall's own compression makes of a program.
    Packed,
    /// The same of a layer: whoever writes a layer's tar flushes at its end, and zstd ends a block there.
    PackedLayer,
}

/// Returns what is inside a blob: what a zstd frame decompresses to, or the bytes themselves. Holds all of it in memory.
pub(super) fn content(mut blob: impl Read) -> io::Result<Vec<u8>> {
    let mut stored = Vec::new();
    blob.read_to_end(&mut stored)?;
    if !stored.starts_with(&ZSTD_MAGIC) {
        return Ok(stored);
    }
    // Bytes that only begin like a frame are content themselves.
    Ok(zstd::decode_all(stored.as_slice()).unwrap_or(stored))
}

/// Returns the content of a blob and how the blob comes back from it. A blob that was compressed elsewhere, as the layers of public
/// registries are, does not come back to the byte, so it is its own content.
pub(crate) fn content_and_form(stored: Vec<u8>) -> io::Result<(Vec<u8>, Form)> {
    let inner = content(stored.as_slice())?;
    if inner == stored {
        return Ok((stored, Form::Stored));
    }
    for form in [Form::Packed, Form::PackedLayer] {
        if pack(&inner, form)? == stored {
            return Ok((inner, form));
        }
    }
    Ok((stored, Form::Stored))
}

/// Makes a blob of its content.
pub(super) fn pack(content: &[u8], form: Form) -> io::Result<Vec<u8>> {
    match form {
        Form::Stored => Ok(content.to_vec()),
        Form::Packed | Form::PackedLayer => {
            let mut encoder = zstd::Encoder::new(Vec::new(), crate::ZSTD_LEVEL)?;
            encoder.write_all(content)?;
            if form == Form::PackedLayer {
                encoder.flush()?;
            }
            encoder.finish()
        }
    }
}

/// Levels above this one saved little and took far longer; the README of this crate has the figures.
const PATCH_LEVEL: i32 = 12;

/// Compresses content by what it shares with `reference`.
pub(super) fn make_patch(content: &[u8], reference: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::with_ref_prefix(Vec::new(), PATCH_LEVEL, reference)?;
    encoder.set_pledged_src_size(Some(content.len() as u64))?;
    encoder.long_distance_matching(true)?;
    encoder.window_log(window_log(content.len() + reference.len()))?;
    encoder.write_all(content)?;
    encoder.finish()
}

/// Makes content of a patch. A frame that claims to be larger than `limit` bytes is an error.
pub(super) fn apply_patch(patch: impl Read, reference: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    let mut decoder = zstd::Decoder::with_ref_prefix(io::BufReader::new(patch), reference)?;
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    let mut content = Vec::new();
    decoder.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::other("the patch holds more than it says"));
    }
    Ok(content)
}

/// Largest window of zstd on 64-bit machines, 2 GiB (`ZSTD_WINDOWLOG_MAX_64`).
const MAX_WINDOW_LOG: u32 = 31;

/// The smallest window that reaches from the end of the content to the beginning of what it refers to. zstd's own smallest is 10.
fn window_log(bytes: usize) -> u32 {
    (usize::BITS - bytes.leading_zeros()).clamp(10, MAX_WINDOW_LOG)
}
