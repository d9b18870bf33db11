//! Looking into every network namespace of the machine: a module of the kernel serves all of them.

use super::{nft, route};
use crate::{files, mounts, processes};
use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What stands in one network namespace.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// Its links.
    pub links: Vec<route::Link>,
    /// Its nftables.
    pub rules: nft::Ruleset,
    /// Tables of the old iptables and ip6tables that have been used in it.
    pub legacy_tables: Vec<String>,
    /// Whether IPVS has services in it.
    pub has_virtual_services: bool,
}

/// Returns what stands in each network namespace that a process is in or that is mounted. One that cannot be looked at is an error:
/// what is in it is not known. `with_rules` asks nftables too, for which the kernel may load modules.
pub fn all(with_rules: bool) -> io::Result<Vec<Content>> {
    let mut doors: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let of_processes = processes::all_pids()
        .into_iter()
        .map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
    let mounted = mounts::all().into_iter().filter(|m| m.kind == "nsfs").map(|m| m.point);
    for door in of_processes.chain(mounted) {
        // A process that ended meanwhile has no namespace.
        if let Ok(meta) = std::fs::metadata(&door) {
            doors.entry(meta.ino()).or_insert(door);
        }
    }
    let mut contents = vec![here(with_rules)?];
    let own = std::fs::metadata("/proc/thread-self/ns/net")?.ino();
    for door in doors
        .into_iter()
        .filter(|(inode, _)| *inode != own)
        .map(|(_, door)| door)
    {
        let Ok(door) = open(&door, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
            continue;
        };
        // The thread ends in the other namespace, and with it the way in.
        let look = std::thread::spawn(move || {
            match move_into_link_name_space(door.as_fd(), Some(LinkNameSpaceType::Network)) {
                Ok(()) => here(with_rules).map(Some),
                // A namespace of another kind (nsfs mounts all of them).
                Err(rustix::io::Errno::INVAL) => Ok(None),
                Err(errno) => Err(errno.into()),
            }
        });
        let content = look
            .join()
            .map_err(|_| io::Error::other("the look into a network namespace broke off"))??;
        contents.extend(content);
    }
    Ok(contents)
}

/// Returns what stands in this thread's network namespace; `with_rules` as for [`all`].
pub fn here(with_rules: bool) -> io::Result<Content> {
    let net = |name: &str| files::text(format!("/proc/thread-self/net/{name}"));
    let legacy = ["ip_tables_names", "ip6_tables_names"].map(net);
    Ok(Content {
        links: route::links()?,
        rules: if with_rules {
            nft::read()?
        } else {
            nft::Ruleset::default()
        },
        legacy_tables: legacy.iter().flat_map(|text| text.lines()).map(str::to_owned).collect(),
        // Three lines of heading.
        has_virtual_services: net("ip_vs").lines().count() > 3,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_other_network_namespaces_are_seen() {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            nft::tests::own_namespace();
            // A process of its own holds the namespace, as a container does.
            let mut holder = std::process::Command::new("sleep").arg("60").spawn().unwrap();
            let args = ["link", "add", "br-elsewhere", "type", "bridge"];
            assert!(std::process::Command::new("ip").args(args).status().unwrap().success());
            tell.send(()).unwrap();
            let _ = ended.recv();
            holder.kill().unwrap();
            holder.wait().unwrap();
        });
        told.recv().unwrap();
        let all = all(true).unwrap();
        let own = route::links().unwrap();
        drop(end);
        other.join().unwrap();
        let link = all.iter().flat_map(|n| &n.links).find(|l| l.name == "br-elsewhere");
        assert_eq!(link.map(|l| l.kind.as_str()), Some("bridge"));
        assert!(!own.iter().any(|l| l.name == "br-elsewhere"));
        assert!(all.len() >= 2);
    }
}
