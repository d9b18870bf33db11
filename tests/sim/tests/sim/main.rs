//! Whole runs over a fleet of simulated nodes. What this covers and what not is in the crate's README.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod absent_members;
mod added;
mod adopt;
mod allow;
mod answers;
mod audit_log;
mod boot;
mod crash;
mod cuts;
mod dashboard;
mod events;
mod failed_run;
mod faults;
mod findings;
mod founding;
mod interrupted_undo;
mod journal;
mod laws;
mod lease;
mod left_out;
mod limit;
mod lost_node;
mod plan_file;
mod pod_network;
mod push;
mod real_bundle;
mod refusal;
mod relay;
mod torn;
mod trust;
mod whole;

use landfall_test_sim::scene;
