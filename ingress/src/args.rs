//! The command line: what is served where, and the small commands beside serving.

use landfall_ingress_admin as admin;
use landfall_ingress_listen::handover;
use landfall_ingress_translate::options::Options;
use landfall_ingress_translate::secrets::Name;
use std::net::SocketAddr;
use std::path::PathBuf;

/// HTTP proxy for Kubernetes Ingress objects. Without a command it serves.
#[derive(clap::Parser)]
#[command(version)]
pub struct Args {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub serve: Serve,
}

/// What can be done beside serving.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Asks the proxy of this pod how it is; the exit status is the answer. For exec probes.
    Probe(Probe),
    /// Says what becomes of each Ingress of manifests or of a cluster. Exit status: 0 supported, 1 approximated, 2 refused or unreadable.
    Check(crate::check::Check),
}

/// One question to the proxy of the same pod.
#[derive(clap::Args)]
pub struct Probe {
    /// What is asked.
    pub question: crate::probe::Question,
    /// The socket on which the proxy answers.
    #[arg(long, default_value = crate::probe::SOCKET)]
    pub socket: PathBuf,
}

/// Everything about serving.
#[derive(clap::Args)]
pub struct Serve {
    /// Where requests for the cluster's Ingresses are taken.
    #[arg(long, default_value = "0.0.0.0:80")]
    pub http_address: SocketAddr,
    /// Where requests over TLS are taken.
    #[arg(long, default_value = "0.0.0.0:443")]
    pub https_address: SocketAddr,
    /// How TLS is spoken with clients.
    #[command(flatten)]
    pub tls: landfall_ingress_tls::Options,
    /// Secret (namespace/name) with the certificate for hosts that have none; a self-signed one when not given.
    #[arg(long, value_parser = parse_name)]
    pub default_certificate: Option<Name>,
    /// How the Secrets that Ingresses name are followed.
    #[arg(long, value_enum, default_value_t)]
    pub secrets: landfall_ingress_kubernetes::secret_watch::Scope,
    /// Where the status page, metrics and health are served.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub admin_address: SocketAddr,
    /// What is ours, and what Ingresses may ask for.
    #[command(flatten)]
    pub routing: Options,
    /// What stands in front of this proxy.
    #[command(flatten)]
    pub front: landfall_ingress_proxy::Front,
    /// Serve no dashboard: its port answers questions of health and for metrics alone.
    #[arg(long)]
    pub no_dashboard: bool,
    /// Host under which the status page itself is reached; shown there.
    #[arg(long, default_value = "")]
    pub dashboard_host: String,
    /// Name of this pod, for the election of the one that writes status.
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub pod_name: String,
    /// Namespace of this pod.
    #[arg(long, env = "POD_NAMESPACE", default_value = "kube-system")]
    pub pod_namespace: String,
    /// Node that this pod runs on; shown on the status page.
    #[arg(long, env = "NODE_NAME", default_value = "")]
    pub node_name: String,
    /// Address of that node; one of the hosts under which the dashboard answers.
    #[arg(long, env = "NODE_ADDRESS")]
    pub node_address: Option<std::net::IpAddr>,
    /// One more host name or address under which the dashboard answers; may be given more than once.
    #[arg(long = "dashboard-allow-host", value_name = "HOST")]
    pub dashboard_allow_hosts: Vec<String>,
    /// How the dashboard is protected. Without a password file, and not opened by `none`, its port answers for health and metrics alone.
    #[arg(long, value_enum, default_value_t)]
    pub dashboard_auth: admin::Protection,
    /// Who may read the dashboard: a htpasswd file (bcrypt or SHA-1), or a directory with `username` and `password`, as a Secret of type
    /// kubernetes.io/basic-auth is mounted. Read again while the program runs.
    #[arg(long, value_name = "PATH")]
    pub dashboard_auth_file: Option<PathBuf>,
    /// Requests that get a line of JSON on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub access_log: landfall_ingress_telemetry::access_log::Mode,
    /// Routes with series of their own in /metrics; all others share one.
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub metrics_routes: usize,
    /// Seconds that a client's connection is kept without a request. A balancer in front has to give up its connections before: larger
    /// than its own time, as 620 behind Google's.
    #[arg(long, default_value_t = 75, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub idle_seconds: u64,
    /// Threads that serve; one for each processor without it.
    #[arg(long)]
    pub workers: Option<std::num::NonZeroUsize>,
    /// Zone of that node, for the hints of Services that ask to stay within it.
    #[arg(long, env = "NODE_ZONE", default_value = "")]
    pub node_zone: String,
    /// Addresses or host names for the status of Ingresses, instead of those of nodes with a ready proxy; `none` alone empties it.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub publish_address: Vec<String>,
    /// Socket on which `landfall-ingress probe` is answered; none without it.
    #[arg(long)]
    pub probe_socket: Option<PathBuf>,
    /// Bounds of the end.
    #[command(flatten)]
    pub stopping: Stopping,
    /// Listeners that pass from one process to the next.
    #[command(flatten)]
    pub handover: Handover,
}

fn parse_name(text: &str) -> Result<Name, String> {
    Name::parse(text).ok_or_else(|| "namespace/name is needed".to_owned())
}

/// Bounds of the end. The pod has 30 s (`terminationGracePeriodSeconds`); both together stay below.
#[derive(clap::Args)]
pub struct Stopping {
    /// Milliseconds after SIGTERM in which requests are still taken, each answered with Connection: close.
    #[arg(long, default_value_t = 2000)]
    pub stop_delay_ms: u64,
    /// Seconds after that in which requests in flight may end.
    #[arg(long, default_value_t = 20)]
    pub drain_seconds: u64,
}

/// Where and how listeners are handed over.
#[derive(clap::Args)]
pub struct Handover {
    /// Directory, this user's alone, in which processes of one node meet and hand their listeners on; none without it.
    #[arg(long = "handover-directory")]
    pub directory: Option<PathBuf>,
    /// What this build calls itself to the other process; for tests.
    #[arg(long = "handover-build", hide = true, default_value = env!("CARGO_PKG_VERSION"))]
    pub build: String,
    /// Versions of the hand-over's protocol that are spoken; for tests.
    #[arg(long = "handover-protocol", hide = true, value_delimiter = ',', default_values_t = handover::VERSIONS)]
    pub versions: Vec<u32>,
}

impl Serve {
    /// What the dashboard is told.
    pub fn admin(&self) -> admin::Config {
        admin::Config {
            shown: !self.no_dashboard,
            protection: self.dashboard_auth,
            password_file: self.dashboard_auth_file.clone(),
            host: self.dashboard_host.clone(),
            further_hosts: self.dashboard_allow_hosts.clone(),
            node: self.node_name.clone(),
            node_address: self.node_address,
            namespace: self.pod_namespace.clone(),
            port: self.admin_address.port(),
            cluster: self.routing.cluster.clone(),
            strict_sni: self.tls.strict_sni,
        }
    }
}

impl Handover {
    /// Where processes meet; none without a directory.
    pub fn config(self) -> Option<handover::Config> {
        Some(handover::Config {
            directory: self.directory?,
            build: self.build,
            versions: self.versions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use rustls::CipherSuite;

    /// The installer's manifests wrote the file; their own test holds that it is current.
    #[test]
    fn the_program_takes_what_the_installer_tells_it() {
        let written = include_str!("../../tests/fixtures/ingress-arguments.txt").lines();
        let serve = Args::try_parse_from(std::iter::once("landfall-ingress").chain(written))
            .map_err(|error| error.to_string())
            .unwrap()
            .serve;
        assert_eq!((serve.front.trusted.len(), serve.front.proxy_protocol), (2, true));
        assert_eq!(serve.tls.tls_min_version, landfall_ingress_tls::MinVersion::Tls13);
        assert!(serve.no_dashboard);
        assert_eq!(serve.workers.map(std::num::NonZeroUsize::get), Some(3));
        // The installer knows every suite that there is.
        let provider = landfall_ingress_tls::provider::provider();
        let all = provider.cipher_suites.iter().map(|suite| suite.suite());
        assert_eq!(serve.tls.tls_ciphers, all.collect::<Vec<CipherSuite>>());
    }
}
