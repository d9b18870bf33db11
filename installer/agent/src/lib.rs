//! The agent: the only part of landfall that touches a node. It runs as root on the node for the length of a session, takes typed
//! requests over its standard input and output, interprets actions with an undo recorded before each, and takes them back.
//!
//! Entry points of the program `landfall-agent` are [`session::serve`], [`api_balancer::run`], [`node_settings::run`], [`etcd_data::check`], [`probe::run`] and
//! [`signal::wait_for_end`].

pub mod actions;
pub mod agent;
pub mod api_balancer;
pub mod arriving;
pub mod blobs;
pub mod child;
pub mod claims;
pub mod containers;
pub mod dns;
pub mod error;
pub mod etcd;
pub mod etcd_data;
pub mod facts;
pub mod files;
pub mod firewall;
pub mod health;
pub mod host;
pub mod http;
pub mod https;
pub mod interpret;
pub mod journal_store;
pub mod lease;
pub mod logs;
pub mod mesh;
pub mod mounts;
pub mod netlink;
pub mod network;
pub mod node_settings;
pub mod probe;
pub mod redact;
pub mod relay;
pub mod request;
pub mod safe_delete;
pub mod session;
pub mod signal;
pub mod undo;

mod certificates;
mod cgroups;
mod deadline;
mod processes;
mod text_files;
mod unmount;
