//! The real `landfall` program: a home directory of its own, a cleared environment, no network but the loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bundles;
mod inventories;
mod inventory_cases;
mod inventory_forms;
mod program;
mod refusals;
mod usage;
