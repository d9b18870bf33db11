//! Port forwarding: a port on the operator's loopback that leads to an address as seen from a node, for clients that need a socket.

use crate::session::NodeSession;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::wire::mux::Stream;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// A forwarded port. It is closed when this is dropped.
pub struct Forward {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Forward {
    /// Listens on a port that the kernel chooses; every connection becomes a tunnel from `session`'s node to `target`.
    pub fn open(session: &Arc<NodeSession>, target: &str) -> Result<Self, Diagnosis> {
        let failed = |error: std::io::Error| {
            Diagnosis::new(Code::Internal, "no port on this machine's loopback can be opened").because(&error)
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, session, target) = (Arc::clone(&stop), Arc::clone(session), target.to_owned());
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (session, target) = (Arc::clone(&session), target.clone());
                // When the tunnel cannot be opened, the connection is closed and the client reports the error.
                thread::spawn(move || {
                    if let Ok((stream, reader)) = session.tunnel(&target) {
                        relay(connection, stream, reader);
                    }
                });
            }
        });
        Ok(Self { address, stop })
    }

    /// Returns the address to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listening thread, which then sees the flag.
        let _ = TcpStream::connect(self.address);
    }
}

fn relay(connection: TcpStream, mut stream: Stream, mut reader: impl Read + Send) {
    let Ok(mut from_client) = connection.try_clone() else {
        return;
    };
    let mut to_client = connection;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(read) = from_client.read(&mut buffer) {
                if read == 0 || stream.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
            let _ = stream.finish();
            // The stream's handle must outlive its reader: it waits here until the node's side has ended too.
            while matches!(from_client.read(&mut buffer), Ok(read) if read > 0) {}
        });
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read) = reader.read(&mut buffer) {
            if read == 0 || to_client.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
}
