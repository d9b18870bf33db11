//! Files that others write, hostile: known_hosts here, `ssh_config` in [`crate::config`]. `tests/fuzz/harness.rs` describes how.

use crate::known_hosts::{KnownHosts, Verdict};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;
pub(crate) use harness::fuzz;

/// An Ed25519 key as servers present it (RFC 8709).
fn key() -> Vec<u8> {
    let field = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    [field(b"ssh-ed25519"), field(&[7; 32])].concat()
}

fn read(text: &str) -> KnownHosts {
    KnownHosts::parse(Path::new("known_hosts"), text)
}

#[test]
fn known_hosts_of_any_bytes_accept_no_key_that_they_do_not_hold() {
    let (key, encoded) = (key(), STANDARD.encode(key()));
    fuzz("known-hosts", |input| {
        let text = String::from_utf8_lossy(input);
        let known = read(&text);
        for (host, port) in [("cp-1", 22), ("cp-1", 2222), ("10.0.0.1", 22), ("CP-1.ship", 22)] {
            if known.check(host, port, &key, 0) == Verdict::Known {
                assert!(text.contains(&encoded), "{text:?} accepts a key that is not in it");
            }
            // What a server presents is as hostile: here it is the file itself.
            let presented = known.check(host, port, input, 0);
            assert_ne!(presented, Verdict::Known, "{text:?}");
            let order = known.prefer(host, port, &["rsa-sha2-512", "ssh-ed25519"]);
            assert_eq!(order.len(), 2, "{text:?}");
        }
    });
}

#[test]
fn a_revoked_key_is_refused_whatever_else_is_in_known_hosts() {
    let (key, encoded) = (key(), STANDARD.encode(key()));
    fuzz("known-hosts", |input| {
        let text = String::from_utf8_lossy(input);
        let known = read(&format!("{text}\n@revoked * ssh-ed25519 {encoded}\n"));
        for (host, port) in [("cp-1", 22), ("cp-1", 2222)] {
            let verdict = known.check(host, port, &key, 0);
            let is_refused = matches!(
                verdict,
                Verdict::Revoked { .. } | Verdict::Unreadable { revokes: true, .. }
            );
            assert!(is_refused, "{text:?}: {verdict:?}");
        }
    });
}
