//! Whole runs over a fleet of simulated nodes. The crate's README says what this covers and what not.
//!
//! Entry points: [`scene::Scene`] for one fleet and its commands, [`sweep::sweep`] for installs with a fault at every place,
//! [`real_bundle::cuts`] and [`real_bundle::flips`] for a bundle of the size that people install.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

pub mod real_bundle;
pub mod scene;
pub mod sweep;
