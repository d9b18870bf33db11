//! The API's side of the proxy: what is followed of the Kubernetes API, and what is written back to it.
//!
//! ```text
//! API server ──watch, secret_watch──> landfall_ingress_translate ──Snapshot──> state ──its table──> CurrentTable, which requests read
//!      ^────────status: addresses of Ingresses; events; only by the holder of the lease ────────┘
//! ```
//!
//! It promises that an API server that is away costs freshness only: what was read stays in force. It must not depend on clients of the
//! proxy, their connections, or those to endpoints.

#![forbid(unsafe_code)]

mod client;
mod events;
mod lease;
mod limits;
pub mod secret_watch;
mod state;
pub mod status;
pub mod watch;

pub use client::client;
pub use state::State;
