//! One machine: power, logins, commands.

use super::kernel::Kernel;
use super::network::Network;
use super::{ADMIN_PASSWORD, process};
use crate::fingerprint::Fingerprint;
use crate::host::{root, run};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long a boot may take until logins work. On a quiet host it takes 12 s (2026-11).
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// How long a machine may take to go down.
const HALT_LIMIT: Duration = Duration::from_secs(180);
/// Where the kernel's management sockets lie: their paths may have 107 bytes, which a checkout's may pass.
const SOCKETS: &str = "/run/landfall-own-kernel";

/// How a machine differs from a plain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Nothing special; root logs in by key.
    Plain,
    /// What hardening guides ask for: no login of root, sudo with a password on a terminal, no SFTP, no forwarding, two sessions, noexec /tmp, umask 027,
    /// shells that say something, auditd, settings that disagree with the kubelet's, no IPv6, a packet filter that lets in nothing but SSH, an
    /// immutable /etc/resolv.conf.
    Hardened,
}

/// What a machine is to be.
#[derive(Debug, Clone, Copy)]
pub struct VmSpec {
    /// Host name.
    pub name: &'static str,
    /// Role in the inventory.
    pub role: &'static str,
    /// How it differs.
    pub variant: Variant,
    /// Memory in MiB.
    pub memory_mib: u32,
}

/// One machine.
#[derive(Debug)]
pub struct Vm {
    /// Host name.
    pub name: &'static str,
    /// Role in the inventory.
    pub role: &'static str,
    /// How it differs from a plain one.
    pub variant: Variant,
    /// IPv4 address.
    pub address: String,
    memory_mib: u32,
    processor: usize,
    network: Network,
    folder: PathBuf,
    key: PathBuf,
    known_hosts: PathBuf,
}

impl Vm {
    pub(super) fn new(spec: &VmSpec, at: usize, network: Network, lab: &Path) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, Into::into);
        Self {
            name: spec.name,
            role: spec.role,
            variant: spec.variant,
            address: network.address(at),
            memory_mib: spec.memory_mib,
            processor: at % processors,
            network,
            folder: lab.join("machines").join(spec.name),
            key: lab.join("key"),
            known_hosts: lab.join("known_hosts"),
        }
    }

    /// The user by whom landfall logs in.
    pub fn user(&self) -> &'static str {
        match self.variant {
            Variant::Plain => "root",
            Variant::Hardened => "admin",
        }
    }

    /// Makes its folder and writes how it is started. Its disk is what it changes of the suite's.
    pub(super) fn create(&self, kernel: &Kernel, disk: &Path) -> Result<()> {
        fs::create_dir_all(&self.folder).with_context(|| format!("{} cannot be made", self.folder.display()))?;
        let variant = format!("{:?}", self.variant).to_lowercase();
        let kernel_options = match self.variant {
            Variant::Plain => "",
            Variant::Hardened => "ipv6.disable=1 ",
        };
        // One processor of the host's: a system call wakes the kernel's thread and back, which must not wait for another processor's turn.
        let command = format!(
            "env TMPDIR=/dev/shm taskset --cpu-list {processor} '{program}' mem={memory}M umid={name} uml_dir={SOCKETS}/ \
             'ubd0={folder}/disk.cow,{disk}' root=/dev/ubda rw con=null ssl=null con0=null,fd:1 \
             vec0:transport=tap,ifname={name},depth=128,gro=1,mac=52:54:00:90:04:{mac:02x} \
             security=apparmor apparmor=1 {kernel_options}init=/usr/lib/lab/init lab.name={name} lab.address={address} lab.variant={variant}",
            processor = self.processor,
            program = kernel.program.display(),
            memory = self.memory_mib,
            name = self.name,
            folder = self.folder.display(),
            disk = disk.display(),
            mac = self
                .address
                .rsplit('.')
                .next()
                .and_then(|last| last.parse().ok())
                .unwrap_or(0_u8),
            address = self.address,
        );
        let path = self.folder.join("command");
        fs::write(&path, command).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Gives the machine its power.
    pub fn start(&self) -> Result<()> {
        self.network.plug(self.name)?;
        run(root("mkdir").args(["-p", SOCKETS]))?;
        let command = fs::read_to_string(self.folder.join("command")).context("the machine was not made")?;
        process::start(
            self.network.inside("setsid"),
            &command,
            &self.note(),
            &self.folder.join("console.log"),
        )
    }

    /// Cuts the power: what was not written to the disk is lost.
    pub fn cut_power(&self) -> Result<()> {
        process::kill(&self.note())
    }

    /// Shuts the machine down as an administrator does, and starts it again. Logins may not work yet when this returns.
    pub fn reboot(&self) -> Result<()> {
        let before = self.halts();
        // The connection may end before the command does.
        let _ = self.shell("systemctl reboot");
        let end = Instant::now() + HALT_LIMIT;
        // User-mode Linux would start itself again, but cannot take its end of the network again.
        while self.halts() == before && process::running(&self.note()).is_some() {
            if Instant::now() > end {
                bail!(
                    "{} did not go down in {} s:\n{}",
                    self.name,
                    HALT_LIMIT.as_secs(),
                    self.last_words()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.cut_power()?;
        self.start()
    }

    /// Blocks until logins work.
    pub fn await_login(&self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < BOOT_LIMIT {
            if self.ssh("true", &[]).is_ok() {
                println!(
                    "lab: {} takes logins after {:.1} s",
                    self.name,
                    start.elapsed().as_secs_f32()
                );
                return Ok(());
            }
            ensure!(
                process::running(&self.note()).is_some(),
                "{} is not running:\n{}",
                self.name,
                self.last_words()
            );
            std::thread::sleep(Duration::from_millis(300));
        }
        bail!(
            "{} takes no logins after {} s:\n{}",
            self.name,
            BOOT_LIMIT.as_secs(),
            self.last_words()
        )
    }

    /// Runs a shell script as root and returns what it wrote to standard output. Fails when it fails.
    pub fn shell(&self, script: &str) -> Result<String> {
        // sudo takes the first line of its input, bash the rest; what shells say before that is cut off at the mark.
        let input = format!("{ADMIN_PASSWORD}\necho; echo {MARK}\n{script}\n");
        let said = self.ssh("sudo -k -S -p '' bash -s", input.as_bytes())?;
        let (_, said) = said
            .split_once(&format!("{MARK}\n"))
            .with_context(|| format!("{}: sudo did not start a shell:\n{said}", self.name))?;
        Ok(said.to_owned())
    }

    /// Takes a snapshot of the machine's state. Blocks for some ten seconds.
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint::parse(&self.shell(&Fingerprint::whole_script())?))
    }

    fn ssh(&self, command: &str, input: &[u8]) -> Result<String> {
        let mut ssh = self.network.inside("ssh");
        ssh.arg("-i").arg(&self.key);
        ssh.arg("-o")
            .arg(format!("UserKnownHostsFile={}", self.known_hosts.display()));
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=accept-new",
            "LogLevel=ERROR",
            "ConnectTimeout=5",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg(format!("admin@{}", self.address)).arg(command);
        let mut child = ssh
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("ssh cannot be started")?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that reads nothing closes its input.
            let _ = stdin.write_all(input);
        }
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{}: {command}: {}\n{}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn note(&self) -> PathBuf {
        self.folder.join("pid")
    }

    /// How often the machine went down.
    fn halts(&self) -> usize {
        let console = fs::read(self.folder.join("console.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&console);
        text.matches("reboot: Restarting system").count() + text.matches("reboot: System halted").count()
    }

    /// The end of its console.
    fn last_words(&self) -> String {
        let console = fs::read(self.folder.join("console.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&console);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Where the output of a script begins.
const MARK: &str = "landfall-lab-output";

/// Ends every machine of a lab and removes its disk.
pub(super) fn remove_all(lab: &Path) -> Result<()> {
    let machines = lab.join("machines");
    if !machines.exists() {
        return Ok(());
    }
    let killed: Vec<Result<()>> = fs::read_dir(&machines)?
        .map(|entry| process::kill(&entry?.path().join("pid")))
        .collect();
    // A machine that runs on keeps its note, by which the next try finds it.
    killed.into_iter().collect::<Result<()>>()?;
    run(root("rm")
        .arg("-rf")
        .arg(&machines)
        .arg(lab.join("known_hosts"))
        .arg(SOCKETS))
    .map(drop)
}
