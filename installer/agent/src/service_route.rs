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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::nft::tests::own_namespace;
    use std::time::Instant;

    #[test]
    fn the_route_comes_back_when_it_vanishes_and_goes_with_the_service() {
        own_namespace();
        let network: Cidr = "10.96.0.0/12".parse().unwrap();
        let stands = || route::has_link_route(&network, "lf0").unwrap();
        let wait_for = |what: &str, there: &dyn Fn() -> bool| {
            let deadline = Instant::now() + Duration::from_secs(10);
            while !there() {
                assert!(Instant::now() < deadline, "{what} did not happen");
                thread::sleep(Duration::from_millis(20));
            }
        };
        let ip = |args: &str| {
            let done = std::process::Command::new("ip").args(args.split(' ')).status().unwrap();
            assert!(done.success(), "ip {args}");
        };
        // A thread begins in the network namespace of the one that starts it.
        let service = thread::spawn(move || run(&network, "lf0"));
        ip("link add lf0 type bridge");
        ip("link set lf0 up");
        wait_for("the route", &stands);
        ip("route del 10.96.0.0/12");
        wait_for("the route's return", &stands);
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        service.join().unwrap().unwrap();
        assert!(!stands());
        remove(&network, "lf0").unwrap();
        remove(&network, "absent").unwrap();
    }
}
