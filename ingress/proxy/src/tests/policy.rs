//! Annotations through the whole data plane: client, proxy, endpoints on loopback. Tests are named after the annotations.

mod access;
mod answers;
mod certificates;
mod choice;
mod claims;
mod encoded;
mod foresee;
mod http2;
mod subrequests;
mod tls;
mod world;
