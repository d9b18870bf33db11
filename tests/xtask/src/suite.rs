//! `cargo xtask test`: runs every check in turn, continues after a failure, and prints the counts at the end.

use crate::artifacts::Built;
use crate::{artifacts, crash, dag, damage, firewalld, go_programs, ingress, openssh, oracle, room, sk_dummy, sudo_rs};
use anyhow::{Context, Result, ensure};
use landfall_lab::{host, own_kernel, scenario};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// What tests need beside the lab's packages: those of `installer/ssh` start an sshd or dropbear of their own on loopback, with users of
/// several login shells, sudo and doas; those of the ingress proxy's dashboard look at it with a browser; those of inventories ask
/// ansible-core, which lives in a virtual environment. minisign signs beside landfall, gpg as publishers do, whose signatures gpgv verifies.
/// strace tells what is put on disk when. sudo-rs is built with libpam0g-dev. ufw is switched on in network namespaces of the agent's tests, with files of its own.
const TEST_PACKAGES: [&str; 15] = [
    "openssh-server",
    "dropbear-bin",
    "openssl",
    "sudo",
    "opendoas",
    "fish",
    "tcsh",
    "chromium",
    "python3-venv",
    "minisign",
    "ufw",
    "gnupg",
    "gpgv",
    "strace",
    "libpam0g-dev",
];

/// When the lab of one machine with a kernel of its own begins at the latest, from the start of all: it takes some six minutes, and all together may take 75.
const LATEST_START: Duration = Duration::from_mins(55);

/// What building its kernel and disk takes beside the lab of containers, on two processors (2026-11-30).
const KERNEL_BUILD: Duration = Duration::from_mins(15);

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

    fn of_checks(checks: &[scenario::Check]) -> Self {
        let mut count = Self::default();
        for check in checks {
            count.add(Self::of(check.failure.is_none()));
        }
        count
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
    let began = Instant::now();
    suite.section("Debian packages", || {
        host::install_packages(&TEST_PACKAGES)?;
        // Now: two of apt do not run at the same time, and those machines are built beside the lab of containers.
        host::install_packages(&own_kernel::PACKAGES)?;
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
    // The release build and Go's fill the time in which tests wait.
    let build = if suite.only.is_none() {
        Some(artifacts::Background::start(&["prepare"])?)
    } else {
        None
    };
    suite.section("tests", tests);
    suite.section("Ansible collection", collection);
    if full {
        suite.section("inventories next to ansible-core, long", inventories_long);
        suite.section("ingress proxy, long", long_tests);
        suite.section("soak", || ingress::soak_loses_nothing().map(Count::of));
        suite.section("crashes", || crash::every_place().map(Count::of));
    }
    // `--full` has no limit, and a section that was asked for by name has none.
    let latest = (!full && suite.only.is_none()).then(|| began + LATEST_START);
    let mut kernel = None;
    suite.section("lab", || {
        build.map_or(Ok(()), artifacts::Background::wait)?;
        // The kernel's build fills the time in which the lab waits, unless it cannot end in time.
        if let Some(latest) = latest {
            let one = OneMachine::chosen()?;
            if one.is_built() || Instant::now() + KERNEL_BUILD < latest {
                kernel = Some(one.prepare()?);
            }
        }
        lab()
    });
    suite.section("lab, one own kernel", || {
        let built = match (latest, kernel) {
            (None, _) => Built::Whole,
            (Some(_), None) => Built::TooLate,
            (Some(latest), Some(build)) => build.wait_until(latest)?,
        };
        match built {
            Built::TooLate => Ok(OneMachine::skip()),
            Built::Failed => Ok(Count::of(false)),
            Built::Whole => OneMachine::chosen()?.run(),
        }
    });
    if full {
        suite.section("bundle, long", bundle_long);
        suite.section("lab, long", lab_long);
        suite.section("lab, own kernels", lab_own_kernels);
    }
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
        println!("== {name} ({} free)", free_space());
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

/// Room on the file system of the checkout. A full disk ends everything, this output too, so each section says how much there was.
fn free_space() -> String {
    room::free_bytes().map_or_else(
        |error| format!("unknown space: {error}"),
        |bytes| format!("{} MB", bytes / 1_000_000),
    )
}

fn cargo(args: &[&str]) -> Result<bool> {
    Ok(Command::new("cargo")
        .args(args)
        .stdin(Stdio::null())
        .status()?
        .success())
}

/// What of the ingress proxy's tests can be made longer: each parser fed for two minutes, simulations, hand-overs under load, a
/// flood of connections.
fn long_tests() -> Result<Count> {
    let mut cargo = Command::new("cargo");
    cargo.args([
        "test",
        "--locked",
        "--no-fail-fast",
        "--package",
        "landfall-ingress",
        "--package",
        "landfall-ingress-htpasswd",
        "--package",
        "landfall-ingress-http",
        "--package",
        "landfall-ingress-kubernetes",
        "--package",
        "landfall-ingress-listen",
        "--package",
        "landfall-ingress-proxy",
        "--package",
        "landfall-ingress-translate",
        "--package",
        "landfall-ingress-upstream",
        "--",
    ]);
    cargo.args([
        "fuzz::",
        "simulation::",
        "an_upgrade_under_load_loses_nothing",
        "a_flood_from_four_addresses_stops_nobody",
    ]);
    let longer = [
        ("FUZZ_SECONDS", "120"),
        ("LANDFALL_SEEDS", "2000"),
        ("LANDFALL_ROUNDS", "40"),
        ("LANDFALL_FLOOD", "20000"),
    ];
    run_tests(cargo.envs(longer))
}

/// The bundle that the lab installs from, pushed over connections that are cut, and with flipped bytes. Then what reads bundles, signatures, the frames
/// of agents, known_hosts and `ssh_config` is fed with mutated corpora.
fn bundle_long() -> Result<Count> {
    let mut count = Count::of(damage::every_cut()?);
    count.add(Count::of(damage::every_flip()?));
    let mut fuzz = Command::new("cargo");
    fuzz.args(["test", "--locked", "--no-fail-fast", "--lib"]);
    for package in ["landfall-core", "landfall-bundle", "landfall-ssh"] {
        fuzz.args(["--package", package]);
    }
    count.add(run_tests(fuzz.args(["--", "fuzz::"]).env("FUZZ_SECONDS", "120"))?);
    Ok(count)
}

/// Builds the bundle and runs the scenarios on real nodes; every check counts.
fn lab() -> Result<Count> {
    let artifacts::Artifacts { program, bundle } = artifacts::build()?;
    let built = scenario::Built {
        release: scenario::Release { program, bundle },
        proof: ingress::proof_program()?,
    };
    room::make_for_lab()?;
    Ok(Count::of_checks(&scenario::run(&built, &artifacts::cache()?)?))
}

/// A cluster of a bundle made of what publishers release, one that the program of journal version 1 made, the Ansible collection, and ten cycles of install and uninstall.
fn lab_long() -> Result<Count> {
    let now = artifacts::build()?;
    let upstream = artifacts::build_upstream(&now)?;
    let old = artifacts::build_old()?;
    let release = |built: artifacts::Artifacts| scenario::Release {
        program: built.program,
        bundle: built.bundle,
    };
    let collection = oracle::Collection::install(&artifacts::cache()?, &now.program)?;
    let ansible = scenario::Ansible {
        playbook: collection.python.with_file_name("ansible-playbook"),
        collections: collection.collections.clone(),
    };
    let built = scenario::LongBuilt {
        now: release(now),
        upstream: release(upstream),
        old: release(old),
    };
    room::make_for_lab()?;
    let checks = scenario::run_long(&built, &ansible, &artifacts::cache()?)?;
    Ok(Count::of_checks(&checks))
}

/// Those of the six machines that the commit chooses among: Debian 12, plain and hardened. The others wait until each has been seen whole.
const SHOWN: [usize; 2] = [0, 3];

/// The machine with a kernel of its own that every run of the tests installs: by the commit, or one of six by `LANDFALL_OWN_KERNEL`.
struct OneMachine(usize);

impl OneMachine {
    fn chosen() -> Result<Self> {
        let number = match std::env::var("LANDFALL_OWN_KERNEL") {
            Ok(number) => {
                let number = number.parse().ok().filter(|number| *number < 6);
                number.context("LANDFALL_OWN_KERNEL is a number from 0 to 5")?
            }
            Err(_) => {
                let head = host::run(Command::new("git").args(["rev-parse", "HEAD"]))?;
                let number = usize::from_str_radix(head.get(..4).unwrap_or_default(), 16)?;
                SHOWN[number % SHOWN.len()]
            }
        };
        Ok(Self(number))
    }

    fn is_built(&self) -> bool {
        artifacts::cache().is_ok_and(|cache| scenario::own_kernel::describe_one(self.0, &cache).is_built())
    }

    fn prepare(&self) -> Result<artifacts::Background> {
        artifacts::Background::start(&["prepare-one", &self.0.to_string()])
    }

    fn skip() -> Count {
        let minutes = LATEST_START.as_secs() / 60;
        println!("skipped: it could not begin {minutes} minutes after the start");
        Count {
            skipped: 1,
            ..Count::default()
        }
    }

    /// Installs, boots again, uninstalls.
    fn run(&self) -> Result<Count> {
        let artifacts::Artifacts { program, bundle } = artifacts::build()?;
        let release = scenario::Release { program, bundle };
        room::make_for_lab()?;
        let checks = scenario::own_kernel::run_one(self.0, &release, &artifacts::cache()?)?;
        Ok(Count::of_checks(&checks))
    }
}

/// A control plane and a hardened worker with kernels of their own, on each release of Debian, or on those that `LANDFALL_DEBIAN` names.
fn lab_own_kernels() -> Result<Count> {
    let artifacts::Artifacts { program, bundle } = artifacts::build()?;
    let release = scenario::Release { program, bundle };
    room::make_for_lab()?;
    let named = std::env::var("LANDFALL_DEBIAN").ok();
    let is_named = |suite: &own_kernel::Suite| {
        named
            .as_ref()
            .is_none_or(|named| named.split(',').any(|n| n == suite.name()))
    };
    let suites: Vec<_> = own_kernel::Suite::ALL.into_iter().filter(is_named).collect();
    ensure!(
        !suites.is_empty(),
        "LANDFALL_DEBIAN={} names none",
        named.unwrap_or_default()
    );
    let mut count = Count::default();
    for suite in suites {
        let checks = scenario::own_kernel::run(suite, &release, &artifacts::cache()?)?;
        count.add(Count::of_checks(&checks));
    }
    Ok(count)
}

/// 10,000 generated inventories and 1,000 logins, read by landfall and by ansible-core, the inventories also by its older versions; fuzzing.
fn inventories_long() -> Result<Count> {
    let cache = artifacts::cache()?;
    let of_the_package = |arguments: &[&str]| {
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--locked", "--no-fail-fast", "--package", "landfall-ansible"]);
        cargo.args(arguments);
        cargo
    };
    let compare = |python: &Path, tests: &[&str]| {
        let mut cargo = of_the_package(tests);
        cargo.args(["--", "--ignored"]).env("LANDFALL_ORACLE_PYTHON", python);
        run_tests(cargo.envs([("LANDFALL_ORACLE_COUNT", "10000"), ("LANDFALL_ORACLE_LOGINS", "1000")]))
    };
    let mut count = compare(&oracle::python(&cache)?, &["--test", "oracle", "--test", "logins"])?;
    for python in oracle::older_pythons(&cache)? {
        count.add(compare(&python, &["--test", "oracle"])?);
    }
    let mut fuzz = of_the_package(&["--lib", "fuzz::"]);
    count.add(run_tests(fuzz.env("FUZZ_SECONDS", "120"))?);
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

/// All tests of the workspace, those that need ansible-core, sudo-rs, other releases' OpenSSH or CNCF's registry too: they are installed first. 300 inventories and 40 logins are compared with it.
fn tests() -> Result<Count> {
    let mut cargo = Command::new("cargo");
    cargo.env("LANDFALL_ORACLE_PYTHON", oracle::python(&artifacts::cache()?)?);
    cargo.env("LANDFALL_FIREWALLD", firewalld::roots(&artifacts::cache()?)?);
    cargo.env("LANDFALL_SUDO_RS", sudo_rs::programs(&artifacts::cache()?)?);
    cargo.env("LANDFALL_OPENSSH", openssh::releases(&artifacts::cache()?)?);
    cargo.env("LANDFALL_SK_DUMMY", sk_dummy::library(&artifacts::cache()?)?);
    cargo.env("LANDFALL_REGISTRY", go_programs::build(&go_programs::REGISTRY)?);
    cargo.envs([("LANDFALL_ORACLE_COUNT", "300"), ("LANDFALL_ORACLE_LOGINS", "40")]);
    if !host::is_root() {
        // Tests of the agent make network namespaces and cgroups.
        cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "sudo -n -E");
    }
    cargo.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    run_tests(cargo.args(["--", "--include-ignored"]))
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
