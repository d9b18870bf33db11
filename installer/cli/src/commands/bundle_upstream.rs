//! `bundle lock`, and `bundle build` by the recipe `upstream`.

use crate::args::BundleBuild;
use crate::output::{write_stderr, write_stdout};
use crate::upstream_args::{BundleLock, NetworkArgs, SignatureArgs};
use landfall_bundle::Additions;
use landfall_bundle::minisign::SecretKey;
use landfall_bundle::own_parts::own_parts;
use landfall_bundle::upstream::{self, BuildOptions, LockOptions, NetworkOptions, SignatureOptions};
use landfall_core::bundle_index::BundleIndex;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::spec::parse::expand_home;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Makes a function that writes what the build does, with the time since now.
pub fn lines() -> impl Fn(&str) {
    let start = Instant::now();
    move |text| write_stderr(&format!("[{:7.1}] {text}\n", start.elapsed().as_secs_f32()))
}

/// Writes a lock file.
pub fn lock(args: &BundleLock) -> Result<(), Diagnosis> {
    let mut versions: BTreeMap<String, String> = args.component.iter().cloned().collect();
    if let Some(version) = &args.kubernetes {
        versions.insert("kubernetes".to_owned(), version.clone());
    }
    let (programs, images) = with_network(&args.network, &lines(), &|network| {
        upstream::lock(&LockOptions {
            network,
            versions: &versions,
            architectures: &args.architectures.sorted(),
            images: &args.add_image,
            signatures: &signature_options(&args.signatures),
            cache: &cache_folder(args.cache.as_deref()),
            output: &args.output,
        })
    })?;
    write_stdout(&format!(
        "{}: {programs} programs, {images} images\n",
        args.output.display()
    ));
    Ok(())
}

/// Builds the bundle.
pub fn build(
    args: &BundleBuild,
    cache: &Path,
    key: &SecretKey,
    additions: Additions<'_>,
    check: &dyn Fn(&BundleIndex) -> Result<(), Diagnosis>,
) -> Result<BundleIndex, Diagnosis> {
    let running = std::env::current_exe()
        .map_err(|error| Diagnosis::new(Code::BundleBuild, "the running program cannot be found").because(&error))?;
    let upstream = &args.upstream;
    let mut own = Vec::new();
    for architecture in upstream.architectures.sorted() {
        own.push(own_parts(&running, &upstream.part, &architecture, cache)?);
    }
    let lock = upstream.lock.clone();
    let lock = lock.unwrap_or_else(|| args.output.with_extension("lock.yaml"));
    with_network(&upstream.network, &lines(), &|network| {
        upstream::build(&BuildOptions {
            network,
            lock: &lock,
            own: &own,
            cache,
            output: &args.output,
            images: &upstream.add_image,
            signatures: &signature_options(&upstream.signatures),
            additions,
            key,
            check,
        })
    })
}

/// Where parts that can be used again lie: the folder that was named, or the user's own.
pub fn cache_folder(named: Option<&Path>) -> PathBuf {
    let folder = named.map_or_else(|| expand_home("~/.cache/landfall"), Path::to_owned);
    std::path::absolute(&folder).unwrap_or(folder)
}

fn signature_options(args: &SignatureArgs) -> SignatureOptions<'_> {
    SignatureOptions {
        policy: args.signatures.0,
        keyrings: &args.keyring,
    }
}

fn with_network<T>(
    args: &NetworkArgs,
    progress: &dyn Fn(&str),
    run: &dyn Fn(&NetworkOptions<'_>) -> Result<T, Diagnosis>,
) -> Result<T, Diagnosis> {
    let folder = std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty());
    let folder = folder.map_or_else(|| expand_home("~/.docker"), PathBuf::from);
    run(&NetworkOptions {
        mirrors: &args.mirror,
        ca: args.ca.as_deref(),
        docker_config: &folder.join("config.json"),
        look_up,
        progress,
    })
}

fn look_up(host: &str) -> Option<Vec<IpAddr>> {
    landfall_ssh::resolve(host).ok()
}
