//! The program and the bundle, built when their inputs changed.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the built things lie.
pub struct Artifacts {
    /// The `landfall` program.
    pub program: PathBuf,
    /// The bundle.
    pub bundle: PathBuf,
}

/// Folder for everything that is slow to make; git ignores it.
pub fn cache() -> Result<PathBuf> {
    Ok(checkout()?.join(".cache"))
}

fn checkout() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    Ok(here.context("xtask lies two folders below the checkout")?.to_owned())
}

/// Builds both. cargo, Go's cache and the builder's own store make the second time quick.
pub fn build() -> Result<Artifacts> {
    landfall_lab::host::install_packages(&[])?;
    let checkout = checkout()?;
    println!("building landfall");
    let program = release("landfall")?;
    let bundle = cache()?.join("landfall.bundle");
    println!("building the bundle");
    let mut build = Command::new(&program);
    build
        .args(["bundle", "build", "--recipe", "source", "--output"])
        .arg(&bundle);
    build
        .arg("--checkout")
        .arg(&checkout)
        .arg("--cache")
        .arg(cache()?.join("landfall"));
    let status = build.stdin(Stdio::null()).status()?;
    ensure!(status.success(), "the bundle cannot be built");
    Ok(Artifacts { program, bundle })
}

/// Builds the program of a package as it is released; returns the file.
pub fn release(package: &str) -> Result<PathBuf> {
    program(package, &["--release"])
}

/// Builds the program of a package as tests use it; returns the file.
pub fn debug(package: &str) -> Result<PathBuf> {
    program(package, &[])
}

fn program(package: &str, profile: &[&str]) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(checkout()?).args([
        "build",
        "--quiet",
        "--locked",
        "--package",
        package,
        "--message-format=json-render-diagnostics",
    ]);
    let output = cargo
        .args(profile)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "{package} does not build");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .context("cargo names no program")
}
