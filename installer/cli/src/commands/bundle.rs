//! `bundle build`, `inspect`, `verify`.

use super::CommandResult;
use crate::args::{Bundle, BundleBuild};
use crate::output::{write_stderr, write_stdout};
use crate::render;
use landfall_bundle::BundleFile;
use landfall_bundle::source::{self, BuildOptions};
use landfall_core::bundle_index::BundleIndex;
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_core::spec::{ClusterSpec, parse};
use landfall_manifests::{ClusterLayout, DnsPolicy, MemberLayout, required_images};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Runs one of them.
pub fn run(command: Bundle) -> CommandResult {
    let result = match command {
        Bundle::Build(args) => build(&args),
        Bundle::Inspect { bundle, json } => inspect(&bundle, json),
        Bundle::Verify { bundle } => return verify(&bundle),
    };
    result.map(|()| ExitCode::Done).map_err(|d| vec![d])
}

fn build(args: &BundleBuild) -> Result<(), Diagnosis> {
    let agent = std::env::current_exe()
        .map_err(|error| Diagnosis::new(Code::BundleBuild, "the running program cannot be found").because(&error))?;
    let cache = args
        .cache
        .clone()
        .unwrap_or_else(|| parse::expand_home("~/.cache/landfall"));
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let start = Instant::now();
    let index = source::build(&BuildOptions {
        checkout: &absolute(&args.checkout),
        cache: &absolute(&cache),
        agent: &agent,
        output: &absolute(&args.output),
        check: &check_images,
        progress: &|text| write_stderr(&format!("[{:7.1}] {text}\n", start.elapsed().as_secs_f32())),
    })?;
    let total: u64 = index.blobs.iter().map(|b| b.size_bytes).sum();
    write_stdout(&format!(
        "{}: {} programs, {} images, {} in {} blobs\n",
        args.output.display(),
        index.binaries.len(),
        index.images.len(),
        render::bytes(total),
        index.blobs.len()
    ));
    Ok(())
}

/// Every image that the manifests of a cluster name must be inside.
fn check_images(index: &BundleIndex) -> Result<(), Diagnosis> {
    let name = "node"
        .parse()
        .map_err(|error| Diagnosis::new(Code::Internal, "a fixed name is wrong").because(&error))?;
    let layout = ClusterLayout {
        members: vec![MemberLayout {
            name,
            control_plane: true,
            schedulable: true,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            interface: "eth0".to_owned(),
            reaches_services: false,
        }],
        dns: DnsPolicy::Closed,
    };
    required_images(&ClusterSpec::default(), index, &layout)
        .map(drop)
        .map_err(|error| Diagnosis::new(Code::BundleMissing, "the bundle is not complete").because(&error))
}

fn inspect(path: &Path, json: bool) -> Result<(), Diagnosis> {
    let bundle = BundleFile::open(path)?;
    let index = bundle.index();
    if json {
        write_stdout(&format!("{:#}\n", serde_json::to_value(index).unwrap_or_default()));
        return Ok(());
    }
    let size = |digest| index.blob(digest).map_or(0, |b| b.size_bytes);
    let mut text = format!(
        "{}\n  Kubernetes {}, recipe {}, {}, index {}\n\ncomponents\n",
        path.display(),
        index.kubernetes_version,
        index.recipe,
        index.architecture,
        bundle.index_digest()
    );
    for component in &index.components {
        text.push_str(&format!("  {:28} {}\n", component.name, component.version));
    }
    text.push_str("\nprograms\n");
    for binary in &index.binaries {
        text.push_str(&format!(
            "  {:28} {:>10}\n",
            binary.name,
            render::bytes(size(&binary.blob))
        ));
    }
    text.push_str("\nimages\n");
    for image in &index.images {
        let bytes = image.blobs.iter().map(&size).sum();
        let workers = image.roles.contains(&landfall_core::bundle_index::BundleRole::Worker);
        let roles = if workers { "all nodes" } else { "control planes" };
        text.push_str(&format!(
            "  {:64} {:>10}  {roles}\n",
            image.reference.to_string(),
            render::bytes(bytes)
        ));
    }
    text.push_str("\nDebian packages in layers\n");
    for package in &index.packages {
        text.push_str(&format!("  {:28} {}\n", package.name, package.version));
    }
    write_stdout(&text);
    Ok(())
}

fn verify(path: &Path) -> CommandResult {
    let bundle = BundleFile::open(path).map_err(|d| vec![d])?;
    bundle.verify(&mut |_, _| {})?;
    write_stdout(&format!("{}: every byte is as the index says\n", path.display()));
    Ok(ExitCode::Done)
}
