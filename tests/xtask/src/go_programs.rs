//! Programs that tests need and Debian does not have in this version, built from their Go modules.

use crate::artifacts;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program of a Go module, in its folder `cmd`.
pub struct GoProgram {
    name: &'static str,
    module: &'static str,
    version: &'static str,
    /// Checksum of the module as `go.sum` has it; its own `go.sum` has those of all others.
    sum: &'static str,
    /// Where the program keeps its version.
    version_variable: &'static str,
}

/// For the benchmark. The newest version all of whose modules could be had (2026-11-25): 3.7 needs forks of go-http-auth and of DNS
/// providers that the module proxy does not serve.
pub const TRAEFIK: GoProgram = GoProgram {
    name: "traefik",
    module: "github.com/traefik/traefik/v3",
    version: "v3.6.12",
    sum: "h1:6pe4s7aaDTQs+AsF7KP3sM/xnq7zOVvibRQe5tw9eFo=",
    version_variable: "pkg/version.Version",
};

/// CNCF's registry, from which the recipe `upstream` takes images in a test.
pub const REGISTRY: GoProgram = GoProgram {
    name: "registry",
    module: "github.com/distribution/distribution/v3",
    version: "v3.1.2",
    sum: "h1:/Bv2YIqqSR00HiO49FT93hovy6r9IlrzwUDsJjCN5qg=",
    version_variable: "version.version",
};

/// Returns the program; builds it first, which takes some minutes, when that was not done before.
pub fn build(wanted: &GoProgram) -> Result<PathBuf> {
    let GoProgram {
        name, module, version, ..
    } = wanted;
    let folder = artifacts::cache()?.join(name).join(version);
    let program = folder.join(name);
    if program.exists() {
        return Ok(program);
    }
    println!("building {name} {version} from its Go module");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let source = folder.join("source");
    copy(&download(wanted, &folder)?, &source)?;
    // Within its own module, so that its replacements of other modules count.
    let part = folder.join(format!("{name}.part"));
    let link = format!("-ldflags=-s -w -X {module}/{}={version}", wanted.version_variable);
    let mut go = Command::new("go");
    go.current_dir(&source)
        .env("CGO_ENABLED", "0")
        .args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", &link, "-o"])
        .arg(&part)
        .arg(format!("./cmd/{name}"));
    ensure!(go.stdin(Stdio::null()).status()?.success(), "{name} does not build");
    fs::rename(&part, &program)?;
    fs::remove_dir_all(&source)?;
    Ok(program)
}

/// Has Go fetch the module and checks what came; returns where its files are.
fn download(wanted: &GoProgram, folder: &Path) -> Result<PathBuf> {
    let GoProgram {
        module, version, sum, ..
    } = wanted;
    let mut go = Command::new("go");
    go.current_dir(folder)
        .args(["mod", "download", "-json", &format!("{module}@{version}")]);
    let output = go.stdin(Stdio::null()).output().context("go")?;
    let told: Value = serde_json::from_slice(&output.stdout).context("what go says of the module")?;
    ensure!(output.status.success(), "{module} cannot be had: {}", told["Error"]);
    ensure!(
        told["Sum"] == *sum,
        "{module} has the checksum {}, not {sum}",
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
