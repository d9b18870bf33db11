//! The program and the bundle, built when their inputs changed.

use anyhow::{Context, Result, ensure};
use landfall_bundle::own_parts;
use landfall_bundle::source::{AGENT_PACKAGE, INGRESS_PACKAGE, OPERATOR_PACKAGE};
use landfall_bundle::{Bundle, Verified};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::trust::{OfferedKey, TrustOffer};
use landfall_lab::host;
use landfall_test_support::publishers::Publishers;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

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

/// The checkout that this program was built in.
pub fn checkout() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    Ok(here.context("xtask lies two folders below the checkout")?.to_owned())
}

/// Builds both. cargo, Go's cache and the builder's own store make the second time quick.
pub fn build() -> Result<Artifacts> {
    landfall_lab::host::install_packages(&[])?;
    println!("building landfall");
    let program = cache()?.join("landfall-program");
    publish(&program)?;
    lock_anew_what_is_gone()?;
    let bundle = cache()?.join("landfall.bundle");
    // Its public half is beside the bundle, where the lab looks for it.
    let key = bundle.with_extension("key");
    build_bundle(&program, &checkout()?, &bundle, Some(&key))?;
    Ok(Artifacts { program, bundle })
}

/// Returns the bundle as it was built last; where there is none, it is built now.
pub fn bundle() -> Result<PathBuf> {
    let bundle = cache()?.join("landfall.bundle");
    if bundle.exists() && bundle.with_extension("pub").exists() {
        return Ok(bundle);
    }
    Ok(build()?.bundle)
}

/// The last commit whose journals are of version 1. Clusters of its program must stay supported.
const JOURNAL_1: &str = "726b1b0";

/// Builds program and bundle of the commit [`JOURNAL_1`] out of this repository's history, once.
pub fn build_old() -> Result<Artifacts> {
    let folder = cache()?.join(JOURNAL_1);
    let built = Artifacts {
        program: folder.join("landfall"),
        bundle: folder.join("landfall.bundle"),
    };
    if built.program.exists() && built.bundle.exists() {
        return Ok(built);
    }
    println!("building landfall of commit {JOURNAL_1}");
    let tree = folder.join("checkout");
    export(JOURNAL_1, &tree)?;
    fs::copy(program(&tree, "landfall", &["--release"])?, &built.program)
        .context("the old program cannot be copied")?;
    build_bundle(&built.program, &tree, &built.bundle, None)?;
    fs::remove_dir_all(&tree).context("the old checkout cannot be removed")?;
    Ok(built)
}

/// Writes the files of a commit into a folder.
pub fn export(commit: &str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let archive = folder.with_extension("tar");
    let mut git = Command::new("git");
    git.current_dir(checkout()?)
        .args(["archive", commit, "--output"])
        .arg(&archive);
    host::run(&mut git)?;
    host::run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(folder))?;
    fs::remove_file(&archive).with_context(|| format!("{} cannot be removed", archive.display()))
}

/// Opens a bundle that a key has signed.
pub fn open(bundle: &Path, public: &str) -> Result<Bundle<Verified>> {
    let key = OfferedKey {
        key: public.to_owned(),
        endorsement: None,
    };
    let offer = TrustOffer {
        keys: vec![key],
        ..TrustOffer::default()
    };
    let opened = Bundle::open(bundle).and_then(|bundle| bundle.verify(&offer));
    opened.map_err(|diagnosis| anyhow::anyhow!("{}: {diagnosis}", bundle.display()))
}

/// Builds a bundle by the recipe `source` of a checkout. Programs of old commits know no keys.
pub fn build_bundle(program: &Path, checkout: &Path, bundle: &Path, key: Option<&Path>) -> Result<()> {
    println!("building the bundle");
    let mut build = Command::new(program);
    build
        .args(["bundle", "build", "--recipe", "source", "--output"])
        .arg(bundle);
    build.arg("--checkout").arg(checkout);
    if let Some(key) = key {
        build.arg("--key").arg(key);
    }
    build.arg("--cache").arg(cache()?.join("landfall"));
    let status = build.stdin(Stdio::null()).status()?;
    ensure!(status.success(), "the bundle cannot be built");
    Ok(())
}

/// A build in the background, with the lowest priority. It ends with this value.
pub struct Background {
    child: Child,
    log: PathBuf,
}

/// What became of a build that was waited for until a moment.
pub enum Built {
    /// It is there.
    Whole,
    /// It failed.
    Failed,
    /// It was not there in time.
    TooLate,
}

impl Background {
    /// Starts `cargo xtask lab` with these words in a process group of its own, whose output goes to a file.
    pub fn start(words: &[&str]) -> Result<Self> {
        let cache = cache()?;
        fs::create_dir_all(&cache).with_context(|| format!("{} cannot be made", cache.display()))?;
        let log = cache.join(format!("{}.log", words.first().unwrap_or(&"build")));
        let file = File::create(&log).with_context(|| format!("{} cannot be made", log.display()))?;
        let mut build = Command::new("nice");
        build.args(["-n", "19"]).arg(std::env::current_exe()?).arg("lab");
        build.args(words).process_group(0);
        build.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = build.spawn().context("nice cannot be started")?;
        Ok(Self { child, log })
    }

    /// Waits for its end. The build that follows reports errors.
    pub fn wait(mut self) -> Result<()> {
        let status = self.child.wait()?;
        self.say(status);
        Ok(())
    }

    /// Waits for its end until a moment, and ends it then.
    pub fn wait_until(mut self, moment: Instant) -> Result<Built> {
        loop {
            if Instant::now() >= moment {
                return Ok(Built::TooLate);
            }
            if let Some(status) = self.child.try_wait()? {
                self.say(status);
                return Ok(if status.success() { Built::Whole } else { Built::Failed });
            }
            thread::sleep(Duration::from_secs(1));
        }
    }

    fn say(&self, status: ExitStatus) {
        println!(
            "the build in the background: {status}, its log is {}",
            self.log.display()
        );
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // Best effort: what does not end now ends by itself.
        let group = format!("-{}", self.child.id());
        let _ = host::sudo("kill", &["-TERM", "--", &group]);
        let _ = self.child.wait();
    }
}

/// Builds the program of a package as it is released; returns the file.
pub fn release(package: &str) -> Result<PathBuf> {
    program(&checkout()?, package, &["--release"])
}

/// Builds the program of a package as tests use it; returns the file.
pub fn debug(package: &str) -> Result<PathBuf> {
    program(&checkout()?, package, &[])
}

/// Writes the program as people get it: with the agent, the ingress proxy and the list of crates behind it, so that it installs and makes bundles by itself.
pub fn publish(output: &Path) -> Result<()> {
    let checkout = checkout()?;
    let (landfall, agent, ingress) = (
        release(OPERATOR_PACKAGE)?,
        release(AGENT_PACKAGE)?,
        release(INGRESS_PACKAGE)?,
    );
    let publish = || {
        let packages = [OPERATOR_PACKAGE, AGENT_PACKAGE, INGRESS_PACKAGE];
        let crates = landfall_bundle::source::crates(&checkout)?.only(&packages);
        own_parts::attach(&landfall, &agent, &ingress, &crates, output)
    };
    publish().map_err(|diagnosis| shown(&diagnosis))?;
    println!("{}", output.display());
    Ok(())
}

/// Writes the newest Debian packages of the suite into the lock file of the recipe `source`.
pub fn lock_debian() -> Result<()> {
    let new = landfall_bundle::source::lock_debian_anew(&checkout()?, &cache()?.join("landfall"));
    let new = new.map_err(|diagnosis| shown(&diagnosis))?;
    for package in &new {
        println!("{} {}", package.name, package.version);
    }
    println!("{} packages are others than before; `git diff` shows them", new.len());
    Ok(())
}

/// Locks Debian packages anew when the mirror has dropped a locked one, as it does soon after each update: tests need a bundle on any day.
/// The changed lock file shows in `git diff`. A file that differs from what was locked stays an error.
fn lock_anew_what_is_gone() -> Result<()> {
    let cache = cache()?.join("landfall");
    match landfall_bundle::source::fetch_locked_debian(&checkout()?, &cache) {
        Ok(()) => Ok(()),
        Err(diagnosis) if diagnosis.code == Code::BundleDigest => Err(shown(&diagnosis)),
        Err(diagnosis) => {
            println!(
                "{}\nbundle/source/lock.yaml gets the newest packages: look at it and commit it",
                shown(&diagnosis)
            );
            lock_debian()
        }
    }
}

fn shown(diagnosis: &Diagnosis) -> anyhow::Error {
    anyhow::anyhow!("{diagnosis}: {:?} {:?}", diagnosis.saw, diagnosis.causes)
}

/// Makes a bundle by the recipe `upstream`, as somebody on a laptop does: with a released program, which needs no checkout, of servers
/// under publishers' names that have the programs and images of the built bundle. An image and a manifest of the user's own are added.
pub fn build_upstream(from: &Artifacts) -> Result<Artifacts> {
    println!("building the bundle by the recipe upstream");
    let folder = cache()?.join("upstream");
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let made = Artifacts {
        program: folder.join("landfall"),
        bundle: folder.join("landfall.bundle"),
    };
    fs::copy(&from.program, &made.program).context("the program cannot be copied")?;
    let bundle = open(&from.bundle, &fs::read_to_string(from.bundle.with_extension("pub"))?)?;
    let publishers = Publishers::start_with(&bundle)?;
    let (authority, manifest) = (folder.join("ca.pem"), folder.join("shop.yaml"));
    fs::write(&authority, publishers.ca())?;
    fs::write(&manifest, include_str!("shop.yaml"))?;
    let lock = folder.join("landfall.lock.yaml");
    let _ = fs::remove_file(&lock);
    let mut build = Command::new(&made.program);
    build.current_dir(&folder).env("HTTPS_PROXY", publishers.proxy());
    build
        .args(["bundle", "build", "--add-image", "nginx:1.28.3", "--output"])
        .arg(&made.bundle);
    for (flag, path) in [("--ca", &authority), ("--add-manifest", &manifest)] {
        build.arg(flag).arg(path);
    }
    // The operator in the lab knows this key.
    build.arg("--key").arg(from.bundle.with_extension("key"));
    build.arg("--cache").arg(folder.join("cache"));
    let status = build.stdin(Stdio::null()).status()?;
    ensure!(status.success(), "the bundle cannot be built");
    Ok(made)
}

fn program(checkout: &Path, package: &str, profile: &[&str]) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(checkout).args([
        "build",
        "--quiet",
        "--locked",
        "--package",
        package,
        "--message-format=json-render-diagnostics",
    ]);
    if profile.contains(&"--release") {
        cargo.args(landfall_bundle::source::release_arguments(checkout));
    }
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
