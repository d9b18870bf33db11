//! The program that nodes get: sessions for the operator, the small services of a node, and the probes of the probe image. The operator's
//! program carries it.

#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use landfall_agent::host::Host;
use landfall_agent::node_settings::{self, Options, ServiceRoute};
use landfall_agent::{api_balancer, etcd_data, probe, session, signal};
use landfall_core::spec::Cidr;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

/// The part of landfall that runs on nodes. The commands of operators are in the program landfall on the operator's machine.
#[derive(Parser)]
#[command(name = "landfall", version, max_term_width = 110)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Units of clusters that earlier versions installed name this command.
#[derive(Subcommand)]
enum Command {
    /// The parts that landfall itself starts.
    #[command(subcommand)]
    Agent(Agent),
}

#[derive(Subcommand)]
enum Agent {
    /// Serves one session on standard input and output.
    Serve,
    /// Balances the node's API requests over all control planes.
    ApiBalancer {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long = "backend", required = true)]
        backends: Vec<SocketAddr>,
    },
    /// Keeps kernel settings, modules and the Service network's route in the state that the node's journal requires.
    NodeSettings {
        /// The node's own address, for which it waits.
        #[arg(long)]
        address: Option<IpAddr>,
        /// The Service network; the service keeps a route there while no other leads to it.
        #[arg(long, requires = "interface")]
        service_cidr: Option<Cidr>,
        /// The interface of the route.
        #[arg(long, requires = "service_cidr")]
        interface: Option<String>,
        /// The VXLAN link whose checksums the kernel is to make by itself, as soon as it is there.
        #[arg(long, value_name = "LINK")]
        no_checksum_offload: Option<String>,
        /// Remove the route, let the link's checksums go to the card again, and end.
        #[arg(long)]
        remove: bool,
    },
    /// Ends well when the kubelet may start: the data of this node's etcd member, if it has one, is there.
    CheckEtcdData,
    /// Runs the probes on standard input, writes results to standard output.
    Probe,
    /// Waits until it is terminated, in the probe image.
    ProbeIdle,
}

fn main() -> ExitCode {
    match Args::try_parse() {
        Ok(Args {
            command: Command::Agent(agent),
        }) => ExitCode::from(run(agent)),
        Err(error) => {
            // clap prints help and version to standard output with status 0, and errors to standard error.
            let status = if error.use_stderr() { 2 } else { 0 };
            ExitCode::from(if error.print().is_ok() { status } else { 1 })
        }
    }
}

/// Runs a part of the agent. Blocks until it ends; returns the exit status.
fn run(agent: Agent) -> u8 {
    let result = match agent {
        Agent::Serve => return session::serve(io::stdin(), io::stdout()),
        Agent::ApiBalancer { listen, backends } => api_balancer::run(listen, &backends),
        Agent::NodeSettings {
            address,
            service_cidr,
            interface,
            no_checksum_offload,
            remove,
        } => {
            let route = service_cidr.zip(interface);
            let options = Options {
                address,
                route: route.map(|(network, interface)| ServiceRoute { network, interface }),
                no_checksum_offload,
            };
            if remove {
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

/// Writes a line for systemd's journal, which reads a service's standard output.
fn write_journal_line(line: &str) {
    // A failure to write there cannot be reported.
    let _ = writeln!(io::stdout(), "{line}");
}
