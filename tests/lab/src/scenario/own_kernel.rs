//! A cluster on machines with kernels of their own: installed, rebooted, cut off from power, taken away without a trace, installed again.

use super::{Broken, Check, Checks, Release};
use crate::fingerprint::Fingerprint;
use crate::operator::Ended;
use crate::own_kernel::{Suite, Variant, Vm, VmLab, VmSpec};
use anyhow::{Context, Result, bail, ensure};
use landfall_core::spec::ProxyMode;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long `verify` may wait for a cluster after all its machines booted, in seconds. It took 118 to 271 s when it was tried by hand (2026-11).
const BACK_LIMIT: &str = "600";

/// How long a Node counts as Ready without a word of its kubelet, and some more.
const NODE_GRACE: Duration = Duration::from_secs(60);

/// How long rules may be gone that somebody took away. The settings service looks every minute, these machines are slow.
const MENDED_LIMIT: Duration = Duration::from_secs(120);

/// What the settings service, the kernel and the writers of tables said last.
const WHY_NOT_MENDED: &str = "journalctl --no-pager --unit landfall-node-settings --lines 10; dmesg | tail -5; \
                              for log in /var/log/pods/kube-system_kube-proxy-*/*/*.log /var/log/pods/kube-flannel_*/*/*.log; do echo $log; tail -8 $log; done; \
                              ps -eo etime,args | grep -E 'kube-proxy|flanneld' | grep -v grep; true";

const CONTROL_PLANE: VmSpec = VmSpec {
    name: "cp-1",
    role: "control-plane",
    variant: Variant::Plain,
    memory_mib: 2560,
};

/// A hardened worker.
const WORKER: VmSpec = VmSpec {
    name: "w-1",
    role: "worker",
    variant: Variant::Hardened,
    memory_mib: 1536,
};

/// A control plane and a worker, on one release of Debian.
pub fn describe(suite: Suite, cache: &Path) -> VmLab {
    VmLab::new(suite, &[CONTROL_PLANE, WORKER], cache)
}

/// Starts such a lab, shows everything, and removes the lab, also when something failed. A part that was not reached is a failure.
pub fn run(suite: Suite, release: &Release, cache: &Path) -> Result<Vec<Check>> {
    in_lab(&describe(suite, cache), release, Stage::show)
}

fn in_lab<'a>(
    lab: &'a VmLab,
    release: &'a Release,
    show: impl FnOnce(&Stage<'a>, &mut Checks) -> Result<(), Broken>,
) -> Result<Vec<Check>> {
    let mut checks = Checks { done: Vec::new() };
    let shown = show(&Stage { lab, release }, &mut checks);
    lab.down()?;
    if let Err(Broken) = shown {
        checks.not_reached();
    }
    Ok(checks.done)
}

/// One machine, as a control plane that runs pods, chosen by a number: each has another release or variant.
pub fn describe_one(number: usize, cache: &Path) -> VmLab {
    let suite = Suite::ALL[number % Suite::ALL.len()];
    let variant = if (number / Suite::ALL.len()).is_multiple_of(2) {
        Variant::Plain
    } else {
        Variant::Hardened
    };
    let machine = VmSpec {
        variant,
        ..CONTROL_PLANE
    };
    VmLab::new(suite, &[machine], cache)
}

/// Starts such a machine, installs, boots again, uninstalls, and removes the machine, also when something failed.
pub fn run_one(number: usize, release: &Release, cache: &Path) -> Result<Vec<Check>> {
    in_lab(&describe_one(number, cache), release, Stage::show_one)
}

/// The check of preflight.
const FILTERED: &str = "a packet filter that lets in nothing but SSH is refused by name";
/// The check of the first install.
const INSTALLED: &str = "install beside another's nftables set: exit 0, every path green, no program broke off";

/// The size of a table that the kernel makes at the boot by the memory that it finds free: nobody can set it, and it differed between boots of a machine
/// with 1,536 MiB.
const HASH_ENTRIES: &str = "net.ipv4.tcp_ehash_entries";
/// Settings to which the kernel gives a share of that (`tcp_init`).
const BY_MEMORY: [&str; 4] = [
    HASH_ENTRIES,
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
];

/// Says whether a line of a difference is about this setting.
fn is_setting(line: &str, setting: &str) -> bool {
    line.starts_with(&format!("~ setting {setting}: "))
}

/// Says whether a line of a difference is about the group of one of the machine's own units, which was there before: systemd 247 makes groups of units
/// that have no process (mounts, sockets, services that only did something at the boot) when a group gets controllers, as the kubelet's slices do, and
/// they stay until the next boot (Debian 11, seen 2026-12-01). Processes, and what units do, are lines of their own.
fn is_group_of_own_unit(line: &str, before: &Fingerprint) -> bool {
    let path = line.strip_prefix("+ cgroup /sys/fs/cgroup/system.slice/");
    path.is_some_and(|path| {
        let unit = path.trim().rsplit('/').next().unwrap_or_default();
        before.has(&format!("unit {unit}"))
    })
}

struct Stage<'a> {
    lab: &'a VmLab,
    release: &'a Release,
}

impl Stage<'_> {
    fn show_one(&self, checks: &mut Checks) -> Result<(), Broken> {
        let kinds = self
            .lab
            .machines()
            .iter()
            .map(|vm| format!("{:?}", vm.variant).to_lowercase());
        let kind = format!("{}, {}", self.lab.suite().name(), kinds.collect::<Vec<_>>().join(", "));
        let named = |what: &str| format!("own kernel, {kind}: {what}");
        let boots = checks.needed(&named("the machine starts, and starts again"), || {
            self.start()?;
            let mut boots = vec![self.fingerprints()?];
            boots.push(self.boot_again(Vm::reboot)?);
            Ok(boots)
        })?;
        self.show_filter(checks, &named)?;
        checks.needed(&named(INSTALLED), || self.install_beside_a_set())?;
        checks.check(&named("reboot: green by itself"), || {
            self.lab.machines().iter().try_for_each(Vm::reboot)?;
            self.green_again("reboot")
        });
        checks.check(
            &named("uninstall: as a machine of the same boots without landfall"),
            || self.uninstall(&boots),
        );
        Ok(())
    }

    fn show(&self, checks: &mut Checks) -> Result<(), Broken> {
        let suite = self.lab.suite().name();
        let named = |what: &str| format!("own kernel, {suite}: {what}");
        let boots = checks.needed(
            &named("machines start, start again, and come back after a power cut"),
            || self.boots(),
        )?;
        self.show_filter(checks, &named)?;
        checks.needed(&named(INSTALLED), || {
            self.keep_writes_in_memory()?;
            self.install_beside_a_set()
        })?;
        // What nobody has put on disk is lost now.
        checks.check(
            &named("power cut of all machines as soon as the install has ended: green by itself"),
            || {
                self.lab.machines().iter().try_for_each(Vm::cut_power)?;
                self.lab.machines().iter().try_for_each(Vm::start)?;
                self.green_again("cut")
            },
        );
        checks.check(&named("reboot of all machines: green by itself"), || {
            self.lab.machines().iter().try_for_each(Vm::reboot)?;
            self.green_again("reboot")
        });
        checks.check(
            &named("rules loaded anew, hosts renamed: mended and green by itself"),
            || self.mends_itself(),
        );
        checks.check(&named("install again: 0 changes"), || {
            let ended = self.landfall(&["install"], &["--trusted-key", &self.public()?, &self.bundle()?])?;
            ensure!(
                ended.lines().any(|line| line == "0 changes"),
                "it does not say \"0 changes\":\n{ended}"
            );
            Ok(())
        });
        checks.check(
            &named("uninstall: as machines of the same boots without landfall"),
            || self.uninstall(&boots),
        );
        checks.check(&named("install on machines that had a cluster"), || {
            self.install("again")
        });
        Ok(())
    }

    fn start(&self) -> Result<()> {
        self.lab.up()?;
        self.write_cluster(|_| {})
    }

    /// Debian 11 has its rules by iptables: its own nft is too old to stand beside kube-proxy's nftables mode (preflight's `nft-version`).
    fn proxy_mode(&self) -> ProxyMode {
        match self.lab.suite() {
            Suite::Bullseye => ProxyMode::Iptables,
            Suite::Bookworm | Suite::Trixie => ProxyMode::Nftables,
        }
    }

    fn write_cluster(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        self.lab.write_cluster(|cluster| {
            if self.proxy_mode() == ProxyMode::Iptables {
                cluster["proxyMode"] = "iptables".into();
            }
            change(cluster);
        })
    }

    /// Whether a machine has the hardened variant's packet filter.
    fn has_filter(vm: &Vm) -> bool {
        vm.variant == Variant::Hardened
    }

    /// Where machines let in nothing but SSH, preflight refuses them, and names the chain. From then on the inventory lets landfall open it.
    fn show_filter(&self, checks: &mut Checks, named: &dyn Fn(&str) -> String) -> Result<(), Broken> {
        let Some(filtered) = self.lab.machines().iter().find(|vm| Self::has_filter(vm)) else {
            return Ok(());
        };
        checks.needed(&named(FILTERED), || self.filter_is_refused(filtered))
    }

    fn filter_is_refused(&self, filtered: &Vm) -> Result<()> {
        let refused = self.run(&["preflight"], &["--accept-new-host-keys"])?.expect(4)?;
        let said = [refused.stdout, refused.stderr].concat();
        for words in [filtered.name, "packet-filter", "inet filter, chain input"] {
            ensure!(said.contains(words), "preflight does not say {words:?}:\n{said}");
        }
        self.write_cluster(|cluster| cluster["firewall"] = "open".into())
    }

    /// Somebody loads every machine's rules anew, as a restart of a firewall does, and changes the host names. Rules that daemons and members need are back
    /// within two minutes, nodes keep their names.
    fn mends_itself(&self) -> Result<()> {
        let mended = self.disturb().and_then(|()| self.await_mended());
        let rename = |vm: &Vm| vm.shell(&format!("hostname {}", vm.name)).map(drop);
        mended.and(self.lab.machines().iter().try_for_each(rename))
    }

    fn disturb(&self) -> Result<()> {
        for vm in self.lab.machines() {
            let flush = if Self::has_filter(vm) {
                "systemctl restart nftables.service"
            } else {
                "nft flush ruleset"
            };
            vm.shell(&format!(
                "{flush} && hostname renamed && systemctl restart kubelet.service"
            ))?;
        }
        Ok(())
    }

    fn await_mended(&self) -> Result<()> {
        let start = Instant::now();
        for vm in self.lab.machines() {
            let mut wanted = match self.proxy_mode() {
                ProxyMode::Nftables => vec!["table ip kube-proxy {", "table ip flannel-ipv4 {"],
                ProxyMode::Iptables => vec!["chain KUBE-SERVICES {", "chain FLANNEL-POSTRTG {"],
            };
            if Self::has_filter(vm) {
                wanted.push(" input\"");
            }
            let missing = |rules: &str| {
                wanted
                    .iter()
                    .filter(|name| !rules.contains(*name))
                    .copied()
                    .collect::<Vec<_>>()
            };
            loop {
                let missing = missing(&vm.shell("nft list ruleset")?);
                if missing.is_empty() {
                    break;
                }
                if start.elapsed() >= MENDED_LIMIT {
                    let (limit, evidence) = (MENDED_LIMIT.as_secs(), vm.shell(WHY_NOT_MENDED)?);
                    bail!(
                        "{} has no {missing:?} {limit} s after its rules were loaded anew:\n{evidence}",
                        vm.name
                    );
                }
                std::thread::sleep(Duration::from_secs(2));
            }
        }
        println!("lab: rules were back after {:.1} s", start.elapsed().as_secs_f32());
        // The Node of a kubelet that does not find it under its name stays Ready for 40 s (`node-monitor-grace-period`).
        std::thread::sleep(NODE_GRACE.saturating_sub(start.elapsed()));
        self.green_again("mended")
    }

    /// Boots machines without landfall as often as later with it, and takes snapshots after each boot.
    fn boots(&self) -> Result<Vec<Vec<Fingerprint>>> {
        self.start()?;
        let mut boots = vec![self.fingerprints()?];
        boots.push(self.boot_again(|vm| vm.cut_power().and_then(|()| vm.start()))?);
        boots.push(self.boot_again(Vm::reboot)?);
        Ok(boots)
    }

    /// Keeps the kernels from writing files' contents to disk until somebody asks them to, or until the next boot: otherwise most of an install is on
    /// disk when it ends. Names are still written every 5 s, by ext4's own journal.
    fn keep_writes_in_memory(&self) -> Result<()> {
        let script = "cd /proc/sys/vm && echo 0 > dirty_writeback_centisecs && echo 360000 > dirty_expire_centisecs && \
                      echo 90 > dirty_background_ratio && echo 95 > dirty_ratio";
        self.lab.machines().iter().try_for_each(|vm| vm.shell(script).map(drop))
    }

    fn boot_again(&self, how: impl Fn(&Vm) -> Result<()>) -> Result<Vec<Fingerprint>> {
        self.lab.machines().iter().try_for_each(how)?;
        self.lab.await_all()?;
        self.fingerprints()
    }

    fn fingerprints(&self) -> Result<Vec<Fingerprint>> {
        let take = |vm: &Vm| {
            // The first one loads modules by its own commands.
            vm.fingerprint()?;
            vm.fingerprint()
        };
        self.lab.machines().iter().map(take).collect()
    }

    /// Installs where a table of somebody else has a set of interface names, made by the machine's own nft: an older nft in an image broke off when it read
    /// such a set of nft 1.1.3 (kubernetes#136786, k0s#7293), and the machine's own nft one of the image's. The table is gone after the next boot.
    fn install_beside_a_set(&self) -> Result<()> {
        let make =
            "nft add table inet other && nft 'add set inet other links { type ifname; elements = { \"vec0\" }; }'";
        self.lab.machines().iter().try_for_each(|vm| vm.shell(make).map(drop))?;
        self.install("first")?;
        // A container that broke off and was started again has a log for each start.
        let look = "nft list ruleset | grep -q vec0 || echo 'the set cannot be listed beside those of the cluster'\n\
                    dmesg | grep -i segfault\n\
                    grep -ilE 'segmentation fault|core dumped|signal: aborted' /var/log/pods/kube-system_*/*/*.log \
                    /var/log/pods/kube-flannel_*/*/*.log\n\
                    true";
        for vm in self.lab.machines() {
            let faults = vm.shell(look)?;
            ensure!(faults.trim().is_empty(), "{}:\n{faults}", vm.name);
        }
        Ok(())
    }

    fn install(&self, name: &str) -> Result<()> {
        let report = &text_of(&self.lab.home().join(name))?;
        let (bundle, public) = (self.bundle()?, self.public()?);
        let options = ["--accept-new-host-keys", "--trusted-key", &public, "--report", report];
        let start = Instant::now();
        self.landfall(&["install"], &[&options[..], &[&bundle]].concat())?;
        println!("lab: install took {:.1} s", start.elapsed().as_secs_f32());
        expect_green(&Path::new(report).join("verify.json"))
    }

    fn bundle(&self) -> Result<String> {
        text_of(&self.release.bundle)
    }

    /// The builder's public key.
    fn public(&self) -> Result<String> {
        text_of(&self.release.bundle.with_extension("pub"))
    }

    /// Waits until all machines take logins, then until `verify` is content.
    fn green_again(&self, name: &str) -> Result<()> {
        self.lab.await_all()?;
        let report = &text_of(&self.lab.home().join(name))?;
        let start = Instant::now();
        self.landfall(&["verify"], &["--wait", BACK_LIMIT, "--report", report])?;
        println!(
            "lab: green {:.1} s after all machines took logins",
            start.elapsed().as_secs_f32()
        );
        expect_green(&Path::new(report).join("verify.json"))
    }

    /// Uninstalls, and fails with every difference to the last boot without landfall in which these boots did not differ from each other. Modules that
    /// serve somebody else stay, which uninstall says.
    fn uninstall(&self, boots: &[Vec<Fingerprint>]) -> Result<()> {
        let ended = self.run(&["uninstall"], &["--yes"])?.expect(0)?;
        let said = [ended.stdout, ended.stderr].concat();
        let is_said = |line: &String| {
            let module = line.split_once(": + module ").map(|(_, module)| module.trim());
            module.is_some_and(|module| said.contains(&format!("the module {module} stays: it serves ")))
        };
        let mut lines = Vec::new();
        for (at, (vm, mut now)) in self.lab.machines().iter().zip(self.fingerprints()?).enumerate() {
            let of: Vec<&Fingerprint> = boots.iter().map(|boot| &boot[at]).collect();
            let last = of.last().context("machines were booted")?;
            let mut before = (*last).clone();
            for pair in of.windows(2) {
                now = now.without_what_differs(pair[0], pair[1]);
                before = before.without_what_differs(pair[0], pair[1]);
            }
            let mut found = before.difference(&now);
            if found.iter().any(|line| is_setting(line, HASH_ENTRIES)) {
                found.retain(|line| !BY_MEMORY.iter().any(|setting| is_setting(line, setting)));
            }
            if self.lab.suite() == Suite::Bullseye {
                found.retain(|line| !is_group_of_own_unit(line, last));
            }
            lines.extend(found.into_iter().map(|line| format!("{}: {line}", vm.name)));
        }
        lines.retain(|line| !is_said(line));
        ensure!(
            lines.is_empty(),
            "{} differences:\n{}\n{said}",
            lines.len(),
            lines.join("\n")
        );
        Ok(())
    }

    /// Runs landfall on the lab's inventory and returns its standard output. Fails unless it succeeds.
    fn landfall(&self, command: &[&str], options: &[&str]) -> Result<String> {
        Ok(self.run(command, options)?.expect(0)?.stdout)
    }

    fn run(&self, command: &[&str], options: &[&str]) -> Result<Ended> {
        let inventory = text_of(&self.lab.inventory())?;
        let arguments = [command, &["-i", &inventory], options].concat();
        self.lab.landfall(&self.release.program, &arguments)
    }
}

fn text_of(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .with_context(|| format!("{} is no text", path.display()))?;
    Ok(text.to_owned())
}

/// Fails unless a report of verify has cells from all places, all of them as expected.
fn expect_green(report: &Path) -> Result<()> {
    let text = std::fs::read_to_string(report).with_context(|| format!("{} cannot be read", report.display()))?;
    let report: Value = serde_json::from_str(&text)?;
    super::expect_green(&report, &["pod/", "node/", "operator"])
}
