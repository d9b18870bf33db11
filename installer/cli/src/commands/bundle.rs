//! `bundle build`, `inspect`, `verify`, `keygen`, `sign`.

use super::{CommandResult, bundle_upstream};
use crate::args::{Bundle as Command, BundleBuild, KeyArgs, TrustArgs};
use crate::output::{write_stderr, write_stdout, write_whole};
use crate::{passwords, render, trust};
use landfall_bundle::minisign::{PublicKey, Signature};
use landfall_bundle::source::{self, BuildOptions};
use landfall_bundle::{Additions, Bundle, Unverified};
use landfall_core::bundle_index::{BundleIndex, Manifest};
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_core::plan::objects::ObjectKey;
use landfall_core::spec::ClusterSpec;
use landfall_engine::cluster::resource_name;
use landfall_manifests::{ClusterLayout, DnsPolicy, MemberLayout, added_problems, read_manifest, required_images};
use std::path::{Path, PathBuf};

/// Runs one of them.
pub fn run(command: Command) -> CommandResult {
    let result = match command {
        Command::Build(args) => build(&args),
        Command::Lock(args) => bundle_upstream::lock(&args),
        Command::Inspect { bundle, json } => inspect(&bundle, json),
        Command::Verify { bundle, trust } => return verify(&bundle, &trust),
        Command::Keygen {
            output,
            ask_password,
            password_file,
        } => keygen(output, ask_password, password_file.as_deref()),
        Command::Sign { file, key } => sign(&file, &key),
        Command::Files(command) => return super::bundle_files::run(command),
    };
    result.map(|()| ExitCode::Done).map_err(|d| vec![d])
}

fn build(args: &BundleBuild) -> Result<(), Diagnosis> {
    if args.recipe == "source" && args.upstream.given() {
        let what = "the recipe source takes no --lock, --part, --architecture, --add-image, --mirror, --ca, --signatures and --keyring";
        return Err(Diagnosis::new(Code::Usage, what).next("leave them out, or take the recipe upstream"));
    }
    let cache = bundle_upstream::cache_folder(args.cache.as_deref());
    let manifests = read_manifests(&args.add_manifest)?;
    let additions = Additions {
        archives: &args.image_archive,
        manifests: &manifests,
    };
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let (key, made) = trust::builders_key(args.key.key.as_deref(), args.key.password_file.as_deref())?;
    if made {
        let path = args.key.key.clone().unwrap_or_else(trust::default_key);
        write_stderr(&format!(
            "made the key {} that signs bundles: {}\n",
            key.public().id(),
            path.display()
        ));
    }
    let index = if args.recipe == "upstream" {
        bundle_upstream::build(args, &cache, &key, additions, &check_complete)?
    } else {
        source::build(&BuildOptions {
            checkout: &absolute(&args.checkout),
            cache: &cache,
            output: &absolute(&args.output),
            additions,
            key: &key,
            check: &check_complete,
            progress: &bundle_upstream::lines(),
        })?
    };
    let total: u64 = index.blobs.iter().map(|b| b.size_bytes).sum();
    write_stdout(&format!(
        "{}: {} programs, {} images, {} in {} blobs, signed by {}\n",
        args.output.display(),
        index.binaries().len(),
        index.images().len(),
        render::bytes(total),
        index.blobs.len(),
        key.public().id()
    ));
    Ok(())
}

/// Reads the objects that are added; names the problems of all files.
fn read_manifests(paths: &[PathBuf]) -> Result<Vec<Manifest>, Diagnosis> {
    let mut manifests: Vec<Manifest> = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Diagnosis::new(Code::FileUnreadable, format!("{} cannot be read", path.display())).because(&error)
        })?;
        match read_manifest(&path.display().to_string(), &text) {
            Ok(manifest) if manifests.iter().any(|m| m.name == manifest.name) => {
                problems.push(format!(
                    "{}: there is a manifest {} before",
                    path.display(),
                    manifest.name
                ));
            }
            Ok(manifest) => manifests.push(manifest),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        return Ok(manifests);
    }
    let wrong = Diagnosis::new(Code::BundleBuild, "the manifests cannot be added");
    Err(problems.into_iter().fold(wrong, Diagnosis::saw))
}

/// Every image that the manifests of a cluster name must be inside, and a cluster must be able to run what is added.
fn check_complete(index: &BundleIndex) -> Result<(), Diagnosis> {
    let name = "node"
        .parse()
        .map_err(|error| Diagnosis::new(Code::Internal, "a fixed name is wrong").because(&error))?;
    let layout = ClusterLayout {
        members: vec![MemberLayout {
            founds: true,
            name,
            control_plane: true,
            schedulable: true,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            interface: "eth0".to_owned(),
        }],
        dns: DnsPolicy::Closed,
        pod_mtu: 1450,
    };
    let spec = ClusterSpec::default();
    let incomplete = |error| Diagnosis::new(Code::BundleMissing, "the bundle is not complete").because(&error);
    required_images(&spec, index, &layout).map_err(incomplete)?;
    let mut problems = added_problems(&spec, index, &layout).map_err(incomplete)?;
    problems.extend(plural_problems(index));
    if problems.is_empty() {
        return Ok(());
    }
    let wrong = Diagnosis::new(Code::BundleBuild, "a cluster could not run the added manifests");
    Err(problems.into_iter().fold(wrong, Diagnosis::saw))
}

/// `install` finds objects by their kind, and makes the plural as English does. A definition with another plural may be added, objects of
/// its kind may not.
fn plural_problems(index: &BundleIndex) -> Vec<String> {
    let objects = || index.manifests.iter().flat_map(|manifest| &manifest.objects);
    let unusual = |definition: &&serde_json::Value| {
        let names = &definition["spec"]["names"];
        let kind = names["kind"].as_str().unwrap_or_default();
        definition["kind"] == "CustomResourceDefinition" && names["plural"] != resource_name(kind)
    };
    let mut problems = Vec::new();
    for definition in objects().filter(unusual) {
        let (group, names) = (&definition["spec"]["group"], &definition["spec"]["names"]);
        let of_kind = |object: &&serde_json::Value| {
            let version = object["apiVersion"].as_str().unwrap_or_default();
            object["kind"] == names["kind"] && version.split_once('/').is_some_and(|(g, _)| group == g)
        };
        problems.extend(objects().filter(of_kind).map(|object| {
            let plural = names["plural"].as_str().unwrap_or_default();
            format!(
                "{}: landfall does not know the plural {plural} of its kind; apply it with kubectl",
                ObjectKey::of(object)
            )
        }));
    }
    problems
}

fn inspect(path: &Path, json: bool) -> Result<(), Diagnosis> {
    let bundle = Bundle::<Unverified>::open(path)?;
    let index = bundle.index();
    if json {
        write_stdout(&format!("{:#}\n", serde_json::to_value(index).unwrap_or_default()));
        return Ok(());
    }
    let size = |digest| index.blob(digest).map_or(0, |b| b.size_bytes);
    let mut text = format!(
        "{}\n  Kubernetes {}, recipe {}, {}, index {}\n",
        path.display(),
        index.kubernetes_version,
        index.recipe,
        architectures(index),
        bundle.index_digest()
    );
    text.push_str(&signed(&bundle));
    if let Some(role) = bundle.role() {
        text.push_str(&format!(
            "  exported for the role {role}; what other nodes need alone is not inside\n"
        ));
    }
    if let Some(from) = &index.min_upgrade_from {
        text.push_str(&format!(
            "  version {}, upgrades from Kubernetes {from}\n",
            index.bundle_version
        ));
    }
    text.push_str("\ncomponents\n");
    for component in &index.components {
        text.push_str(&format!("  {:28} {}\n", component.name, component.version));
    }
    text.push_str("\nprograms\n");
    for binary in index.binaries() {
        text.push_str(&format!(
            "  {:28} {:>10}\n",
            binary.name,
            render::bytes(size(&binary.blob))
        ));
    }
    text.push_str("\nimages\n");
    for image in index.images() {
        let bytes = image.blobs.iter().map(&size).sum();
        let workers = image.roles.contains(&landfall_core::bundle_index::BundleRole::Worker);
        let roles = if workers { "all nodes" } else { "control planes" };
        text.push_str(&format!(
            "  {:64} {:>10}  {roles}\n",
            image.reference.to_string(),
            render::bytes(bytes)
        ));
    }
    if !index.packages.is_empty() {
        text.push_str("\nDebian packages in layers\n");
    }
    for package in &index.packages {
        text.push_str(&format!("  {:28} {}\n", package.name, package.version));
    }
    for manifest in &index.manifests {
        text.push_str(&format!("\nadded objects of {}\n", manifest.name));
        for object in &manifest.objects {
            text.push_str(&format!("  {}\n", ObjectKey::of(object)));
        }
    }
    write_stdout(&text);
    Ok(())
}

fn architectures(index: &BundleIndex) -> String {
    let names: Vec<&str> = index.variants.iter().map(|v| v.architecture.as_str()).collect();
    names.join(" and ")
}

/// Says whose signature is there. Whether it is right, `verify` and `install` say.
fn signed(bundle: &Bundle<Unverified>) -> String {
    let key = bundle.signature().and_then(|text| Signature::parse(text).ok());
    key.map_or_else(
        || "  not signed\n".to_owned(),
        |s| format!("  signature by {}\n", s.key_id()),
    )
}

fn verify(path: &Path, trust: &TrustArgs) -> CommandResult {
    let open = || Bundle::open(path)?.verify(&trust::offer(trust, &[])?);
    let bundle = open().map_err(|d| vec![d])?;
    bundle.check_blobs(&mut |_, _| {})?;
    let by = super::bundle_files::signed_by(&bundle);
    let role = bundle.role().map(|role| format!("; for the role {role} alone"));
    let role = role.unwrap_or_default();
    write_stdout(&format!(
        "{}: every byte is as the index says; {by}{role}\n",
        path.display()
    ));
    Ok(ExitCode::Done)
}

fn keygen(output: Option<PathBuf>, ask: bool, password_file: Option<&Path>) -> Result<(), Diagnosis> {
    let secret = output.unwrap_or_else(trust::default_key);
    let what = "password of the secret key";
    let password = match password_file {
        Some(file) => Some(passwords::from_file(file, what, None)?),
        None if ask => Some(passwords::ask(what)?),
        None => None,
    };
    let public = trust::public_of(&secret);
    let key = trust::keygen(&secret, &public, password.as_ref())?;
    write_stdout(&format!(
        "key {}: {} is secret, {} is for those who install\n",
        key.public().id(),
        secret.display(),
        public.display()
    ));
    Ok(())
}

fn sign(path: &Path, args: &KeyArgs) -> Result<(), Diagnosis> {
    let secret = args.key.clone().unwrap_or_else(trust::default_key);
    let key = trust::secret_key(&secret, args.password_file.as_deref())?;
    let id = key.public().id();
    if path.extension().is_some_and(|end| end == "pub") {
        let text = trust::read_small(path)?;
        PublicKey::parse(&text).map_err(|error| {
            let what = format!("{} is no public key", path.display());
            Diagnosis::new(Code::BundleSignature, what)
                .because(&error)
                .next("name a bundle, or a public key")
        })?;
        let signature = key.sign(text.as_bytes(), "a key for bundles");
        let beside = trust::beside(path);
        write_whole(&beside, signature.to_text().as_bytes(), 0o644)?;
        write_stdout(&format!("{}: signed by {id}\n", beside.display()));
        return Ok(());
    }
    landfall_bundle::sign(&Bundle::<Unverified>::open(path)?, &key, path)?;
    write_stdout(&format!("{}: signed by {id}\n", path.display()));
    Ok(())
}
