//! `landfall agent …`: the parts of this program that run on a node.

use crate::args::Agent;
use landfall_agent::host::Host;
use landfall_agent::node_settings::{self, Options, ServiceRoute};
use landfall_agent::{api_balancer, etcd_data, probe, session, signal};
use std::io::{self, Write};

/// Writes a line for systemd's journal, which reads a service's standard output.
fn write_journal_line(line: &str) {
    // A failure to write there cannot be reported.
    let _ = writeln!(io::stdout(), "{line}");
}

/// Runs a part of the agent. Blocks until it ends; returns the exit status.
pub fn run(command: &Agent) -> u8 {
    let result = match command {
        Agent::Serve => return session::serve(io::stdin(), io::stdout()),
        Agent::ApiBalancer { listen, backends } => api_balancer::run(*listen, backends),
        Agent::NodeSettings {
            address,
            service_cidr,
            interface,
            no_checksum_offload,
            remove,
        } => {
            let route = service_cidr.zip(interface.clone());
            let route = route.map(|(network, interface)| ServiceRoute { network, interface });
            let options = Options {
                address: *address,
                route,
                no_checksum_offload: no_checksum_offload.clone(),
            };
            if *remove {
                node_settings::remove(&options)
            } else {
                node_settings::run(&options, &mut write_journal_line)
            }
        }
        Agent::CheckEtcdData => etcd_data::check(&Host::real(), etcd_data::PATIENCE),
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
