//! The `nft` that kube-proxy and flannel find first in the images of the recipe `source`. It starts one of two: nft 1.0.6 (Debian 12) and
//! nft 1.1.3 (Debian 13).
//!
//! ```text
//! argv ──> sets and maps in the kernel ──> does one have what older releases cannot read? ── no ──> nft 1.0.6 ┐
//!                                                                                    └──── yes ──> nft 1.1.3 ┴ exec
//! ```
//! Since 1.1.2, nft writes into every set and map of what kind its keys and data are, plain types too; a release before that ends by a
//! segmentation fault when it lists such a set, whoever made it (kubernetes/kubernetes#136786 has a table of readers and writers; tried for
//! 0.9.8, 1.0.6, 1.1.3 and 1.1.7 on 2026-12-01). So an older nft in an image crashes on a machine whose own nft has made sets and is newer, and
//! what a newer one makes crashes the machine's own nft where that is older. With this program an image makes sets in the older form as long as
//! no newer set is there.
//!
//! INVARIANT: nothing is decided ahead of a call: a machine may get a newer nft while its containers run.

#![forbid(unsafe_code)]

use landfall_netlink::{Body, Netlink, Subsystem, attribute};
use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// nft of Debian 12.
const OLDER: &str = "/usr/sbin/nft";
/// Where the image has Debian 13's nft and the libraries that it needs.
const NEWER: &str = "/opt/debian-13";

// linux/netfilter/nfnetlink.h, nf_tables.h
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETSET: u16 = 10;
/// Size of `struct nfgenmsg`.
const NFGENMSG_LEN: usize = 4;
const NFTA_SET_USERDATA: u16 = 13;

// Userdata, which the kernel keeps and does not read: of libnftnl (`udata.h`) and nft (`expression.h`).
const UDATA_SET_KEY_TYPEOF: u8 = 3;
const UDATA_SET_DATA_TYPEOF: u8 = 4;
const UDATA_SET_TYPEOF_EXPR: u8 = 0;
/// The kind of expression by which 1.1.2 and later say that a type was written as its name.
const EXPR_VALUE: u32 = 4;

fn main() -> ExitCode {
    let mut command = if has_newer_sets().unwrap_or(false) {
        newer()
    } else {
        Command::new(OLDER)
    };
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let error = command.args(arguments).exec();
    let program = command.get_program().to_string_lossy();
    // Nobody is there to hear of an output that is closed.
    let _ = writeln!(io::stderr(), "nft: {program} cannot be started: {error}");
    ExitCode::FAILURE
}

/// Debian 13's nft with its own loader and libraries: those of the image are older. It has no extensions of iptables, and must not load theirs.
fn newer() -> Command {
    let libraries = format!("{NEWER}/usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(format!("{libraries}/ld-linux-x86-64.so.2"));
    command
        .args(["--inhibit-cache", "--library-path", &libraries])
        .arg(format!("{NEWER}/usr/sbin/nft"))
        .env("XTABLES_LIBDIR", format!("{libraries}/xtables"));
    command
}

/// Says whether a set or map of any table has what releases before 1.1.2 cannot read. An error is one of the socket: nft itself has it too.
fn has_newer_sets() -> io::Result<bool> {
    let mut netlink = Netlink::open(Subsystem::Netfilter)?;
    // All families, version 0, no group.
    let sets = netlink.dump(
        NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETSET,
        &Body::new(&[0; NFGENMSG_LEN]),
    )?;
    let mut userdata = sets
        .iter()
        .filter_map(|set| attribute(set.body.get(NFGENMSG_LEN..)?, NFTA_SET_USERDATA));
    Ok(userdata.any(is_newer))
}

/// Says whether a set's userdata has an expression of the newer kind for its keys or its data.
fn is_newer(userdata: &[u8]) -> bool {
    let mut kinds = records(userdata).filter(|(kind, _)| [UDATA_SET_KEY_TYPEOF, UDATA_SET_DATA_TYPEOF].contains(kind));
    kinds.any(|(_, expression)| {
        let mut parts = records(expression).filter(|(kind, _)| *kind == UDATA_SET_TYPEOF_EXPR);
        parts.any(|(_, number)| {
            number
                .try_into()
                .is_ok_and(|bytes| u32::from_ne_bytes(bytes) == EXPR_VALUE)
        })
    })
}

/// Walks userdata: one byte each of kind and length, then as many bytes. Stops at the first record that is cut off.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, length) = (*bytes.first()?, usize::from(*bytes.get(1)?));
        let value = bytes.get(2..2 + length)?;
        bytes = &bytes[2 + length..];
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests;
