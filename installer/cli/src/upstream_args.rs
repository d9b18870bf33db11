//! Arguments of the recipe `upstream`.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use landfall_bundle::own_parts::NamedPart;
use landfall_bundle::upstream::{ARCHITECTURES, AddedImage, Keyring, Mirror, SignaturePolicy};
use std::path::PathBuf;

/// How servers are reached.
#[derive(Args)]
pub struct NetworkArgs {
    /// Ask MIRROR before HOST, for files and images (`dl.k8s.io`, `github.com`, `registry.k8s.io`, `ghcr.io`, `docker.io`). What it lacks
    /// comes from the next one.
    #[arg(long, value_name = "HOST=https://MIRROR[/PATH]", help_heading = NETWORK)]
    pub mirror: Vec<Mirror>,
    /// More certificate authorities, in PEM form. SSL_CERT_FILE names a file in place of the machine's own.
    #[arg(long, value_name = "FILE", help_heading = NETWORK)]
    pub ca: Option<PathBuf>,
}

const NETWORK: &str = "Options for downloads (proxies: HTTPS_PROXY and NO_PROXY; logins: ~/.docker/config.json)";

/// How publishers' signatures are verified.
#[derive(Args)]
pub struct SignatureArgs {
    /// Which signatures of publishers are verified: of Kubernetes and containerd by cosign, of runc by gpgv.
    #[arg(long, value_enum, default_value_t = Signatures(SignaturePolicy::Check), help_heading = SIGNATURES, hide_default_value = true)]
    pub signatures: Signatures,
    /// Keys for gpgv: the publisher's keyring, armored or not (`runc.keyring` of runc's repository), from a source that you trust.
    #[arg(long, value_name = "runc=FILE", help_heading = SIGNATURES)]
    pub keyring: Vec<Keyring>,
}

const SIGNATURES: &str =
    "Options for publishers' signatures (cosign takes its own environment: TUF_ROOT, SIGSTORE_ROOT_FILE, …)";

/// [`SignaturePolicy`] as an argument.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signatures(pub SignaturePolicy);

impl ValueEnum for Signatures {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self(SignaturePolicy::Check),
            Self(SignaturePolicy::Require),
            Self(SignaturePolicy::Skip),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self.0 {
            SignaturePolicy::Check => PossibleValue::new("check")
                .help("Those for which cosign or gpgv is installed, and a keyring given; the lock file says what was not verified (default)"),
            SignaturePolicy::Require => {
                PossibleValue::new("require").help("All of them: what a publisher signs and cannot be verified here is an error")
            }
            SignaturePolicy::Skip => PossibleValue::new("skip").help("None"),
        })
    }
}

/// For which machines.
#[derive(Args)]
pub struct ArchitectureArgs {
    /// Architectures of the nodes.
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "amd64", value_parser = ARCHITECTURES)]
    pub architecture: Vec<String>,
}

impl ArchitectureArgs {
    /// The architectures, each once and in one order.
    pub fn sorted(&self) -> Vec<String> {
        let mut all = self.architecture.clone();
        all.sort();
        all.dedup();
        all
    }
}

/// Arguments of `bundle build` for the recipe `upstream` alone.
#[derive(Args)]
pub struct UpstreamArgs {
    /// The lock file; by default OUTPUT with the ending `lock.yaml`. When it is not there, it is made first.
    #[arg(long, value_name = "FILE", help_heading = UPSTREAM)]
    pub lock: Option<PathBuf>,
    #[command(flatten)]
    pub architectures: ArchitectureArgs,
    /// One of landfall's own programs, `landfall-agent` or `landfall-ingress`, in place of what this program carries.
    #[arg(long, value_name = "[ARCHITECTURE/]NAME=FILE", help_heading = UPSTREAM)]
    pub part: Vec<NamedPart>,
    /// Adds an image of a registry, by its name as pods have it; it must be in the lock file, if there is one.
    #[arg(long, value_name = "NAME:TAG", help_heading = UPSTREAM)]
    pub add_image: Vec<AddedImage>,
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub signatures: SignatureArgs,
}

impl UpstreamArgs {
    /// Whether any of them was given, which the recipe `source` would pass over.
    pub fn given(&self) -> bool {
        let network = !self.network.mirror.is_empty() || self.network.ca.is_some();
        let named = !self.part.is_empty() || !self.add_image.is_empty();
        let signatures = self.signatures.signatures != Signatures(SignaturePolicy::Check);
        let signatures = signatures || !self.signatures.keyring.is_empty();
        network || named || signatures || self.lock.is_some() || self.architectures.sorted() != ["amd64"]
    }
}

const UPSTREAM: &str = "Options for the recipe upstream";

/// Arguments of `bundle lock`.
#[derive(Args)]
pub struct BundleLock {
    /// Version of Kubernetes.
    #[arg(long, value_name = "VERSION")]
    pub kubernetes: Option<String>,
    /// Version of another component: etcd, coredns, pause, containerd, runc, cni, flannel, nginx.
    #[arg(long, value_name = "NAME=VERSION", value_parser = component)]
    pub component: Vec<(String, String)>,
    /// Adds an image of your own, by its name as pods have it (`redis:7.4`, `ghcr.io/NAME/NAME:TAG`).
    #[arg(long, value_name = "NAME:TAG")]
    pub add_image: Vec<AddedImage>,
    #[command(flatten)]
    pub architectures: ArchitectureArgs,
    /// The file to write.
    #[arg(short, long, value_name = "FILE", default_value = "landfall.lock.yaml")]
    pub output: PathBuf,
    /// Folder for programs whose signatures are verified, from which `build` takes them; by default ~/.cache/landfall.
    #[arg(long, env = "LANDFALL_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub signatures: SignatureArgs,
}

fn component(text: &str) -> Result<(String, String), String> {
    let (name, version) = text.split_once('=').ok_or("it does not have the form NAME=VERSION")?;
    Ok((name.to_owned(), version.to_owned()))
}
