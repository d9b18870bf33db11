//! The model of routes, and how a request finds its way in it. Pure.
//!
//! ```text
//! host ──> VirtualHost ──path──> Route ──> Backend, and the Policy: what is done to requests on their way
//!                └─ its certificate
//! ```
//!
//! It promises that a look-up costs no more than the logarithm of the number of plain paths, whatever a client sends, and that a table and
//! the next share what did not change. It says nothing of where routes come from, and must not depend on Kubernetes objects, a runtime or
//! sockets. S1 to S30 are rules of the Ingress API; the README of the program lists them with their tests.

#![forbid(unsafe_code)]

mod certificate;
mod current;
mod explain;
pub mod policy;
mod prefix;
mod route;
mod route_table;
pub mod shared;
mod table;
pub mod target;
mod virtual_host;

pub use certificate::Held;
pub use current::CurrentTable;
pub use explain::{Candidate, Explanation, HostStep, Winner};
pub use route::{Alternative, Host, Route};
pub use route_table::RouteTable;
pub use table::{Table, order};
pub use virtual_host::VirtualHost;
