//! Whole runs over a fleet of simulated nodes. What this covers and what not is in the crate's README.
//!
//! Entry points: [`scene::Scene`] for one fleet and what is done with it, [`sweep::sweep`] for an install that is disturbed at every place.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

pub mod scene;
pub mod sweep;
