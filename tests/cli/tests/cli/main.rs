//! Tests of the real `landfall` program, with its own home directory, a cleared environment and only the loopback network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bundles;
mod inventories;
mod inventory_cases;
mod inventory_forms;
mod program;
mod publishers_signatures;
mod real_registry;
mod refusals;
mod signatures;
mod upstream;
mod upstream_faults;
mod usage;
