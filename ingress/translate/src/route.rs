//! The table of routes and how a request finds its way in it. Pure; [`build`] makes the table from objects of the API.
//!
//! S1 to S30 are rules of the comments in kubernetes/api networking/v1/types.go and discovery/v1/types.go, and of experience with other
//! proxies; the README of the program lists them with their tests.

mod assemble;
mod build;
mod census;
mod certificates;
mod class;
mod compile;
mod endpoints;
mod index;
mod kept;
mod last_good;
mod snapshot;
mod topic;

pub use build::{Builder, Built, Changes, Objects};
pub use class::{Class, ClassSpec, DEFAULT_CLASS};
pub use last_good::LastGood;
pub use snapshot::{Note, Snapshot};

#[cfg(test)]
mod tests;
