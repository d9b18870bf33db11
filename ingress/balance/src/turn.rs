//! The parts of a set in the order in which they are asked.

use crate::{Endpoint, Endpoints, untried, usable};
use std::net::SocketAddr;
use std::sync::Arc;

/// A part of the set; its turn comes only when nothing of those before can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Ready ones that hints name; all ready ones when hints say nothing.
    Near,
    /// All ready ones.
    Ready,
    /// Ready ones that are left out after failures.
    Ejected,
    /// Those that still serve while they end.
    Draining,
}

impl Turn {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Near, Self::Ready, Self::Ejected, Self::Draining];

    /// The endpoints of this part.
    pub(super) fn part(self, set: &Endpoints) -> &[Arc<Endpoint>] {
        match self {
            Self::Near => set.near(),
            Self::Ready | Self::Ejected => set.ready(),
            Self::Draining => set.draining(),
        }
    }

    /// Whether one of them may be chosen.
    pub(super) fn takes(self, endpoint: &Endpoint, tried: &[SocketAddr]) -> bool {
        match self {
            Self::Near | Self::Ready => usable(endpoint, tried),
            Self::Ejected | Self::Draining => untried(endpoint, tried),
        }
    }
}
