//! ansible-core for the tests of `ansible-compat`: installed from PyPI into the cache, once.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The version that `landfall inventory --list` is compared with.
const ANSIBLE: &str = "ansible-core==2.19.14";

/// Installs ansible-core into a virtual environment below `cache`, unless it is there, and returns its Python.
pub fn python(cache: &Path) -> Result<PathBuf> {
    let home = cache.join(ANSIBLE.replace("==", "-"));
    let python = home.join("bin/python");
    let works = Command::new(&python)
        .args(["-c", "import ansible.cli.inventory"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if works.is_ok_and(|status| status.success()) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    run(Command::new(&python).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        ANSIBLE,
    ]))?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{command:?} cannot be started"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
