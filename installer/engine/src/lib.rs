//! Runs plans over a fleet: threads, deadlines, distribution of blobs, the Kubernetes API, verify.
//!
//! Entry points are the functions in [`run`]; they never print, never read the command line and never exit: everything a user
//! sees goes through the [`landfall_core::event::EventSink`] and the returned [`run::Outcome`].

pub mod cluster;
pub mod dashboard;
pub mod distribute;
pub mod emitter;
pub mod execute;
pub mod fleet;
pub mod forward;
pub mod limit;
pub mod run;
pub mod session;
pub mod undo;
pub mod verify;

mod adopt;
mod allow;
mod context;
mod inspect;
mod install;
mod journal;
mod kubeconfig;
mod mesh;
mod once;
mod outcome;
mod plan_error;
mod preflight;
mod present;
mod push;
mod random;
mod render;
