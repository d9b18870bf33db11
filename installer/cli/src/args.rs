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
    /// Shows the nodes' journals, or repairs damaged ones.
    #[command(subcommand)]
    Journal(Journal),
    /// Takes back what the last run changed.
    Rollback(Undo),
    /// Takes back everything landfall ever did on the nodes.
    Uninstall(Undo),
    /// Writes an admin kubeconfig that works from here.
    Kubeconfig(Kubeconfig),
    /// Shows what was understood of an inventory, as cluster.yaml.
    Inventory(Inventory),
    /// Writes a cluster.yaml with comments; asks for what no flag says.
    Init(Init),
    /// Makes and checks bundles.
    #[command(subcommand)]
    Bundle(Bundle),
    /// The Ansible collection landfall.cluster.
    #[command(subcommand)]
    Ansible(Ansible),
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
            Self::Status(common) | Self::Journal(Journal::Show(common)) => common.output,
            Self::Journal(Journal::Repair(args)) => args.common.output,
            Self::Rollback(args) | Self::Uninstall(args) => args.common.output,
            Self::Kubeconfig(args) => args.common.output,
            Self::Inventory(_) | Self::Init(_) | Self::Bundle(_) | Self::Ansible(_) | Self::Agent(_) => Output::Human,
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

/// Which machines, and how to log in. All but -i are for Ansible inventories and named as there.
#[derive(ClapArgs, Clone, Default)]
pub struct InventoryArgs {
    /// Machines and settings: landfall's cluster.yaml, or an Ansible inventory (file, directory or list of hosts; several count
    /// as one). By default the one that ansible.cfg names.
    #[arg(short = 'i', long = "inventory", value_name = "FILE")]
    pub sources: Vec<String>,
    /// Group of control plane nodes, when its name is not one that landfall knows.
    #[arg(long, value_name = "GROUP", value_delimiter = ',', help_heading = INVENTORY)]
    pub control_plane_group: Vec<String>,
    /// Group of workers, when its name is not one that landfall knows.
    #[arg(long, value_name = "GROUP", value_delimiter = ',', help_heading = INVENTORY)]
    pub worker_group: Vec<String>,
    /// The control plane nodes by name; all other machines of the cluster are workers then.
    #[arg(long, value_name = "HOST", value_delimiter = ',', help_heading = INVENTORY)]
    pub control_planes: Vec<String>,
    /// Login user where the inventory names none.
    #[arg(short, long, help_heading = INVENTORY)]
    pub user: Option<String>,
    /// Private key file where the inventory names none.
    #[arg(long, value_name = "FILE", help_heading = INVENTORY)]
    pub private_key: Option<String>,
    /// Ask for the login password.
    #[arg(short = 'k', long, help_heading = INVENTORY)]
    pub ask_pass: bool,
    /// Ask for the password of sudo.
    #[arg(short = 'K', long, help_heading = INVENTORY)]
    pub ask_become_pass: bool,
    /// File with the login password where the inventory holds none; an executable one is run for it.
    #[arg(
        long,
        visible_alias = "conn-pass-file",
        value_name = "FILE",
        conflicts_with = "ask_pass",
        help_heading = INVENTORY
    )]
    pub connection_password_file: Option<PathBuf>,
    /// File with the password of sudo where the inventory holds none; an executable one is run for it.
    #[arg(
        long,
        visible_alias = "become-pass-file",
        value_name = "FILE",
        conflicts_with = "ask_become_pass",
        help_heading = INVENTORY
    )]
    pub become_password_file: Option<PathBuf>,
    /// Variables that beat all others: key=value, a mapping, or @FILE.
    #[arg(short, long, value_name = "VARS", help_heading = INVENTORY)]
    pub extra_vars: Vec<String>,
    /// Directory of the playbook, whose group_vars and host_vars count too.
    #[arg(long, value_name = "DIR", help_heading = INVENTORY)]
    pub playbook_dir: Option<PathBuf>,
    /// File with the password of vaults; an executable one is run for it.
    #[arg(long, value_name = "FILE", help_heading = INVENTORY)]
    pub vault_password_file: Vec<PathBuf>,
    /// Password of vaults with an id, as ID@FILE or ID@prompt.
    #[arg(long, value_name = "ID@SOURCE", help_heading = INVENTORY)]
    pub vault_id: Vec<String>,
    /// Ask for the password of vaults.
    #[arg(long, help_heading = INVENTORY)]
    pub ask_vault_pass: bool,
}

const INVENTORY: &str = "Options for Ansible inventories";

#[derive(ClapArgs, Clone)]
pub struct Common {
    #[command(flatten)]
    pub inventory: InventoryArgs,
    /// Act on these machines alone: hosts and groups with `:`, `!`, `&`, `*`, as for Ansible, or @FILE. All others stay members as they are.
    #[arg(short, long, value_name = "PATTERN")]
    pub limit: Option<String>,
    /// Form of progress and result.
    #[arg(long, value_enum, default_value = "human")]
    pub output: Output,
    /// Write keys of hosts seen for the first time to the known_hosts file instead of refusing them.
    #[arg(long)]
    pub accept_new_host_keys: bool,
    /// File of known host keys.
    #[arg(long, value_name = "FILE", default_value = "~/.ssh/known_hosts")]
    pub known_hosts: String,
    /// Seconds for each SSH connection (20 when not given). The first contact as a whole may take 30 s more, and two minutes when this
    /// is not given.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub connect_timeout: Option<u64>,
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

#[derive(Subcommand)]
pub enum Journal {
    /// Shows the cluster's record, its runs, and on each node what is landfall's and how it is taken back.
    Show(Common),
    /// Makes a damaged journal of its whole lines, keeps the damaged one beside it, and lists what is lost. The next rollback or
    /// uninstall names each step whose undo is lost.
    Repair(JournalRepair),
}

#[derive(ClapArgs)]
pub struct JournalRepair {
    #[command(flatten)]
    pub common: Common,
    /// Do it without asking for the cluster's name.
    #[arg(long)]
    pub yes: bool,
    /// Folder for journal-repair.json and landfall.log.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Show what is damaged and what would be lost, and stop.
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
    #[command(flatten)]
    pub inventory: InventoryArgs,
    /// Print an Ansible inventory as `ansible-inventory --list` does, passwords too.
    #[arg(long, conflicts_with_all = ["host", "graph", "to"])]
    pub list: bool,
    /// Print one host's variables as `ansible-inventory --host` does, passwords too.
    #[arg(long, value_name = "HOST", conflicts_with_all = ["graph", "to"])]
    pub host: Option<String>,
    /// Print the groups as `ansible-inventory --graph` does, from this group down.
    #[arg(long, value_name = "GROUP", num_args = 0..=1, default_missing_value = "all", conflicts_with = "to")]
    pub graph: Option<String>,
    /// With --list or --host: print variables where they are set, not flattened.
    #[arg(long)]
    pub export: bool,
    /// With --list or --host: print YAML.
    #[arg(long)]
    pub yaml: bool,
    /// With --graph: print variables too.
    #[arg(long)]
    pub vars: bool,
    /// Form to write what was understood in.
    #[arg(long, value_enum, value_name = "FORM")]
    pub to: Option<InventoryForm>,
}

/// Forms of an inventory.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InventoryForm {
    /// An Ansible inventory in INI form.
    Ini,
    /// An Ansible inventory in YAML form.
    Yaml,
    /// landfall's own file.
    #[value(name = "cluster.yaml")]
    ClusterYaml,
}

#[derive(ClapArgs)]
pub struct Init {
    /// The file to write; one that exists is not overwritten.
    #[arg(short, long, value_name = "FILE", default_value = "cluster.yaml")]
    pub output: PathBuf,
    /// Name of the cluster.
    #[arg(long)]
    pub name: Option<String>,
    /// A control plane node, as NAME=HOST; 1, 3 or 5 of them.
    #[arg(long, value_name = "NAME=HOST")]
    pub control_plane: Vec<String>,
    /// A worker, as NAME=HOST.
    #[arg(long, value_name = "NAME=HOST")]
    pub worker: Vec<String>,
    /// Login user on all machines.
    #[arg(short, long)]
    pub user: Option<String>,
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
pub enum Ansible {
    /// Writes the collection as an archive for `ansible-galaxy collection install`.
    Export {
        /// The file to write; by default landfall-cluster-VERSION.tar.gz.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
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
