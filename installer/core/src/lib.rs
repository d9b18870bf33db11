//! The pure heart of landfall: types, rules and decisions, without clock, files, sockets or randomness.

pub mod bundle_index;
pub mod explain;
pub mod inventory;
pub mod name;
pub mod secret;
pub mod spec;
pub mod transport;
