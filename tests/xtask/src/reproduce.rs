//! `cargo xtask reproduce`: the same commit gives the same bytes. Program and bundle are built twice: in the checkout, then in a copy of HEAD in
//! a folder of another length, with a cache and a target directory of its own, by another user where there is root, with another umask and time
//! zone, later, without the network. Only what was downloaded is shared: crates, Go modules, Debian packages by their digests.

mod compare;

use crate::artifacts;
use anyhow::{Context, Result, ensure};
use landfall_lab::host;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// User and group `nobody` and `nogroup` of Debian (base-passwd).
const NOBODY: u32 = 65534;

/// What one build made.
struct Built {
    /// The program as people get it.
    program: PathBuf,
    bundle: PathBuf,
}

/// Builds twice and compares; says every difference. Takes more than twenty minutes on two cores.
pub fn run() -> Result<ExitCode> {
    host::install_packages(&[])?;
    let checkout = artifacts::checkout()?;
    let changed = host::run(
        Command::new("git")
            .current_dir(&checkout)
            .args(["status", "--porcelain"]),
    )?;
    ensure!(
        changed.is_empty(),
        "the copy is made of HEAD, and this checkout has changes: commit them first\n{changed}"
    );
    // Of another length than the checkout's path.
    let folder = tempfile::Builder::new()
        .prefix("landfall-reproduce-in-another-place-")
        .tempdir_in("/var/tmp")?;
    let at = |name: &str| folder.path().join(name);
    println!("first build, in {}", checkout.display());
    fs::create_dir(at("first"))?;
    let first = Built {
        program: at("first/landfall"),
        bundle: at("first/landfall.bundle"),
    };
    artifacts::publish(&first.program)?;
    let key = at("first/bundle.key");
    host::run(
        Command::new(&first.program)
            .args(["bundle", "keygen", "--output"])
            .arg(&key),
    )?;
    artifacts::build_bundle(&first.program, &checkout, &first.bundle, Some(&key))?;
    let second = Second::prepare(folder.path(), &checkout, &key)?.build()?;
    let mut told = compare::files("landfall", &first.program, &second.program)?;
    let public = fs::read_to_string(key.with_extension("pub"))?;
    told.extend(compare::bundles(
        &artifacts::open(&first.bundle, &public)?,
        &artifacts::open(&second.bundle, &public)?,
    )?);
    for line in &told {
        println!("{line}");
    }
    if told.is_empty() {
        println!("program and bundle are the same, byte for byte");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{} differences; both builds are kept in {}",
        told.len(),
        folder.keep().display()
    );
    Ok(ExitCode::FAILURE)
}

/// The second build's place.
struct Second {
    root: PathBuf,
    /// Its toolchain and programs come first.
    path: OsString,
}

impl Second {
    /// Makes the copy, and links what was downloaded.
    fn prepare(folder: &Path, checkout: &Path, key: &Path) -> Result<Self> {
        let root = folder.join("second/user/builder");
        let make = |name: &str| {
            let path = root.join(name);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
            Ok::<_, anyhow::Error>(path)
        };
        let out = make("out")?;
        for name in ["home", "cargo", "cache/apt", "go", "target", "tmp"] {
            make(name)?;
        }
        artifacts::export("HEAD", &root.join("checkout"))?;
        let said = |program: &str, args: &[&str]| -> Result<PathBuf> {
            let text = host::run(Command::new(program).current_dir(checkout).args(args))?;
            Ok(PathBuf::from(text.trim()))
        };
        link(&said("rustc", &["--print", "sysroot"])?, &root.join("rust"))?;
        let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(PathBuf::from).context("HOME is not set")?;
        let cargo = cargo.unwrap_or_else(|| home.join(".cargo"));
        link(&cargo.join("registry"), &root.join("cargo/registry"))?;
        if cargo.join("config.toml").exists() {
            fs::copy(cargo.join("config.toml"), root.join("cargo/config.toml"))?;
        }
        link(
            &said("go", &["env", "GOMODCACHE"])?.join("cache/download"),
            &root.join("go-modules"),
        )?;
        link(
            &artifacts::cache()?.join("landfall/apt/packages"),
            &root.join("cache/apt/packages"),
        )?;
        for end in ["key", "pub"] {
            fs::copy(key.with_extension(end), out.join("bundle").with_extension(end))?;
        }
        let own = [root.join("rust/bin"), said("go", &["env", "GOROOT"])?.join("bin")];
        let system = [
            "/usr/local/sbin",
            "/usr/local/bin",
            "/usr/sbin",
            "/usr/bin",
            "/sbin",
            "/bin",
        ];
        let path = std::env::join_paths(own.into_iter().chain(system.map(PathBuf::from)))?;
        if host::is_root() {
            give_away(folder, &root)?;
        }
        Ok(Self { root, path })
    }

    fn build(&self) -> Result<Built> {
        let who = if host::is_root() {
            "as nobody"
        } else {
            "as the same user, for only root can be another one"
        };
        println!("second build, in {}, {who}", self.root.display());
        let made = Built {
            program: self.root.join("out/landfall"),
            bundle: self.root.join("out/landfall.bundle"),
        };
        let mut release = self.command();
        release
            .args(["cargo", "xtask", "release", "--output"])
            .arg(&made.program);
        ensure!(release.status()?.success(), "the second program cannot be built");
        let mut build = self.command();
        build.arg(&made.program);
        build.args(["bundle", "build", "--recipe", "source", "--checkout", ".", "--output"]);
        build.arg(&made.bundle).arg("--cache").arg(self.root.join("cache"));
        build.arg("--key").arg(self.root.join("out/bundle.key"));
        ensure!(build.status()?.success(), "the second bundle cannot be built");
        Ok(made)
    }

    /// A command of the second build: program and arguments follow.
    fn command(&self) -> Command {
        let at = |name: &str| self.root.join(name);
        let mut command = Command::new("/usr/bin/env");
        if host::is_root() {
            command = Command::new("/usr/bin/setpriv");
            command.args([
                format!("--reuid={NOBODY}"),
                format!("--regid={NOBODY}"),
                "--clear-groups".to_owned(),
            ]);
        }
        command.args(["/bin/sh", "-c", "umask 077; exec \"$@\"", "sh"]);
        let modules = format!("file://{},off", at("go-modules").display());
        command.env_clear().current_dir(at("checkout")).stdin(Stdio::null());
        // No SOURCE_DATE_EPOCH, no language, no variable of the first build.
        command
            .env("PATH", &self.path)
            .env("HOME", at("home"))
            .env("TMPDIR", at("tmp"))
            .env("TZ", "Asia/Kathmandu")
            .env("CARGO_HOME", at("cargo"))
            .env("CARGO_TARGET_DIR", at("target"))
            .env("CARGO_NET_OFFLINE", "true")
            .env("GOPATH", at("go"))
            .env("GOFLAGS", "-modcacherw")
            .env("GOPROXY", modules)
            .env("GOSUMDB", "off")
            .env("GOTOOLCHAIN", "local");
        command
    }
}

/// Links a folder's files under another name, where both are on one file system; else copies them. The folders are new.
fn link(from: &Path, to: &Path) -> Result<()> {
    ensure!(from.is_dir(), "{} is not there: build once before", from.display());
    let cp = |how: &str| {
        Command::new("cp")
            .arg(how)
            .arg(from)
            .arg(to)
            .stderr(Stdio::null())
            .status()
    };
    if !cp("-rl")?.success() {
        if to.exists() {
            fs::remove_dir_all(to).with_context(|| to.display().to_string())?;
        }
        ensure!(cp("-r")?.success(), "{} cannot be copied", from.display());
    }
    Ok(())
}

/// Gives the second build's folders to its user, and the files that are its own. Linked files stay who they belong to: they are the first build's too.
fn give_away(folder: &Path, root: &Path) -> Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    let mut find = Command::new("find");
    find.arg(root)
        .args(["(", "-type", "d", "-o", "-links", "1", ")", "-exec", "chown", "-h"]);
    find.arg(format!("{NOBODY}:{NOBODY}")).args(["{}", "+"]);
    host::run(&mut find).map(drop)
}
