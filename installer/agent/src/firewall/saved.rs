//! Rules that somebody saved while landfall's were among them: `nft list ruleset > /etc/nftables.conf`, `netfilter-persistent save`. landfall
//! itself writes none: the settings service puts its rules right at each boot. They are taken out by the mark, and every other byte stays.

use crate::error::Result;
use crate::files::{self, Meta};
use crate::host::Host;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Files of which systems and packages restore rules at the boot: nftables' unit (Debian, Fedora), iptables-persistent, iptables-services, Arch,
/// and what manuals of Debian and Ubuntu name.
const FILES: [&str; 8] = [
    "/etc/nftables.conf",
    "/etc/sysconfig/nftables.conf",
    "/etc/iptables/rules.v4",
    "/etc/iptables/iptables.rules",
    "/etc/sysconfig/iptables",
    "/etc/iptables.rules",
    "/etc/iptables.up.rules",
    "/var/lib/iptables/rules-save",
];
/// Directories of files that these include.
const DIRECTORIES: [&str; 2] = ["/etc/nftables", "/etc/nftables.d"];
/// Longest file that is read, in bytes.
const LONGEST: u64 = 16 * 1024 * 1024;

fn candidates(host: &Host) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = FILES.iter().map(PathBuf::from).collect();
    for directory in DIRECTORIES {
        let Ok(entries) = std::fs::read_dir(host.at(directory)) else {
            continue;
        };
        let names = entries
            .flatten()
            .map(|entry| PathBuf::from(directory).join(entry.file_name()));
        paths.extend(names.filter(|path| path.extension().is_some_and(|end| end == "nft" || end == "conf")));
    }
    paths.sort();
    paths
}

/// Says whether a line is a rule with the mark, as `nft list` and `iptables-save` write it: one rule, on a line of its own.
fn is_ours(line: &[u8], mark: &str) -> bool {
    let line = String::from_utf8_lossy(line);
    let line = line.trim();
    let marked = [' ', '"'].map(|end| format!("comment \"{mark}{end}"));
    let of_nft =
        || line.ends_with('"') && !line.contains(';') && line.matches('{').count() == line.matches('}').count();
    let of_iptables = || line.starts_with("-A ") || line.starts_with('[') && line.contains("] -A ");
    marked.iter().any(|mark| line.contains(mark)) && !line.starts_with('#') && (of_iptables() || of_nft())
}

/// Returns the file without the rules that bear the mark, when it has any.
fn cleaned(host: &Host, path: &PathBuf, mark: &str) -> Result<Option<(PathBuf, Vec<u8>)>> {
    // The file itself, when a link leads to it.
    let Ok(real) = std::fs::canonicalize(host.at(path)) else {
        return Ok(None);
    };
    if std::fs::metadata(&real).map_or(0, |meta| meta.len()) > LONGEST {
        return Ok(None);
    }
    let old = files::read(&real)?.unwrap_or_default();
    let kept = old
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| !is_ours(line, mark));
    let new: Vec<u8> = kept.flatten().copied().collect();
    Ok((new != old).then_some((real, new)))
}

/// Names the files that hold rules with the mark, one line each.
pub(super) fn holding(host: &Host, mark: &str) -> Vec<String> {
    let holds = |path: &PathBuf| matches!(cleaned(host, path, mark), Ok(Some(_)));
    let paths = candidates(host).into_iter().filter(holds);
    paths
        .map(|path| format!("{} holds saved rules", path.display()))
        .collect()
}

/// Takes the rules with the mark out of all files. Returns a line for each file in which they stay.
pub(super) fn clean(host: &Host, mark: &str) -> Vec<String> {
    let clean = |path: &PathBuf| -> Result<()> {
        let Some((real, new)) = cleaned(host, path, mark)? else {
            return Ok(());
        };
        let meta = std::fs::metadata(&real).map_or(Meta::mode(0o644), |meta| Meta {
            mode: meta.mode() & 0o7777,
            owner: Some((meta.uid(), meta.gid())),
        });
        files::write_bytes(&real, meta, &new)
    };
    let failed = |path: PathBuf| {
        let error = clean(&path).err()?;
        Some(format!(
            "rules marked `{mark}` stay in {}: {}",
            path.display(),
            error.line()
        ))
    };
    candidates(host).into_iter().filter_map(failed).collect()
}
