//! The route that makes ClusterIPs reachable on a node without a default route: the kernel looks for a route before kube-proxy's rules
//! see the packet. The route only has to exist; nothing is ever sent along it.

use crate::netlink::route;
use crate::signal;
use landfall_core::spec::Cidr;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How often the route is looked at: links that go down and up lose it, and a dump costs microseconds.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Keeps a route for `network` out of `interface` until SIGTERM, then removes it. An interface that is not there yet is waited for.
pub fn run(network: &Cidr, interface: &str) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let ending = Arc::new(AtomicBool::new(false));
    let (flag, waiter) = (Arc::clone(&ending), thread::current());
    thread::spawn(move || {
        signals.forever().next();
        flag.store(true, Ordering::SeqCst);
        waiter.unpark();
    });
    let mut ready = false;
    while !ending.load(Ordering::SeqCst) {
        match route::add_link_route(network, interface) {
            Ok(()) if !ready => {
                ready = true;
                signal::notify_ready();
            }
            Ok(()) => {}
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        thread::park_timeout(LOOK_EVERY);
    }
    remove(network, interface)
}

/// Removes the route that [`run`] made, and no other. For a service that was killed.
pub fn remove(network: &Cidr, interface: &str) -> io::Result<()> {
    match route::remove_link_route(network, interface) {
        Err(error) if is_passing(&error) => Ok(()),
        other => other,
    }
}

/// An interface that is absent or down.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NetworkDown) || error.raw_os_error() == Some(19)
}
