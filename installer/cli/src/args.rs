//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Installs highly available Kubernetes clusters on machines without internet, proves that they work, and takes them away again.
#[derive(Parser)]
#[command(name = "landfall", version, max_term_width = 110)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Installs the cluster, or brings it to what the inventory says, and verifies it.
    Install(Install),
    /// Shows what install would do on each node; changes nothing.
    Plan(Plan),
    /// Tries every path into the cluster from every place: pods, nodes, this machine, machines outside.
    Verify(Verify),
    /// Shows what is installed and how it is.
    Status(Common),
    /// Takes back what the last run changed.
    Rollback(Undo),
    /// Takes back everything landfall ever did on the nodes.
    Uninstall(Undo),
    /// Writes an admin kubeconfig that works from here.
    Kubeconfig(Kubeconfig),
    /// Shows what was understood of an inventory, as cluster.yaml.
    Inventory(Inventory),
    /// Makes and checks bundles.
    #[command(subcommand)]
    Bundle(Bundle),
    /// What runs on nodes; started by landfall itself.
    #[command(subcommand, hide = true)]
    Agent(Agent),
}

impl Command {
    /// Returns the form of output that was asked for. Commands that contact no machine have text alone.
    pub fn output(&self) -> Output {
        match self {
            Self::Install(args) => args.common.output,
            Self::Plan(args) => args.common.output,
            Self::Verify(args) => args.common.output,
            Self::Status(common) => common.output,
            Self::Rollback(args) | Self::Uninstall(args) => args.common.output,
            Self::Kubeconfig(args) => args.common.output,
            Self::Inventory(_) | Self::Bundle(_) | Self::Agent(_) => Output::Human,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Progress bars on a terminal, plain lines elsewhere.
    Human,
    /// One event as JSON per line on standard output; the last line is the result.
    Json,
}

#[derive(ClapArgs, Clone)]
pub struct Common {
    /// Machines and settings: landfall's cluster.yaml, or an Ansible inventory (INI or YAML).
    #[arg(short, long, value_name = "FILE")]
    pub inventory: PathBuf,
    /// Form of progress and result.
    #[arg(long, value_enum, default_value = "human")]
    pub output: Output,
    /// Write keys of hosts seen for the first time to the known_hosts file instead of refusing them.
    #[arg(long)]
    pub accept_new_host_keys: bool,
    /// File of known host keys.
    #[arg(long, value_name = "FILE", default_value = "~/.ssh/known_hosts")]
    pub known_hosts: String,
    /// Seconds for each SSH connection.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub connect_timeout: u64,
}

#[derive(ClapArgs)]
pub struct Install {
    #[command(flatten)]
    pub common: Common,
    /// The bundle file.
    pub bundle: PathBuf,
    /// Show the plan and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// A plan of `landfall plan -w`: it is run as it was made, and refused (4) when what it was made for is not there any more.
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// What to do with this run's changes when a step fails.
    #[arg(long, value_enum, default_value = "keep")]
    pub on_failure: OnFailure,
    /// Folder for install.json, verify.json, landfall.log and logs of nodes that failed.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Also write verify's result as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnFailure {
    /// Leave everything as it is; running again continues.
    Keep,
    /// Take back what this run changed.
    Rollback,
}

#[derive(ClapArgs)]
pub struct Plan {
    #[command(flatten)]
    pub common: Common,
    /// The bundle file.
    pub bundle: PathBuf,
    /// Exit with 12 when changes are pending.
    #[arg(long)]
    pub exit_code: bool,
    /// Also write the plan to a file, for `install --plan`.
    #[arg(short = 'w', long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

#[derive(ClapArgs)]
pub struct Verify {
    #[command(flatten)]
    pub common: Common,
    /// Folder for verify.json and landfall.log.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Also write the result as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Show every cell, not only the table and what is wrong.
    #[arg(long)]
    pub all: bool,
}

#[derive(ClapArgs)]
pub struct Undo {
    #[command(flatten)]
    pub common: Common,
    /// Do it without asking for the cluster's name.
    #[arg(long)]
    pub yes: bool,
    /// Folder for rollback.json or uninstall.json, and landfall.log.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Show what would be taken back, in order, and stop.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(ClapArgs)]
pub struct Kubeconfig {
    #[command(flatten)]
    pub common: Common,
    /// File to write, readable by its owner alone; `-` is standard output.
    #[arg(short = 'w', long, value_name = "FILE", default_value = "kubeconfig")]
    pub write: PathBuf,
}

#[derive(ClapArgs)]
pub struct Inventory {
    /// The file to read.
    #[arg(short, long, value_name = "FILE")]
    pub inventory: PathBuf,
}

#[derive(Subcommand)]
pub enum Bundle {
    /// Builds a bundle.
    Build(BundleBuild),
    /// Shows what is inside.
    Inspect {
        /// The bundle file.
        bundle: PathBuf,
        /// Print the index itself.
        #[arg(long)]
        json: bool,
    },
    /// Reads every byte and compares it with the index.
    Verify {
        /// The bundle file.
        bundle: PathBuf,
    },
}

#[derive(ClapArgs)]
pub struct BundleBuild {
    /// Where the parts come from: `source` builds them from Go modules, Debian packages and this checkout.
    #[arg(long, value_parser = ["source"])]
    pub recipe: String,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The checkout of landfall.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub checkout: PathBuf,
    /// Folder for parts that can be used again; by default ~/.cache/landfall.
    #[arg(long, env = "LANDFALL_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Agent {
    /// Serves one session on standard input and output.
    Serve,
    /// Balances the node's API requests over all control planes.
    ApiBalancer {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long = "backend", required = true)]
        backends: Vec<SocketAddr>,
    },
    /// Keeps the route of the Service network.
    ServiceRoute {
        #[arg(long)]
        cidr: String,
        #[arg(long)]
        interface: String,
        /// Take the route away and end.
        #[arg(long)]
        remove: bool,
    },
    /// Tries the probes on standard input, writes results to standard output.
    Probe,
    /// Waits for its end, in the probe image.
    ProbeIdle,
}
