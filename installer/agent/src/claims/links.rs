//! Links, and the mounts of pods' network namespaces with all other mounts.

use super::paths::{NETNS_DIR, is_pod_netns};
use crate::agent::Agent;
use crate::netlink::route::{self, Link};
use crate::unmount;
use landfall_core::action::Claims;
use std::io;
use std::path::Path;

/// The bridge whose ports are pods' links.
const POD_BRIDGE: &str = "cni0";

/// Returns what makes a link of this name when the daemons make it; another kind under the same name is somebody else's.
fn kind_of(name: &str) -> Option<&'static str> {
    match name {
        POD_BRIDGE => Some("bridge"),
        _ if name.starts_with("flannel") => Some("vxlan"),
        _ => None,
    }
}

/// Takes away claimed links that still are what the daemons make, with the pods' ports of the bridge. Returns a line for each that stays.
pub fn remove(claims: &Claims) -> io::Result<Vec<String>> {
    let mut notes = Vec::new();
    if claims.links.is_empty() {
        return Ok(notes);
    }
    let links = route::links()?;
    for link in links.iter().filter(|l| claims.links.contains(&l.name)) {
        if let Some(why) = foreign(link, &links) {
            notes.push(format!("the link {} stays: {why}", link.name));
            continue;
        }
        if link.name == POD_BRIDGE {
            for port in links.iter().filter(|l| l.master == Some(link.index)) {
                route::delete_link(port.index)?;
            }
        }
        route::delete_link(link.index)?;
    }
    Ok(notes)
}

/// Returns why a link is not landfall's, or not its alone.
fn foreign(link: &Link, all: &[Link]) -> Option<String> {
    if kind_of(&link.name).is_some_and(|kind| kind != link.kind) {
        return Some(format!(
            "it is of the kind {:?}, not the one that landfall's daemons make",
            link.kind
        ));
    }
    let port = all.iter().find(|l| l.master == Some(link.index) && l.kind != "veth")?;
    Some(format!("{} is attached to it, which no pod is behind", port.name))
}

/// Takes away mounts under claimed directories. Under the directory of network namespaces, which all programs share, only pods'.
pub fn unmount(agent: &Agent, claims: &Claims) -> Vec<String> {
    unmount::take_away(
        |mount| {
            if let Ok(name) = mount.point.strip_prefix(NETNS_DIR) {
                return claims.paths.iter().any(|p| is_pod_netns(p)) && name.to_string_lossy().starts_with("cni-");
            }
            claims.mounts_under.iter().any(|dir| {
                // What is mounted at the directory itself is ours only when the directory is.
                dir != Path::new(NETNS_DIR)
                    && mount.point.starts_with(dir)
                    && (mount.point != *dir || claims.paths.contains(dir))
            })
        },
        &agent.children,
    )
}
