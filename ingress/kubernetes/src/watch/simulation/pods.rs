//! Pods as they are in truth.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Life of a pod: it starts, is ready, ends while it still serves, and is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Listens to nothing yet.
    Starting,
    /// Takes requests.
    Ready,
    /// Takes requests for a while, as pods do that wait in `preStop` or drain.
    Ending,
}

/// A pod.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) service: usize,
    pub(super) life: Life,
    /// When it became ready.
    pub(super) ready_since: Option<u64>,
    /// When the proxy was told that it is ready; none while it is told otherwise.
    pub(super) told: Option<u64>,
}

/// All pods that are there, by their last two bytes of address; addresses are never used twice.
#[derive(Debug, Default)]
pub(super) struct Pods {
    pub(super) all: BTreeMap<u16, Pod>,
    next: u16,
}

impl Pods {
    /// A pod that starts.
    pub(super) fn start(&mut self, service: usize) -> u16 {
        self.next += 1;
        let pod = Pod {
            service,
            life: Life::Starting,
            ready_since: None,
            told: None,
        };
        self.all.insert(self.next, pod);
        self.next
    }

    pub(super) fn of(&self, service: usize, life: Life) -> Vec<u16> {
        let fits = self
            .all
            .iter()
            .filter(|(_, pod)| pod.service == service && pod.life == life);
        fits.map(|(id, _)| *id).collect()
    }

    /// Whether a pod of this Service was ready, and known to be, ever since then.
    pub(super) fn usable_since(&self, service: usize, since: u64) -> Option<u16> {
        let mut all = self.all.iter();
        let fits = |pod: &Pod| {
            let both = pod.ready_since.max(pod.told);
            pod.service == service && pod.ready_since.is_some() && pod.told.is_some() && both.is_some_and(|t| t < since)
        };
        all.find(|(_, pod)| fits(pod)).map(|(id, _)| *id)
    }
}

pub(super) fn ip(pod: u16) -> IpAddr {
    let [high, low] = pod.to_be_bytes();
    [10, 0, high, low].into()
}

/// The pod of an address.
pub(super) fn pod_of(address: SocketAddr) -> u16 {
    match address.ip() {
        IpAddr::V4(v4) => u16::from_be_bytes([v4.octets()[2], v4.octets()[3]]),
        IpAddr::V6(_) => unreachable!("pods here have IPv4 addresses"),
    }
}
