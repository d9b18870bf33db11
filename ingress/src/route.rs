//! The table of routes and how a request finds its way in it. Pure; [`build`] makes the table from objects of the API.
//!
//! S1 to S30 are rules of the comments in kubernetes/api networking/v1/types.go and discovery/v1/types.go, and of experience with other
//! proxies; the README of this crate lists them with their tests.

mod assemble;
mod build;
mod census;
mod certificates;
mod class;
mod compile;
mod endpoints;
mod index;
mod ingress;
mod kept;
mod last_good;
mod options;
pub mod pattern;
mod remark;
mod snapshot;
mod topic;
mod words;

pub use build::{Builder, Built, Changes, Objects};
pub use class::{Class, ClassSpec, DEFAULT_CLASS};
#[cfg(test)]
pub use ingress::CLASS_ANNOTATION;
pub use ingress::{Addresses, Ingress, Meta, Spec};
pub use last_good::LastGood;
#[cfg(test)]
pub use options::CONTROLLER;
pub use options::Options;
pub use remark::{Reason, Remark, Severity};
pub use snapshot::Snapshot;
pub use words::Words;

#[cfg(test)]
mod tests;
