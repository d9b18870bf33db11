//! The command line.

use crate::upstream_args::{BundleLock, UpstreamArgs};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use landfall_bundle::ImageArchive;
use landfall_core::bundle_index::BundleRole;
use landfall_core::trust::KeyId;
use std::path::PathBuf;
use std::time::Duration;

/// Installs highly available Kubernetes clusters on machines without internet, verifies that they work, and uninstalls them.
#[derive(Parser)]
#[command(name = "landfall", version, max_term_width = 110)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Installs the cluster, or changes it to match the inventory, and verifies it.
    Install(Install),
    /// Shows what install would do on each node; changes nothing.
    Plan(Plan),
    /// Checks the machines before an install; changes nothing.
    Preflight(Preflight),
    /// Sends to each node what an install would send, ahead of it. The nodes keep it until an install has used it.
    Push(Push),
    /// Probes every path into the cluster from everywhere: pods, nodes, this machine, machines outside.
    Verify(Verify),
    /// Shows what is installed and its health.
    Status(Common),
    /// Shows the nodes' journals, or repairs damaged ones.
    #[command(subcommand)]
    Journal(Journal),
    /// Undoes what the last run changed.
    Rollback(Undo),
    /// Undoes everything that landfall did on the nodes.
    Uninstall(Undo),
    /// Writes an admin kubeconfig that works from here.
    Kubeconfig(Kubeconfig),
    /// Sets what the ingress proxy may do.
    #[command(subcommand)]
    Ingress(Ingress),
    /// Prints the addresses, the user and the password of the ingress proxy's dashboard.
    Dashboard(Common),
    /// Shows the content of an inventory as cluster.yaml.
    Inventory(Inventory),
    /// Writes a cluster.yaml with comments; asks for values that no flag gives.
    Init(Init),
    /// Makes and checks bundles.
    #[command(subcommand)]
    Bundle(Bundle),
    /// The Ansible collection landfall.cluster.
    #[command(subcommand)]
    Ansible(Ansible),
}

impl Command {
    /// Returns the form of output that was asked for. Commands that contact no machine only print text.
    pub fn output(&self) -> Output {
        match self {
            Self::Install(args) => args.common.output,
            Self::Plan(args) => args.common.output,
            Self::Preflight(args) => args.common.output,
            Self::Push(args) => args.common.output,
            Self::Verify(args) => args.common.output,
            Self::Status(common) | Self::Dashboard(common) | Self::Journal(Journal::Show(common)) => common.output,
            Self::Journal(Journal::Repair(args)) => args.common.output,
            Self::Rollback(args) | Self::Uninstall(args) => args.common.output,
            Self::Kubeconfig(args) => args.common.output,
            Self::Ingress(Ingress::Allow(args)) => args.common.output,
            Self::Inventory(_) | Self::Init(_) | Self::Bundle(_) | Self::Ansible(_) => Output::Human,
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

/// The machines and their logins. All but -i are for Ansible inventories and named as in Ansible.
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
    /// Groups and machines that are no part of the cluster.
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = INVENTORY)]
    pub ignore: Vec<String>,
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
    /// Variables that override all others: key=value, a mapping, or @FILE.
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
    /// Act only on these machines: hosts and groups with `:`, `!`, `&`, `*`, as in Ansible, or @FILE. All others stay members and are not changed.
    /// `uninstall` accepts only machines that an earlier cluster left.
    #[arg(short, long, value_name = "PATTERN")]
    pub limit: Option<String>,
    /// Form of progress and result.
    #[arg(long, value_enum, default_value = "human")]
    pub output: Output,
    /// Write keys of hosts seen for the first time to the known_hosts file instead of refusing them.
    #[arg(long)]
    pub accept_new_host_keys: bool,
    /// File of known host keys (~/.ssh/known_hosts when not given, or what ssh_config names).
    #[arg(long, value_name = "FILE")]
    pub known_hosts: Option<String>,
    /// Settings of ssh to read instead of ~/.ssh/config and /etc/ssh/ssh_config; `none` for no file.
    #[arg(long, value_name = "FILE")]
    pub ssh_config: Option<String>,
    /// Seconds for each SSH connection (20 when not given). Each step of the first contact (login, start of the agent, its upload) may take
    /// 30 s more, and two minutes when this is not given.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub connect_timeout: Option<u64>,
}

/// The keys whose bundles are accepted. Keys in /etc/landfall/trusted.d/*.pub and ~/.config/landfall/trusted.d/*.pub are trusted too.
#[derive(ClapArgs, Clone, Default)]
pub struct TrustArgs {
    /// Public key of a builder, in minisign's form. A signature by an older key beside it (FILE.minisig) lets a cluster accept it.
    #[arg(long, value_name = "FILE", help_heading = TRUST)]
    pub trusted_key: Vec<PathBuf>,
    /// Accept a bundle that no trusted key has signed. Nothing then protects against a forged one.
    #[arg(long, help_heading = TRUST)]
    pub allow_unsigned: bool,
    /// Let the cluster accept the trusted key that signed the bundle, although none of the cluster's own keys has signed it.
    #[arg(long, help_heading = TRUST)]
    pub force_new_key: bool,
    /// Revoke this key; a cluster remembers that.
    #[arg(long, value_name = "ID", help_heading = TRUST)]
    pub revoke_key: Vec<KeyId>,
}

const TRUST: &str = "Options for the signature of the bundle";

#[derive(ClapArgs)]
pub struct Install {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub trust: TrustArgs,
    /// The bundle file.
    pub bundle: PathBuf,
    /// Show the plan and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// A plan of `landfall plan -w`: it is run unchanged, and refused (4) when the cluster has changed since it was made.
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Refuse (4) for warnings of preflight too.
    #[arg(long)]
    pub strict: bool,
    /// What to do with this run's changes when a step fails.
    #[arg(long, value_enum, default_value = "keep")]
    pub on_failure: OnFailure,
    /// Send every node everything from this machine: nodes do not take files from each other.
    #[arg(long)]
    pub no_relay: bool,
    /// How long lost connections are retried without any progress of the run. What was sent or done is not repeated. 0 ends the run at the
    /// first loss; so does `--plan`.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub reconnect: u64,
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
    /// Undo what this run changed.
    Rollback,
}

#[derive(ClapArgs)]
pub struct Plan {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub trust: TrustArgs,
    /// The bundle file.
    pub bundle: PathBuf,
    /// Refuse (4) for warnings of preflight too.
    #[arg(long)]
    pub strict: bool,
    /// Exit with 12 when changes are pending.
    #[arg(long)]
    pub exit_code: bool,
    /// Also write the plan to a file, for `install --plan`.
    #[arg(short = 'w', long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

#[derive(ClapArgs)]
pub struct Preflight {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub trust: TrustArgs,
    /// The bundle file; without one, its size, date and version are not compared.
    pub bundle: Option<PathBuf>,
    /// Refuse (4) for warnings of preflight too.
    #[arg(long)]
    pub strict: bool,
    /// Folder for preflight.json and landfall.log.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Also write the result as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

#[derive(ClapArgs)]
pub struct Push {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub trust: TrustArgs,
    /// The bundle file.
    #[arg(required_unless_present = "remove", conflicts_with = "remove")]
    pub bundle: Option<PathBuf>,
    /// Take away what was pushed and not used.
    #[arg(long)]
    pub remove: bool,
    /// Refuse (4) for warnings of preflight too.
    #[arg(long)]
    pub strict: bool,
    /// Send every node everything from this machine: nodes do not take files from each other.
    #[arg(long)]
    pub no_relay: bool,
    /// How long a node whose connection is lost is waited for without any progress; what was sent is not sent again.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub reconnect: u64,
    /// Folder for push.json and landfall.log.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
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
    /// Show every cell, not only the table and the failed cells.
    #[arg(long)]
    pub all: bool,
    /// Repeat until all is as expected, for so long at most, for instance after a boot: 90s, 5m, 1h.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub wait: Option<Duration>,
}

/// Reads a time: a number of seconds, or one with `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let seconds = match unit {
        "h" => 3600,
        "m" => 60,
        _ => 1,
    };
    let number: Option<u64> = number.parse().ok();
    let total = number.and_then(|number| number.checked_mul(seconds));
    total
        .map(Duration::from_secs)
        .ok_or_else(|| "a time is a number followed by s, m or h, for instance 5m".to_owned())
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
    /// Show what would be undone, in order, and stop.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Subcommand)]
pub enum Journal {
    /// Shows the cluster's record, its runs, and on each node what is landfall's and how it is undone.
    Show(Common),
    /// Repairs a damaged journal: keeps the intact lines, keeps the damaged file beside it, and lists what is lost. The next rollback or
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

#[derive(Subcommand)]
pub enum Ingress {
    /// Lets the ingress proxy read the Secrets and ConfigMaps of a namespace, so that Ingresses there have TLS with their own
    /// certificates. It takes effect at once; install keeps it, rollback and uninstall undo it.
    Allow(IngressAllow),
}

#[derive(ClapArgs)]
pub struct IngressAllow {
    #[command(flatten)]
    pub common: Common,
    /// All Secrets and ConfigMaps of this namespace, also those that come later.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub namespace: Option<String>,
    /// Those of all namespaces.
    #[arg(long)]
    pub all: bool,
    /// Only those that Ingresses name at present.
    #[arg(long)]
    pub named: bool,
    /// Folder for ingress-allow.json and landfall.log.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
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
    /// Form of the output.
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
    /// Asks publishers for digests, and writes the lock file from which `build` makes the same bundle at any time.
    Lock(BundleLock),
    /// Shows what is inside.
    Inspect {
        /// The bundle file.
        bundle: PathBuf,
        /// Print the index itself.
        #[arg(long)]
        json: bool,
    },
    /// Checks the signature, reads every byte and compares it with the index.
    Verify {
        /// The bundle file.
        bundle: PathBuf,
        #[command(flatten)]
        trust: TrustArgs,
    },
    /// Makes a key that signs bundles, in minisign's form; prints its id.
    Keygen {
        /// File of the secret key; the public one is beside it, with the ending `pub`. By default the key with which `build` signs.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Put the secret key behind a password, which is asked for.
        #[arg(long, conflicts_with = "password_file")]
        ask_password: bool,
        /// File with the password of the secret key; an executable one is run for it.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Signs a bundle, or the public key of a new builder.
    Sign {
        /// The bundle file, which is replaced; or a FILE.pub, whose signature is written beside it as FILE.pub.minisig.
        file: PathBuf,
        #[command(flatten)]
        key: KeyArgs,
    },
    #[command(flatten)]
    Files(BundleFiles),
}

/// Bundles on their way by stick.
#[derive(Subcommand)]
pub enum BundleFiles {
    /// Shows what differs between two bundles: programs, images, components, Debian packages.
    Diff {
        /// The old bundle.
        old: PathBuf,
        /// The new bundle.
        new: PathBuf,
        /// Show what is the same too.
        #[arg(long)]
        all: bool,
        /// Print all entries as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Writes what makes the new bundle of the old one: a file that is much smaller than the new bundle.
    Delta {
        /// The old bundle, which is there already where the delta goes.
        old: PathBuf,
        /// The new bundle.
        new: PathBuf,
        /// The delta to write.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        trust: TrustArgs,
    },
    /// Makes the new bundle of the old one and a delta, to the byte, and checks its signature.
    Apply {
        /// The old bundle.
        old: PathBuf,
        /// The delta.
        delta: PathBuf,
        /// The new bundle to write; it may be the old one's file.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        trust: TrustArgs,
    },
    /// Cuts a file into parts, with an index.
    Split {
        /// The file: a bundle or a delta.
        file: PathBuf,
        /// Largest part: bytes, or a number with kB, MB, GB, KiB, MiB or GiB. A FAT file system takes files below 4 GiB.
        #[arg(long, value_parser = size, default_value = "4GB")]
        size: u64,
        /// Folder for the parts.
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
    },
    /// Makes the file of its parts again. Parts that are missing, swapped or damaged are named all at once.
    Join {
        /// Folder with the parts and their index.
        folder: PathBuf,
        /// The file to write.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Writes a smaller bundle that serves nodes of one role alone. The signature stays good.
    Export {
        /// The bundle file.
        bundle: PathBuf,
        /// The role whose nodes it is for.
        #[arg(long, value_enum)]
        role: RoleArg,
        /// The bundle to write.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        trust: TrustArgs,
    },
    /// Prints the bundle's bill of materials (SBOM): CycloneDX 1.6 in JSON.
    Sbom {
        /// The bundle file.
        bundle: PathBuf,
        /// The file to write, in place of standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Control plane nodes.
    ControlPlane,
    /// Workers.
    Worker,
}

impl From<RoleArg> for BundleRole {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::ControlPlane => Self::ControlPlane,
            RoleArg::Worker => Self::Worker,
        }
    }
}

/// Reads a size above 0: bytes, or a number with a unit (IEC 80000-13).
fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "B" => Some(1),
        "kB" | "KB" => Some(1000),
        "MB" => Some(1000u64.pow(2)),
        "GB" => Some(1000u64.pow(3)),
        "KiB" => Some(1024),
        "MiB" => Some(1024u64.pow(2)),
        "GiB" => Some(1024u64.pow(3)),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    let bytes = number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
        "a size is a number above 0 with B, kB, MB, GB, KiB, MiB or GiB behind it, for instance 4GB".to_owned()
    })
}

/// The secret key.
#[derive(ClapArgs)]
pub struct KeyArgs {
    /// Secret key, in minisign's form; by default ~/.config/landfall/bundle.key.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// File with its password, which is asked for otherwise where it has one; an executable file is run for it.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

#[derive(ClapArgs)]
pub struct BundleBuild {
    /// Where the parts come from: `upstream` downloads what publishers released, `source` builds all from Go modules, Debian packages and a
    /// checkout of landfall.
    #[arg(long, value_parser = ["upstream", "source"], default_value = "upstream")]
    pub recipe: String,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The checkout of landfall, for the recipe source.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub checkout: PathBuf,
    /// Folder for parts that can be used again; by default ~/.cache/landfall.
    #[arg(long, env = "LANDFALL_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Adds the images of an archive as `docker save`, `podman save` and `ctr images export` write them, plain or compressed. NAME stands for
    /// the name that the image has there.
    #[arg(long, value_name = "[NAME=]FILE", help_heading = ADDED)]
    pub image_archive: Vec<ImageArchive>,
    /// Adds Kubernetes objects, which `install` applies, owns and takes back. Their images must be inside.
    #[arg(long, value_name = "FILE", help_heading = ADDED)]
    pub add_manifest: Vec<PathBuf>,
    /// Signs the bundle; made when it is not there.
    #[command(flatten)]
    pub key: KeyArgs,
    #[command(flatten)]
    pub upstream: UpstreamArgs,
}

const ADDED: &str = "Options for images and objects of your own";

#[derive(Subcommand)]
pub enum Ansible {
    /// Writes the collection as an archive for `ansible-galaxy collection install`.
    Export {
        /// The file to write; by default landfall-cluster-VERSION.tar.gz.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_a_unit() {
        let of = |text| duration(text).map(|time| time.as_secs()).ok();
        assert_eq!(
            ["90", "90s", "5m", "1h", "0"].map(of),
            [Some(90), Some(90), Some(300), Some(3600), Some(0)]
        );
        for wrong in ["", "m", "-1", "5 m", "5d", "1.5h", "18446744073709551615h"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        let of = |text| size(text).ok();
        assert_eq!(
            ["700", "4GB", "4GiB", "1kB", "3MiB"].map(of),
            [Some(700), Some(4_000_000_000), Some(1 << 32), Some(1000), Some(3 << 20)]
        );
        for wrong in ["", "0", "GB", "-1", "4 GB", "4gb", "1.5GB", "99999999999999GB"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
