//! What tests of whole runs share: machines that are directories, a fleet of them behind the engine's own seam, a tiny bundle, seeded
//! choices and comparisons of whole trees. Seen as a dev-dependency only.
//!
//! Entry points: [`fleet::Fleet`] for nodes and the model of the clusters on them ([`cluster::World`]), [`bundle::write_tiny`] for a
//! bundle, [`desired::cluster`] for what shall be.

pub mod bundle;
pub mod cluster;
pub mod desired;
pub mod fleet;
pub mod machine;
pub mod pipes;
pub mod seed;
pub mod tree;
