//! `cargo xtask check` and `bless`: what a developer runs between two commits, on the crates that differ from main.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// The branch that changes are compared with.
const BASE: &str = "main";
/// Files whose change concerns every crate.
const COMMON: [&str; 5] = [
    "Cargo.toml",
    "Cargo.lock",
    "clippy.toml",
    "rust-toolchain.toml",
    ".cargo/config.toml",
];
/// Crates with snapshots.
const WITH_SNAPSHOTS: [&str; 1] = ["landfall"];

/// Format of all, then clippy and unit tests of the crates that changed. Goes on after a failure.
pub fn check() -> Result<ExitCode> {
    let packages = changed_packages()?;
    let mut ok = run(&["fmt", "--all", "--", "--check"])?;
    if packages.is_empty() {
        println!("no crate differs from {BASE}");
    } else {
        let names: Vec<&str> = packages.iter().map(String::as_str).collect();
        println!("crates that differ from {BASE}: {}", names.join(", "));
        let selected: Vec<&str> = names.iter().flat_map(|name| ["--package", *name]).collect();
        let clippy = [
            &["clippy", "--locked", "--all-targets"],
            &selected[..],
            &["--", "-D", "warnings"],
        ]
        .concat();
        ok &= run(&clippy)?;
        // Tests in tests/ folders start machines, servers and fleets: `cargo xtask test` runs those.
        ok &= run(&[&["test", "--locked", "--lib", "--bins"], &selected[..]].concat())?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Rewrites every snapshot from the program's present output. `git diff` shows the difference, which is reviewed like code.
pub fn bless() -> Result<ExitCode> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--locked", "--lib", "--bins"]);
    cargo.args(WITH_SNAPSHOTS.iter().flat_map(|name| ["--package", *name]));
    let ok = cargo
        .env("INSTA_UPDATE", "always")
        .stdin(Stdio::null())
        .status()?
        .success();
    git(&["status", "--short", "--", "*.snap"]).map(|changed| print!("{changed}"))?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(args: &[&str]) -> Result<bool> {
    let mut cargo = Command::new("cargo");
    // A snapshot that is missing or differs fails, and leaves no file beside it.
    Ok(cargo
        .args(args)
        .env("INSTA_UPDATE", "no")
        .stdin(Stdio::null())
        .status()?
        .success())
}

fn git(args: &[&str]) -> Result<String> {
    let output = Command::new("git").args(args).output().context("git")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {}: {said}", args.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Crates with a file that differs from where this branch left main, committed or not.
fn changed_packages() -> Result<BTreeSet<String>> {
    let left_main = git(&["merge-base", "HEAD", BASE])?;
    let mut files = git(&["diff", "--name-only", left_main.trim()])?;
    files.push_str(&git(&["ls-files", "--others", "--exclude-standard"])?);
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let root = metadata["workspace_root"].as_str().context("no workspace root")?;
    let mut packages = Vec::new();
    for package in metadata["packages"].as_array().context("no packages")? {
        let name = package["name"].as_str().context("a package without a name")?;
        let manifest = Path::new(
            package["manifest_path"]
                .as_str()
                .context("a package without a manifest")?,
        );
        let folder = manifest.parent().and_then(|folder| folder.strip_prefix(root).ok());
        packages.push((
            name.to_owned(),
            folder.context("a package outside the workspace")?.to_owned(),
        ));
    }
    Ok(packages_of(&packages, files.lines().map(Path::new)))
}

/// Packages, given with their folders, that hold one of `files`; all of them when a common file is among these.
fn packages_of<'a>(
    packages: &[(String, impl AsRef<Path>)],
    files: impl IntoIterator<Item = &'a Path>,
) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files {
        let is_common = COMMON.iter().any(|common| file == Path::new(common));
        let concerned = packages
            .iter()
            .filter(|(_, folder)| is_common || file.starts_with(folder));
        found.extend(concerned.map(|(name, _)| name.clone()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_belongs_to_its_crate() {
        let packages = [("core", "installer/core"), ("cli", "installer/cli")].map(|(n, f)| (n.to_owned(), f));
        let of = |files: &[&str]| -> Vec<String> {
            packages_of(&packages, files.iter().map(Path::new))
                .into_iter()
                .collect()
        };
        assert_eq!(of(&["README.md", "installer/README.md"]), Vec::<String>::new());
        assert_eq!(of(&["installer/core/src/lib.rs"]), ["core"]);
        assert_eq!(of(&["installer/core-2/src/lib.rs"]), Vec::<String>::new());
        assert_eq!(of(&["Cargo.lock"]), ["cli", "core"]);
    }
}
