//! Finds the program and runs it.

use landfall_core::bundle_index::BundleIndex;
use landfall_test_support::bundle;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Returns the program, which cargo builds with the profile and target directory of the environment; cargo itself names the file.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--locked",
                "--package",
                "landfall",
                "--package",
                "landfall-agent",
                "--bins",
            ])
            .args(["--message-format", "json"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let messages = text
            .lines()
            .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
        let mut executables = messages.filter_map(|m| Some(PathBuf::from(m["executable"].as_str()?)));
        executables
            .find(|program| program.ends_with("landfall"))
            .expect("cargo names the executable that it built or found")
    })
}

/// The result of one run of the program.
pub struct Ran {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Fails unless the program ended with this status; returns itself.
    #[track_caller]
    pub fn ends(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.out, self.err);
        self
    }

    /// Fails unless standard error has all of these.
    #[track_caller]
    pub fn complains(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.err.contains(text), "{text:?} is not in:\n{}", self.err);
        }
        self
    }

    /// Fails when any output has one of these.
    #[track_caller]
    pub fn keeps_quiet_about(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(
                !self.out.contains(text) && !self.err.contains(text),
                "{text:?} is in the output"
            );
        }
        self
    }
}

/// A home directory with the files of one test.
pub struct Home(tempfile::TempDir);

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// Writes a small bundle, and the public key of its builder where the user's trusted keys are.
    pub fn write_bundle(&self, name: &str) -> BundleIndex {
        let trusted = self.path(".config/landfall/trusted.d");
        std::fs::create_dir_all(&trusted).unwrap();
        std::fs::write(trusted.join("builder.pub"), bundle::key().public().to_text()).unwrap();
        bundle::write_tiny(&self.path(name), bundle::VERSION).unwrap()
    }

    /// Runs the program here, without a terminal. It never panics, whatever it is given.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_as("tester", args)
    }

    /// Runs the program as [`Home::run`] does, with this name of the local user.
    #[track_caller]
    pub fn run_as(&self, user: &str, args: &[&str]) -> Ran {
        self.run_program(program(), &[("USER", user)], args)
    }

    /// Runs the program as [`Home::run`] does, with these variables in its environment too.
    #[track_caller]
    pub fn run_with(&self, environment: &[(&str, &str)], args: &[&str]) -> Ran {
        self.run_program(program(), environment, args)
    }

    /// Runs a program here in the same way.
    #[track_caller]
    pub fn run_program(&self, program: &Path, environment: &[(&str, &str)], args: &[&str]) -> Ran {
        let output = Command::new(program)
            .args(args)
            .env_clear()
            .env("HOME", self.0.path())
            .env("PATH", "/usr/bin:/bin")
            .envs(environment.iter().copied())
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let ran = Ran {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        for text in [&ran.out, &ran.err] {
            assert!(!text.contains("panicked"), "{args:?}: {text}");
        }
        ran
    }

    /// Returns the names of everything here, so that a test can say that nothing was made.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
                names.push(entry.path().display().to_string());
            }
        }
        names.sort();
        names
    }
}
