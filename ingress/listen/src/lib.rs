//! Listeners of the program: bound, handed over to the next process of the node, and closed; and how far the process is in its life.
//!
//! It promises that a listener which is handed over is closed by nobody, and that a process that does not accept loses nothing while another
//! does. It knows neither HTTP nor routes; what else a successor is given are bytes to it.

#![forbid(unsafe_code)]

#[cfg(test)]
mod fuzz;
pub mod handover;
mod lifecycle;

pub use handover::{Listener, Listeners, Reserved};
pub use lifecycle::Lifecycle;
