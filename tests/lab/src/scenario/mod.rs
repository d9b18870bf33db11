//! What the lab must show on real nodes: two installations, one killed twice and taken away, one whole; and what must survive them.

mod absent;
mod answers;
mod collection;
mod conformance;
mod cycles;
mod foreign;
mod interrupted;
mod old_cluster;
mod ordinary;
pub mod own_kernel;
mod power;
mod upgrade;
mod upstream;
mod whole;
mod wrong_input;

use crate::fingerprint::{self, Fingerprint};
use crate::lab::{Lab, Size};
use crate::operator::{BUNDLE, CLUSTER, Ended, Operator};
use anyhow::{Result, ensure};
use landfall_test_answers::Condition;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// kubectl with the administrator's rights; its cache is in a place that can be removed.
const KUBECTL: &str = "kubectl --kubeconfig /etc/kubernetes/admin.conf --cache-dir /tmp/kube";

/// The test's network is 10.90.2.0/24.
const NET: u8 = 2;

/// One thing that was to be shown.
pub struct Check {
    /// What.
    pub name: String,
    /// Why it did not show.
    pub failure: Option<String>,
}

/// A check that later ones build upon did not hold.
#[derive(Debug, Clone, Copy)]
struct Broken;

/// Runs checks in turn and keeps what came of them.
struct Checks {
    done: Vec<Check>,
}

impl Checks {
    /// Runs one check that nothing else depends on.
    fn check(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        let _: Option<()> = self.value(name, work);
    }

    /// Runs one check whose result later ones need.
    fn needed<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T, Broken> {
        self.value(name, work).ok_or(Broken)
    }

    fn value<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        let start = Instant::now();
        let (value, failure) = match work() {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let word = if failure.is_none() { "ok" } else { "FAILED" };
        println!("lab: {name} ... {word} ({:.1} s)", start.elapsed().as_secs_f32());
        if let Some(text) = &failure {
            println!("{text}");
        }
        self.done.push(Check {
            name: name.to_owned(),
            failure,
        });
        value
    }

    /// Counts what was not reached as a failure.
    fn not_reached(&mut self) {
        let failure = Some("a check before it failed".to_owned());
        self.done.push(Check {
            name: "the rest of the scenario is reached".to_owned(),
            failure,
        });
    }
}

/// Lines of a fingerprint that outlast a reboot.
const LASTING: [&str; 13] = [
    "file /etc",
    "content /etc",
    "file /opt",
    "content /opt",
    "file /usr",
    "content /usr",
    "file /var",
    "content /var",
    "file /root",
    "content /root",
    "file /home",
    "content /home",
    "unit-file ",
];
/// Words by which the cluster's parts are known.
const PARTS: [&str; 6] = ["landfall", "kube", "containerd", "etcd", "cni", "flannel"];

/// Everything that the scenario works with.
struct Stage<'a> {
    lab: &'a Lab,
    operator: Operator<'a>,
    /// What the nodes were like before landfall came.
    before: BTreeMap<String, Fingerprint>,
}

impl Stage<'_> {
    /// Installs with a report, and fails unless every cell of its verify is as expected. Shows the logs of nodes that failed.
    fn install_green(&self, report: &str) -> Result<Ended> {
        let operator = &self.operator;
        let options = ["--accept-new-host-keys", "--report", report];
        let install = [&["install", "-i", CLUSTER][..], &options[..], &[BUNDLE]].concat();
        let ended = operator.landfall(&install)?;
        if ended.status != Some(0) {
            operator.show_logs(report)?;
        }
        let ended = ended.expect(0)?;
        expect_green(&operator.read_json(&format!("{report}/verify.json"))?, &VANTAGES)?;
        Ok(ended)
    }

    /// Fails with every difference to how the nodes were.
    fn expect_unchanged(&self) -> Result<()> {
        let lines = fingerprint::differences(&self.before, &Fingerprint::take_all(self.lab)?);
        Self::none(&lines)
    }

    /// Fails with every difference in which a text does not occur.
    fn expect_unchanged_but_for(&self, text: &str) -> Result<()> {
        let mut lines = fingerprint::differences(&self.before, &Fingerprint::take_all(self.lab)?);
        lines.retain(|line| !line.contains(text));
        Self::none(&lines)
    }

    /// The same for machines that were started again since: rules, links and what lies in /run began anew there, so that only
    /// what lasts is compared, and nothing new may name the cluster's parts.
    fn expect_unchanged_but_for_reboots(&self) -> Result<()> {
        let mut lines = fingerprint::differences(&self.before, &Fingerprint::take_all(self.lab)?);
        lines.retain(|line| {
            let lasting = LASTING.iter().any(|kind| line.contains(&format!(" {kind}")));
            let ours = line.contains(": + ") && PARTS.iter().any(|part| line.contains(part));
            line.starts_with("w-1") || lasting || ours
        });
        Self::none(&lines)
    }

    fn none(lines: &[String]) -> Result<()> {
        let shown: Vec<_> = lines.iter().take(60).map(String::as_str).collect();
        ensure!(lines.is_empty(), "{} differences:\n{}", lines.len(), shown.join("\n"));
        Ok(())
    }
}

/// landfall as its user has it.
pub struct Release {
    /// The program `landfall`.
    pub program: PathBuf,
    /// The bundle.
    pub bundle: PathBuf,
}

/// What was built for the scenario.
pub struct Built {
    /// The program and the bundle.
    pub release: Release,
    /// The program `landfall-ingress-proof`.
    pub proof: PathBuf,
}

/// What was built for the long scenario.
pub struct LongBuilt {
    /// The program and the bundle of this commit.
    pub now: Release,
    /// A released program, and the bundle that it made of what publishers have, with the manifest `shop`.
    pub upstream: Release,
    /// Those of the last commit with journals of version 1.
    pub old: Release,
}

/// ansible-core with landfall's collection on this host.
pub struct Ansible {
    /// The program `ansible-playbook`.
    pub playbook: PathBuf,
    /// Folder into which the collection was installed.
    pub collections: PathBuf,
}

/// Starts a lab, shows everything, and removes the lab, also when something failed. A part that was not reached is a failure.
pub fn run(built: &Built, cache: &Path) -> Result<Vec<Check>> {
    with_lab(cache, |lab, checks| {
        let stage = start(lab, &built.release, checks)?;
        wrong_input::show(&stage, checks);
        interrupted::show(&stage, checks)?;
        whole::show(&stage, checks)?;
        checks.check("the cluster answers as the simulation's model does", || {
            answers::expect_recorded(&stage, Condition::Healthy)
        });
        conformance::show(&stage, &built.proof, checks);
        upgrade::show(&stage, checks);
        power::show(&stage, checks);
        absent::show(&stage, checks);
        ordinary::show(&stage, checks);
        whole::take_away(&stage, checks);
        Ok(())
    })
}

/// The same for what takes more than half an hour: a bundle of what publishers release, the Ansible collection, clusters that an old program
/// left, with journals of version 1, and ten cycles of install and uninstall.
pub fn run_long(built: &LongBuilt, ansible: &Ansible, cache: &Path) -> Result<Vec<Check>> {
    let LongBuilt { now, upstream, old } = built;
    with_lab(cache, |lab, checks| {
        let stage = start(lab, now, checks)?;
        collection::show(&stage, ansible, checks)?;
        upstream::show(&stage, now, upstream, checks)?;
        old_cluster::show(&stage, now, old, checks)?;
        cycles::show(&stage, checks)
    })
}

fn with_lab(cache: &Path, show: impl FnOnce(&Lab, &mut Checks) -> Result<(), Broken>) -> Result<Vec<Check>> {
    let size = Size {
        control_planes: 3,
        workers: 2,
    };
    let lab = Lab::new("test", NET, size, cache);
    let mut checks = Checks { done: Vec::new() };
    let shown = show(&lab, &mut checks);
    lab.down()?;
    if let Err(Broken) = shown {
        checks.not_reached();
    }
    Ok(checks.done)
}

fn start<'a>(lab: &'a Lab, release: &Release, checks: &mut Checks) -> Result<Stage<'a>, Broken> {
    checks.needed("machines start, and foreign state is planted", || {
        lab.up(&release.program, &release.bundle)?;
        foreign::plant_before(lab)?;
        let operator = Operator::of(lab)?;
        operator.write_cluster(|_| {})?;
        let before = Fingerprint::take_all(lab)?;
        Ok(Stage { lab, operator, before })
    })
}

/// Where `verify` looks from in the lab of containers.
const VANTAGES: [&str; 4] = ["pod/", "node/", "operator", "outside/"];

/// Fails unless a report of verify has cells from each of the places, all of them as expected.
fn expect_green(report: &Value, places: &[&str]) -> Result<()> {
    let cells = report["cells"].as_array().map(Vec::as_slice).unwrap_or_default();
    let red: Vec<_> = cells
        .iter()
        .filter(|cell| cell["outcome"] == "fail")
        .map(ToString::to_string)
        .collect();
    ensure!(red.is_empty(), "red cells:\n{}", red.join("\n"));
    for place in places {
        let from = |cell: &Value| {
            cell["vantage"]
                .as_str()
                .is_some_and(|vantage| vantage.starts_with(place))
        };
        ensure!(cells.iter().any(from), "no cell looks from {place}");
    }
    let by_tls = |c: &Value| c["target"].as_str().is_some_and(|t| t.starts_with("ingress-tls/"));
    ensure!(cells.iter().any(by_tls), "no cell looks by TLS");
    Ok(())
}

/// Fails unless the command ended with `status` and named `code`.
fn expect_refusal(ended: Ended, status: i32, code: &str) -> Result<Ended> {
    let ended = ended.expect(status)?;
    ensure!(
        ended.stderr.contains(&format!("[{code}]")),
        "{} does not name {code}:\n{}",
        ended.command,
        ended.stderr
    );
    ensure!(
        !ended.stderr.contains("panicked"),
        "{}:\n{}",
        ended.command,
        ended.stderr
    );
    Ok(ended)
}
