//! `landfall agent …`: the same program, on a node.

use crate::args::Agent;
use landfall_agent::{api_balancer, probe, service_route, session, signal};
use std::io::{self, Write};

/// Runs until its work ends; returns the exit status.
pub fn run(command: &Agent) -> u8 {
    let result = match command {
        Agent::Serve => return session::serve(io::stdin(), io::stdout()),
        Agent::ApiBalancer { listen, backends } => api_balancer::run(*listen, backends),
        Agent::ServiceRoute {
            cidr,
            interface,
            remove,
        } => match cidr.parse() {
            Ok(cidr) if *remove => service_route::remove(&cidr, interface),
            Ok(cidr) => service_route::run(&cidr, interface),
            Err(text) => Err(io::Error::other(text)),
        },
        Agent::Probe => probe::serve(io::stdin(), io::stdout()),
        Agent::ProbeIdle => signal::wait_for_end(),
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            // Standard error goes to the unit's journal; a failure to write there cannot be reported.
            let _ = writeln!(io::stderr(), "landfall agent: {error}");
            1
        }
    }
}
