//! The pure heart of landfall: types, rules and decisions, without clock, files, sockets or randomness.

pub mod action;
pub mod bundle_index;
pub mod cluster_record;
pub mod dns_policy;
pub mod drop_in;
pub mod event;
pub mod explain;
pub mod facts;
pub mod finding;
#[cfg(test)]
mod fuzz;
pub mod glob;
pub mod health;
pub mod inventory;
pub mod journal;
pub mod layout;
pub mod membership;
pub mod mesh;
pub mod name;
pub mod observe;
pub mod packet_filter;
pub mod plan;
pub mod preflight;
pub mod quorum;
pub mod relay;
pub mod report;
pub mod run_history;
pub mod secret;
pub mod spec;
pub mod sysctl_conf;
pub mod traffic;
pub mod transport;
pub mod trust;
pub mod uninstall;
pub mod verify;
pub mod wire;
