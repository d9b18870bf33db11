//! The pure heart of landfall: types, rules and decisions, without clock, files, sockets or randomness.

pub mod action;
pub mod bundle_index;
pub mod cluster_record;
pub mod dns_policy;
pub mod event;
pub mod explain;
pub mod facts;
pub mod inventory;
pub mod journal;
pub mod layout;
pub mod membership;
pub mod name;
pub mod observe;
pub mod plan;
pub mod preflight;
pub mod quorum;
pub mod report;
pub mod run_history;
pub mod secret;
pub mod spec;
pub mod transport;
pub mod verify;
pub mod wire;
