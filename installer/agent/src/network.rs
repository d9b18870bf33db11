//! The machine's network as the agent uses it: the kernel's on a real machine, something that stands in for it where a directory
//! stands in for the machine.

use crate::mesh::{attempt, listen};
use crate::netlink::route::{self, Link};
use crate::probe;
use landfall_core::facts::{InterfaceAddress, PeerRoute, Route};
use landfall_core::mesh::{MeshListen, MeshListening, MeshSeen, MeshTry};
use landfall_core::verify::{ProbeResult, ProbeSpec};
use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// What the agent asks of a network.
pub trait Network: Debug + Send + Sync {
    /// Lists IPv4 addresses with their interfaces.
    fn addresses(&self) -> io::Result<Vec<InterfaceAddress>>;
    /// Lists links.
    fn links(&self) -> io::Result<Vec<Link>>;
    /// Lists IPv4 routes of the main table.
    fn routes(&self) -> io::Result<Vec<Route>>;
    /// Returns how a peer would be reached, if at all.
    fn route_to(&self, peer: IpAddr) -> io::Result<Option<PeerRoute>>;
    /// Connects to an address as seen from this machine. Blocks until the limit at most.
    fn connect(&self, target: SocketAddr, limit: Duration) -> io::Result<TcpStream>;
    /// Listens on an address of this machine.
    fn listen(&self, address: SocketAddr) -> io::Result<TcpListener>;
    /// Tries probes, see [`probe::run`].
    fn probe(&self, probes: &[ProbeSpec]) -> Vec<ProbeResult>;
    /// Opens listeners for peers, see [`listen::open`]; they close when the second of what is returned is dropped.
    fn mesh_listen(&self, asked: &MeshListen) -> io::Result<(MeshListening, Box<dyn Send>)>;
    /// Tries listeners of peers, see [`attempt::run`].
    fn mesh_try(&self, asked: &MeshTry) -> Vec<MeshSeen>;
}

/// The kernel's network.
#[derive(Debug, Clone, Copy)]
pub struct KernelNetwork;

impl Network for KernelNetwork {
    fn addresses(&self) -> io::Result<Vec<InterfaceAddress>> {
        route::addresses()
    }

    fn links(&self) -> io::Result<Vec<Link>> {
        route::links()
    }

    fn routes(&self) -> io::Result<Vec<Route>> {
        route::routes()
    }

    fn route_to(&self, peer: IpAddr) -> io::Result<Option<PeerRoute>> {
        route::route_to(peer)
    }

    fn connect(&self, target: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        TcpStream::connect_timeout(&target, limit)
    }

    fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(address)
    }

    fn probe(&self, probes: &[ProbeSpec]) -> Vec<ProbeResult> {
        probe::run(probes)
    }

    fn mesh_listen(&self, asked: &MeshListen) -> io::Result<(MeshListening, Box<dyn Send>)> {
        let (said, listeners) = listen::open(asked)?;
        Ok((said, Box::new(listeners)))
    }

    fn mesh_try(&self, asked: &MeshTry) -> Vec<MeshSeen> {
        attempt::run(asked)
    }
}
