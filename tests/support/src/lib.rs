//! What tests of whole runs share: machines that are directories, a fleet of them behind the engine's own seam, a tiny bundle, seeded
//! choices and comparisons of whole trees. Seen as a dev-dependency only.
//!
//! Entry points: [`fleet::Fleet`] for nodes, [`bundle::write_tiny`] for a bundle, [`story`] for an install of everything that happens
//! on nodes.

pub mod bundle;
pub mod fleet;
pub mod machine;
pub mod pipes;
pub mod seed;
pub mod story;
pub mod tree;
