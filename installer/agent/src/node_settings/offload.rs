//! Checksums of what goes through VXLAN: the kernel is to make them where a network card breaks them. flannel makes the link later than the
//! service starts, and anew after each boot.

use super::rivalry::{MOST_CHANGES, Rivalry};
use crate::netlink::ethtool::{self, TX_CHECKSUM};
use crate::netlink::route::{self, Link};
use std::io;
use std::time::Instant;

/// What is known of the link.
#[derive(Default)]
pub(super) struct Offload {
    /// The link on which it is off, by its number: one that is made anew has another.
    done: Option<u32>,
    /// When it was turned on again on that link.
    changes: Rivalry,
    /// Somebody else has it on, until it is off again.
    given_up: bool,
}

impl Offload {
    /// Turns it off on a link of this name that has it on. Returns what is to be said; an absent link is waited for.
    pub(super) fn keep_off(&mut self, name: &str, now: Instant) -> Option<String> {
        match self.look(name, now) {
            Ok(said) => said,
            Err(error) => Some(format!(
                "checksum offload of {name} cannot be turned off (this needs Linux 5.8): {error}"
            )),
        }
    }

    fn look(&mut self, name: &str, now: Instant) -> io::Result<Option<String>> {
        let Some(link) = vxlan(name)? else {
            *self = Self::default();
            return Ok(None);
        };
        let is_on = ethtool::has_feature(link.index, TX_CHECKSUM)?;
        if self.done != Some(link.index) {
            *self = Self::default();
        }
        if !is_on {
            if self.given_up {
                *self = Self::default();
            }
            self.done = Some(link.index);
        }
        if !is_on || self.given_up {
            return Ok(None);
        }
        if self.done.is_some() {
            self.changes.note(now);
            if self.changes.is_lost(now) {
                self.given_up = true;
                return Ok(Some(format!(
                    "something has turned checksum offload of {name} on again {MOST_CHANGES} times and keeps it: where the card breaks \
                     checksums, pods of other nodes are not reached"
                )));
            }
        }
        ethtool::set_feature(link.index, TX_CHECKSUM, false)?;
        if ethtool::has_feature(link.index, TX_CHECKSUM)? {
            return Err(io::Error::other(format!("the kernel keeps {TX_CHECKSUM} on")));
        }
        self.done = Some(link.index);
        Ok(Some(format!("checksum offload of {name} was on; turned it off")))
    }
}

/// Turns it on again, as it is on a new VXLAN link; an absent link, and one of another kind, is fine.
pub(super) fn restore(name: &str) -> io::Result<()> {
    match vxlan(name)? {
        Some(link) => ethtool::set_feature(link.index, TX_CHECKSUM, true),
        None => Ok(()),
    }
}

/// A link of another kind under the name is somebody else's.
fn vxlan(name: &str) -> io::Result<Option<Link>> {
    let links = route::links()?;
    Ok(links.into_iter().find(|link| link.name == name && link.kind == "vxlan"))
}
