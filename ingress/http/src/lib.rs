//! The rules of HTTP: how heads and bodies of HTTP/1 are read and written, what a path and a host are, which fields cross a hop.
//!
//! It promises one reading of every input: what two readers could take for two things is refused, and what is written is made anew from
//! its parts. Everything here is pure and made for hostile input. It knows no routes, no sockets and no clock but the one of `Date`; it must
//! not depend on tokio, hyper or another crate of ours.

#![forbid(unsafe_code)]

pub mod chunked;
pub mod claims;
pub mod date;
pub mod fields;
#[cfg(test)]
mod fuzz;
pub mod host;
pub mod lines;
pub mod network;
pub mod path;
pub mod protocol;
pub mod request;
pub mod response;
