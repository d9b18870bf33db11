//! Test support for whole runs: machines that are directories, a fleet of them behind the engine's own `Connector`, a tiny bundle, seeded
//! choices and comparisons of whole trees. Only dev-dependencies use it.
//!
//! Entry points: [`fleet::Fleet`] for nodes and the model of the clusters on them ([`cluster::World`]), [`bundle::write_tiny`] for a
//! bundle, [`desired::cluster`] for the spec.

pub mod bundle;
pub mod cluster;
pub mod desired;
pub mod fleet;
pub mod machine;
pub mod pipes;
pub mod publishers;
pub mod seed;
pub mod tree;
