//! The listeners from which nodes take blobs of each other.

use crate::random;
use crate::session::NodeSession;
use landfall_core::explain::Diagnosis;
use landfall_core::name::NodeName;
use landfall_core::relay::{RelayListen, RelayListening, RelaySource};
use landfall_core::wire::Request;
use landfall_core::wire::mux::Stream;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Random bytes of the token that listeners ask for.
const TOKEN_BYTES: usize = 16;

/// All listeners of a push. They close when this is dropped.
pub struct Relay {
    token: String,
    open: Mutex<BTreeMap<NodeName, (RelaySource, Stream)>>,
}

impl Relay {
    /// Makes the token of the run. Opens nothing yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            token: random::hex::<TOKEN_BYTES>()?,
            open: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, (RelaySource, Stream)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the listener of a node. An error means that the node feeds nobody.
    pub fn open(&self, session: &NodeSession, address: IpAddr) -> Result<(), Diagnosis> {
        let request = Request::RelayListen(RelayListen {
            address,
            token: self.token.clone(),
        });
        let (RelayListening { key }, stream) = session.hold(&request)?;
        let source = RelaySource {
            node: session.name().clone(),
            address,
            key,
            token: self.token.clone(),
        };
        self.lock().insert(session.name().clone(), (source, stream));
        Ok(())
    }

    /// Returns what a node must know to take blobs from `name`.
    pub fn source(&self, name: &NodeName) -> Option<RelaySource> {
        self.lock().get(name).map(|(source, _)| source.clone())
    }
}
