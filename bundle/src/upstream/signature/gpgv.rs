//! What gpgv takes and says.

use super::program::Ended;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use landfall_core::explain::{Code, Diagnosis};
use std::path::{Path, PathBuf};

const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";
/// More than any keyring has: Debian's own has 300 kB, runc's 30 kB.
const KEYRING_BYTES: u64 = 16 * 1024 * 1024;

/// Returns a keyring that gpgv reads. It reads no armored keys (seen with 2.2.40), and runc's keyring is a text with several of them: their
/// bytes, one behind the other, are a keyring (RFC 9580, 6.2 and 10.1).
pub(super) fn binary_keyring(file: &Path, folder: &Path) -> Result<PathBuf, Diagnosis> {
    let wrong = |what: String| Diagnosis::new(Code::FileUnreadable, what);
    let name = file.display();
    let size = std::fs::metadata(file).map(|data| data.len());
    let size = size.map_err(|error| wrong(format!("the keyring {name} cannot be read")).because(&error))?;
    if size > KEYRING_BYTES {
        return Err(wrong(format!(
            "{name} has {size} bytes, which is too much for a keyring"
        )));
    }
    let bytes = std::fs::read(file);
    let bytes = bytes.map_err(|error| wrong(format!("the keyring {name} cannot be read")).because(&error))?;
    let keys = match std::str::from_utf8(&bytes) {
        Ok(text) => unarmored(text).map_err(|why| wrong(format!("{name} is no OpenPGP keyring: {why}")))?,
        Err(_) => bytes,
    };
    let path = folder.join("keyring");
    std::fs::write(&path, keys)
        .map_err(|error| wrong(format!("{} cannot be written", path.display())).because(&error))?;
    Ok(path)
}

/// Returns the bytes of all armored blocks of a text.
fn unarmored(text: &str) -> Result<Vec<u8>, String> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some((_, block)) = rest.split_once(BEGIN) {
        let (block, after) = block.split_once(END).ok_or("a block of keys has no end")?;
        // Headers, then an empty line, then the keys; the checksum, which may be missing, begins with `=` (RFC 9580, 6.2).
        let lines = block.lines().map(str::trim).skip(1);
        let encoded: String = lines
            .skip_while(|line| !line.is_empty())
            .take_while(|line| !line.starts_with('='))
            .collect();
        let bytes = STANDARD
            .decode(encoded)
            .map_err(|error| format!("a block of keys is damaged: {error}"))?;
        keys.extend(bytes);
        rest = after;
    }
    if keys.is_empty() {
        return Err("there is no block of public keys in it".to_owned());
    }
    Ok(keys)
}

/// Judges by the status lines (doc/DETAILS of GnuPG), for the exit status is 0 also when the key has expired. Says why a signature is not good.
pub(super) fn verdict(ended: &Ended) -> Result<(), String> {
    let lines = || ended.stdout.lines().filter_map(|line| line.strip_prefix("[GNUPG:] "));
    let has = |word: &str| lines().any(|line| line.split(' ').next() == Some(word));
    for (word, why) in [
        ("BADSIG", "the file is another one than was signed"),
        ("EXPSIG", "the signature has expired"),
        (
            "EXPKEYSIG",
            "the key that made it has expired: get the publisher's newest keyring",
        ),
        ("REVKEYSIG", "the key that made it was revoked"),
        ("NO_PUBKEY", "it was made by a key that is not in the keyring"),
        ("ERRSIG", "gpgv cannot verify it"),
    ] {
        if has(word) {
            return Err(why.to_owned());
        }
    }
    if ended.success && has("GOODSIG") && has("VALIDSIG") {
        return Ok(());
    }
    Err(format!("gpgv does not verify it ({})", ended.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(success: bool, lines: &[&str]) -> Ended {
        Ended {
            success,
            status: "exit status: 0".to_owned(),
            stdout: lines.iter().map(|line| format!("[GNUPG:] {line}\n")).collect(),
            last_lines: vec![],
        }
    }

    #[test]
    fn only_a_good_signature_of_a_valid_key_is_good() {
        assert_eq!(
            verdict(&said(true, &["NEWSIG", "GOODSIG B2 a", "VALIDSIG D8 2026"])),
            Ok(())
        );
        for lines in [
            &["NEWSIG", "EXPKEYSIG B2 a", "VALIDSIG D8 2026"][..],
            &["NEWSIG", "REVKEYSIG B2 a", "VALIDSIG D8 2026"],
            &["NEWSIG", "EXPSIG B2 a", "VALIDSIG D8 2026"],
            &["NEWSIG", "GOODSIG B2 a", "VALIDSIG D8 2026", "NEWSIG", "BADSIG B3 a"],
            &["NEWSIG", "ERRSIG B2 22", "NO_PUBKEY B2"],
            &["GOODSIGX B2 a", "VALIDSIG D8"],
            &[],
        ] {
            assert!(verdict(&said(true, lines)).is_err(), "{lines:?}");
        }
        assert!(verdict(&said(false, &["GOODSIG B2 a", "VALIDSIG D8"])).is_err());
    }

    #[test]
    fn all_blocks_of_an_armored_keyring_are_taken() {
        let block = |keys: &str, checksum: &str| {
            format!(
                "pub  ed25519\n\n{BEGIN}\nComment: github=x\n\n{}\n{checksum}{END}\n",
                STANDARD.encode(keys)
            )
        };
        let text = block("first key", "=abcd\n") + &block("second", "");
        assert_eq!(unarmored(&text).unwrap(), b"first keysecond");
        assert!(unarmored("<html>").unwrap_err().contains("no block"));
        assert!(unarmored(&text.replace(END, "")).unwrap_err().contains("no end"));
        assert!(
            unarmored(&text.replace("Zmly", "!!!!"))
                .unwrap_err()
                .contains("damaged")
        );
    }
}
