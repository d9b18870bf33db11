//! Turns Kubernetes objects into the routing table. Pure.
//!
//! ```text
//! Ingress, IngressClass ──object──> Changes ──> Builder (route) ──> Snapshot: the RouteTable, and what is to be said of its objects
//!                                                  ^    ^    └─ annotations ──> Policy
//! Service, EndpointSlice ──> Services, with the backends    └─ secrets::View
//! ```
//!
//! It promises that the same objects give the same table, in whatever order they come. It must not depend on a client of the API, a runtime
//! or sockets: who reads objects gives them to it.

#![forbid(unsafe_code)]

pub mod annotations;
#[cfg(test)]
mod fuzz;
pub mod object;
pub mod options;
mod pattern;
pub mod remark;
pub mod route;
pub mod secrets;
pub mod services;
