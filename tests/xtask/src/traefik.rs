//! traefik for the benchmark, built from its Go module: Debian has no package of it.

use crate::artifacts;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MODULE: &str = "github.com/traefik/traefik/v3";
/// The newest version all of whose modules could be had (2026-11-25): 3.7 needs forks of go-http-auth and of DNS providers that the
/// module proxy does not serve.
const VERSION: &str = "v3.6.12";
/// Checksum of the module as `go.sum` has it; its own `go.sum` has those of all others.
const SUM: &str = "h1:6pe4s7aaDTQs+AsF7KP3sM/xnq7zOVvibRQe5tw9eFo=";

/// Returns the program; builds it first, which takes some minutes, when that was not done before.
pub fn build() -> Result<PathBuf> {
    let folder = artifacts::cache()?.join("traefik").join(VERSION);
    let program = folder.join("traefik");
    if program.exists() {
        return Ok(program);
    }
    println!("building traefik {VERSION} from its Go module");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let source = folder.join("source");
    copy(&download(&folder)?, &source)?;
    // Within its own module, so that its replacements of other modules count.
    let part = folder.join("traefik.part");
    let link = format!("-ldflags=-s -w -X {MODULE}/pkg/version.Version={VERSION}");
    let mut go = Command::new("go");
    go.current_dir(&source)
        .env("CGO_ENABLED", "0")
        .args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", &link, "-o"])
        .arg(&part)
        .arg("./cmd/traefik");
    ensure!(go.stdin(Stdio::null()).status()?.success(), "traefik does not build");
    fs::rename(&part, &program)?;
    fs::remove_dir_all(&source)?;
    Ok(program)
}

/// Has Go fetch the module and checks what came; returns where its files are.
fn download(folder: &Path) -> Result<PathBuf> {
    let mut go = Command::new("go");
    go.current_dir(folder)
        .args(["mod", "download", "-json", &format!("{MODULE}@{VERSION}")]);
    let output = go.stdin(Stdio::null()).output().context("go")?;
    let told: Value = serde_json::from_slice(&output.stdout).context("what go says of the module")?;
    ensure!(output.status.success(), "{MODULE} cannot be had: {}", told["Error"]);
    ensure!(
        told["Sum"] == SUM,
        "{MODULE} has the checksum {}, not {SUM}",
        told["Sum"]
    );
    Ok(PathBuf::from(told["Dir"].as_str().context("no folder")?))
}

/// Go's own copy may not be written to.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    let mut cp = Command::new("cp");
    cp.args(["-r", "--no-preserve=mode"]).args([from, to]);
    ensure!(cp.status()?.success(), "{} cannot be copied", from.display());
    Ok(())
}
