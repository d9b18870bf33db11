//! `cargo xtask test`: every check in turn, all of them also after a failure, and one closing count.

use crate::{artifacts, crash, dag, ingress, oracle};
use anyhow::{Result, ensure};
use landfall_lab::{host, scenario};
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// What tests need beside the lab's packages: those of `installer/ssh` start an sshd of their own on loopback, those of the ingress
/// proxy's dashboard look at it with a browser; those of inventories ask ansible-core, which lives in a virtual environment.
const TEST_PACKAGES: [&str; 4] = ["openssh-server", "sudo", "chromium", "python3-venv"];

/// Passed, failed and skipped checks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Count {
    fn of(ok: bool) -> Self {
        Self {
            passed: usize::from(ok),
            failed: usize::from(!ok),
            skipped: 0,
        }
    }
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// The sections that ran, and which may run.
struct Suite {
    only: Option<String>,
    names: Vec<&'static str>,
    total: Count,
}

/// Runs everything, or the one section of that name. The exit code is a failure when anything failed.
pub fn run(full: bool, only: Option<String>) -> Result<ExitCode> {
    let mut suite = Suite {
        only,
        names: vec![],
        total: Count::default(),
    };
    suite.section("Debian packages", || {
        host::install_packages(&TEST_PACKAGES)?;
        ingress::install_peers().map(|()| Count::of(true))
    });
    suite.section("format", || Ok(Count::of(cargo(&["fmt", "--all", "--", "--check"])?)));
    suite.section("clippy", || {
        Ok(Count::of(cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ])?))
    });
    suite.section("dependency rules", || {
        let faults = dag::check()?;
        for fault in &faults {
            println!("{fault}");
        }
        Ok(Count::of(faults.is_empty()))
    });
    suite.section("tests", tests);
    suite.section("inventories next to ansible-core", move || inventories(full));
    suite.section("Ansible collection", collection);
    if full {
        suite.section("ingress proxy, long", long_tests);
        suite.section("soak", || ingress::soak_loses_nothing().map(Count::of));
        suite.section("crashes", || crash::every_place().map(Count::of));
    }
    suite.section("lab", lab);
    let Suite { only, names, total } = suite;
    if let Some(only) = only {
        ensure!(
            names.contains(&only.as_str()),
            "there is no section {only:?}; there are: {}",
            names.join(", ")
        );
    }
    println!(
        "{} passed, {} failed, {} skipped",
        total.passed, total.failed, total.skipped
    );
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Suite {
    fn section(&mut self, name: &'static str, work: impl FnOnce() -> Result<Count>) {
        self.names.push(name);
        if self.only.as_deref().is_some_and(|only| only != name) {
            return;
        }
        println!("== {name}");
        let start = Instant::now();
        let count = work().unwrap_or_else(|error| {
            println!("{name}: {error:#}");
            Count::of(false)
        });
        println!(
            "== {name}: {} passed, {} failed, {} skipped in {:.0} s",
            count.passed,
            count.failed,
            count.skipped,
            start.elapsed().as_secs_f32()
        );
        self.total.add(count);
    }
}

fn cargo(args: &[&str]) -> Result<bool> {
    Ok(Command::new("cargo")
        .args(args)
        .stdin(Stdio::null())
        .status()?
        .success())
}

/// What of the ingress proxy's tests can be made longer: each parser fed for two minutes, simulations, hand-overs under load.
fn long_tests() -> Result<Count> {
    let mut cargo = Command::new("cargo");
    cargo.args([
        "test",
        "--locked",
        "--no-fail-fast",
        "--package",
        "landfall-ingress",
        "--",
    ]);
    cargo.args(["fuzz::", "simulation::", "an_upgrade_under_load_loses_nothing"]);
    let longer = [
        ("FUZZ_SECONDS", "120"),
        ("LANDFALL_SEEDS", "2000"),
        ("LANDFALL_ROUNDS", "40"),
    ];
    run_tests(cargo.envs(longer))
}

/// Builds the bundle and shows on real nodes what it must show; every check counts.
fn lab() -> Result<Count> {
    let artifacts::Artifacts { program, bundle } = artifacts::build()?;
    let proof = ingress::proof_program()?;
    let built = scenario::Built { program, bundle, proof };
    let checks = scenario::run(&built, &artifacts::cache()?)?;
    let mut count = Count::default();
    for check in &checks {
        count.add(Count::of(check.failure.is_none()));
    }
    Ok(count)
}

/// Generated inventories and logins, read by landfall and by ansible-core: 300 and 40, or 10,000 and 1,000 with `--full`, and fuzzing then.
fn inventories(full: bool) -> Result<Count> {
    let python = oracle::python(&artifacts::cache()?)?;
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--locked", "--no-fail-fast", "--package", "landfall-ansible"]);
    cargo.args(["--test", "oracle", "--test", "logins"]);
    cargo.args(["--", "--ignored"]).env("LANDFALL_ORACLE_PYTHON", python);
    cargo.env("LANDFALL_ORACLE_COUNT", if full { "10000" } else { "300" });
    cargo.env("LANDFALL_ORACLE_LOGINS", if full { "1000" } else { "40" });
    let mut count = run_tests(&mut cargo)?;
    if full {
        let mut fuzz = Command::new("cargo");
        fuzz.args([
            "test",
            "--locked",
            "--no-fail-fast",
            "--package",
            "landfall-ansible",
            "--lib",
            "fuzz::",
        ]);
        count.add(run_tests(fuzz.env("FUZZ_SECONDS", "120"))?);
    }
    Ok(count)
}

/// The Ansible collection, exported from the program and installed: its own tests, ansible-lint, ansible-doc, ansible-builder.
fn collection() -> Result<Count> {
    let (passed, failed) = oracle::collection(&artifacts::cache()?, &artifacts::debug("landfall")?)?;
    Ok(Count {
        passed,
        failed,
        skipped: 0,
    })
}

/// All tests of the workspace.
fn tests() -> Result<Count> {
    let mut cargo = Command::new("cargo");
    if !host::is_root() {
        // Tests of the agent make network namespaces and cgroups.
        cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "sudo -n -E");
    }
    run_tests(cargo.args(["test", "--workspace", "--locked", "--no-fail-fast"]))
}

/// Runs test programs and adds up their own result lines. A run that breaks off without one counts as failed.
fn run_tests(cargo: &mut Command) -> Result<Count> {
    // What tests need was installed above: one that skips itself for want of a program fails (tests/ingress/src/needs.rs).
    let mut child = cargo
        .env("LANDFALL_NO_SKIPS", "1")
        // A snapshot that differs fails, and leaves no file beside it.
        .env("INSTA_UPDATE", "no")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut count = Count::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("{line}");
            if let Some(result) = parse_result(&line) {
                count.add(result);
            }
        }
    }
    if !child.wait()?.success() && count.failed == 0 {
        count.failed = 1;
    }
    Ok(count)
}

/// Reads `test result: ok. 7 passed; 0 failed; 1 ignored; …`.
fn parse_result(line: &str) -> Option<Count> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |word: &str| {
        let before = &rest[..rest.find(word)?];
        before.trim_end().rsplit(' ').next()?.parse().ok()
    };
    Some(Count {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number("ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted() {
        let line = "test result: FAILED. 17 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.34s";
        assert_eq!(
            parse_result(line),
            Some(Count {
                passed: 17,
                failed: 2,
                skipped: 1
            })
        );
        assert_eq!(parse_result("running 3 tests"), None);
    }
}
