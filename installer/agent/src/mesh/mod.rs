//! The wire between nodes, tried for preflight: listeners that answer only who knows the run's token ([`listen`]), and attempts ([`attempt`]).
//!
//! Every part has a deadline of its own, so that 128 attempts of a node are over within about 9 s, whatever its peers do.

pub mod attempt;
pub mod listen;

/// What a datagram begins with: the token, then its number in four bytes. The answer is as long: the digest's begin and the number.
const DATAGRAM_HEAD: usize = landfall_core::mesh::TOKEN_LENGTH + 4;

#[cfg(test)]
mod tests;
