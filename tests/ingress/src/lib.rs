//! Black-box tests of the ingress proxy: the real program, a fake API server, real endpoints and clients on loopback.
//!
//! [`fake_api`], [`objects`], [`program`], [`endpoint`] and [`client`] are the parts; the crate's README says which proof uses which.

pub mod bench;
pub mod client;
pub mod conformance;
pub mod endpoint;
pub mod fake_api;
pub mod needs;
pub mod objects;
pub mod peers;
pub mod program;
pub mod soak;
pub mod websocket;

pub use fake_api::FakeApi;
