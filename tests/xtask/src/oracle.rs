//! ansible-core for the tests of `ansible-compat`: installed from PyPI into the cache, once. And the tests of the Ansible collection.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The version that `landfall inventory --list` is compared with.
const ANSIBLE: &str = "ansible-core==2.19.14";

/// What checks the collection beside ansible-core itself; the newest of each on 2026-11-28.
const TOOLS: [&str; 3] = [ANSIBLE, "ansible-lint==26.10.1", "ansible-builder==3.2.0"];

/// Older versions, the newest of each on 2026-11-28, with which inventories are compared too in a long run.
const OLDER: [&str; 3] = [
    "ansible-core==2.16.19",
    "ansible-core==2.17.14",
    "ansible-core==2.18.19",
];

/// Installs ansible-core into a virtual environment below `cache`, unless it is there, and returns its Python.
pub fn python(cache: &Path) -> Result<PathBuf> {
    of_version(cache, ANSIBLE)
}

/// The same for each older version.
pub fn older_pythons(cache: &Path) -> Result<Vec<PathBuf>> {
    OLDER.iter().map(|version| of_version(cache, version)).collect()
}

fn of_version(cache: &Path, version: &str) -> Result<PathBuf> {
    environment(
        &cache.join(version.replace("==", "-")),
        &[version],
        "ansible.cli.inventory",
    )
}

/// Installs packages into a virtual environment, unless `module` can be imported there, and returns its Python.
fn environment(home: &Path, packages: &[&str], module: &str) -> Result<PathBuf> {
    let python = home.join("bin/python");
    let works = Command::new(&python)
        .args(["-c", &format!("import {module}")])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if works.is_ok_and(|status| status.success()) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(home))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    run(pip.args(packages))?;
    Ok(python)
}

/// The collection of one program, installed with its tools. It goes when it is dropped.
pub struct Collection {
    /// Python with ansible-core and what checks collections.
    pub python: PathBuf,
    /// The archive that the program exported.
    pub archive: PathBuf,
    /// Folder of installed collections.
    pub collections: PathBuf,
    _home: TempDir,
}

impl Collection {
    /// Exports the collection from `program` and installs it as a user does.
    pub fn install(cache: &Path, program: &Path) -> Result<Self> {
        let name = format!("ansible-collection-tools-{}", TOOLS.join("-").replace("==", "-"));
        // ansible-builder is installed last.
        let python = environment(&cache.join(name), &TOOLS, "ansible_builder")?;
        let home = tempfile::tempdir()?;
        let archive = home.path().join("landfall-cluster.tar.gz");
        run(Command::new(program)
            .args(["ansible", "export", "--output"])
            .arg(&archive))?;
        let collections = home.path().join("collections");
        let mut install = Command::new(python.with_file_name("ansible-galaxy"));
        install.args(["collection", "install", "--offline"]).arg(&archive);
        run(install.arg("--collections-path").arg(&collections))?;
        Ok(Self {
            python,
            archive,
            collections,
            _home: home,
        })
    }
}

/// Runs the tests of the collection that `program` exports. Returns how many passed and how many failed.
pub fn collection(cache: &Path, program: &Path) -> Result<(usize, usize)> {
    let Collection {
        python,
        archive,
        collections,
        _home,
    } = Collection::install(cache, program)?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ansible-compat/tests/collection");
    let mut unittest = Command::new(&python);
    unittest
        .args(["-m", "unittest", "discover", "--verbose", "--start-directory"])
        .arg(tests);
    unittest
        .env("LANDFALL_PROGRAM", program)
        .env("LANDFALL_COLLECTION", &archive)
        .env("ANSIBLE_COLLECTIONS_PATH", &collections)
        .env("PYTHONPATH", &collections)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let output = unittest.stdin(Stdio::null()).stdout(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    print!("{text}");
    let (ran, failed) = summary(&text).context("the tests of the collection ended without a result")?;
    // Failures of parts of one test count as one.
    let failed = failed.max(usize::from(!output.status.success())).min(ran);
    ensure!(ran > 0, "there are no tests of the collection");
    Ok((ran - failed, failed))
}

/// Reads `Ran 7 tests in …` and `FAILED (failures=1, errors=2)`.
fn summary(text: &str) -> Option<(usize, usize)> {
    let ran = text
        .lines()
        .find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse().ok())?;
    let last = text.lines().next_back()?;
    let failed = last
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse::<usize>().ok());
    Some((ran, if last.starts_with("FAILED") { failed.sum() } else { 0 }))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{command:?} cannot be started"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_python_s_tests_are_counted() {
        assert_eq!(summary("...\nRan 7 tests in 3.100s\n\nOK\n"), Some((7, 0)));
        assert_eq!(
            summary("Ran 7 tests in 3.1s\n\nFAILED (failures=1, errors=2)\n"),
            Some((7, 3))
        );
        assert_eq!(summary("ImportError\n"), None);
    }
}
