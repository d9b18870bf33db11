//! A fleet of [`Machine`]s behind the engine's own `Connector`. Each session runs a real agent in a process of its own, over pipes, so that it
//! can be killed in the middle of a write.

use crate::cluster::World;
use crate::machine::{Machine, memory_dir, write_program};
use crate::pipes::{Agent, Agents, FileLimit, Pipes, Traffic, Way, lock};
use crate::tree::Tree;
use anyhow::{Context, Result, ensure};
use landfall_bundle::own_parts::AgentProgram;
use landfall_core::action::Undo;
use landfall_core::cluster_record::ClusterUid;
use landfall_core::event::EventSink;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::journal::{EntryState, Record, parse_journal, replay};
use landfall_core::layout;
use landfall_core::name::{Digest, NodeName, StepId};
use landfall_core::transport::Transport;
use landfall_engine::limit::Limit;
use landfall_engine::run::{CancelToken, Connector, RunContext};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// An agent whose operator is gone ends within its own grace of 5 s; a busy test machine gets more.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// A fleet. Cloning gives a second handle to the same machines.
#[derive(Debug, Clone)]
pub struct Fleet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    machines: BTreeMap<NodeName, Machine>,
    world: World,
    // What the engine puts on nodes as its agent: a script that becomes the node program.
    home: TempDir,
    agents: Agents,
    limits: Mutex<BTreeMap<NodeName, FileLimit>>,
    unreachable: Mutex<BTreeSet<NodeName>>,
    delays: Mutex<BTreeMap<NodeName, Duration>>,
    clocks_behind: Mutex<BTreeMap<NodeName, Duration>>,
    traffic: BTreeMap<NodeName, Arc<Mutex<Traffic>>>,
}

impl Fleet {
    /// Makes a machine for every node. `node_program` is run as agent, with the machine's directory as its only argument.
    pub fn new<'a>(nodes: impl IntoIterator<Item = &'a Node>, node_program: &Path) -> Result<Self> {
        let home = memory_dir()?;
        let socket = home.path().join("model");
        let (mut machines, mut places) = (BTreeMap::new(), Vec::new());
        for node in nodes {
            let machine = Machine::new(node.name.as_str())?;
            let address = node.ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let model = json!({ "node": node.name, "socket": socket, "address": address }).to_string();
            machine.write("sim/model.json", &model, 0o444)?;
            let ask = format!(
                "#!/bin/sh\nexec '{}' ask \"${{0%/sim/ask}}\" \"$@\"\n",
                node_program.display()
            );
            machine.write("sim/ask", &ask, 0o755)?;
            places.push((node.name.clone(), machine.root().to_owned(), address));
            machines.insert(node.name.clone(), machine);
        }
        let world = World::start(places)?;
        world.answer_on(UnixListener::bind(&socket)?);
        let script = format!(
            "#!/bin/sh\nexec '{}' \"${{0%{}/bin/landfall}}\"\n",
            node_program.display(),
            layout::STATE_DIR
        );
        write_program(&home.path().join("agent"), &script, 0o755)?;
        Ok(Self(Arc::new(Inner {
            traffic: machines.keys().map(|name| (name.clone(), Arc::default())).collect(),
            machines,
            world,
            home,
            agents: Agents::default(),
            limits: Mutex::default(),
            unreachable: Mutex::default(),
            delays: Mutex::default(),
            clocks_behind: Mutex::default(),
        })))
    }

    /// Returns the clusters on these machines.
    pub fn world(&self) -> &World {
        &self.0.world
    }

    /// Cuts a machine's power: its agents end in the middle of what they do, what lies in memory is gone, and what was written and not yet
    /// put on disk: records at the journal's end, and the content of files that the program of an unfinished step has made.
    pub fn power_off(&self, name: &NodeName) -> Result<()> {
        self.0.world.set_off(name, true);
        self.kill(name);
        let machine = self.machine(name)?;
        let journal = fs::read(machine.journal()).unwrap_or_default();
        let kept = on_disk(&journal);
        if kept < journal.len() {
            fs::write(machine.journal(), &journal[..kept])?;
        }
        for path in unfinished(&journal[..kept])? {
            empty_files(&machine.at(&path))?;
        }
        for path in ["run/systemd/active", "run/containerd", "run/landfall"] {
            let _ = fs::remove_dir_all(machine.at(path));
        }
        fs::create_dir_all(machine.at("run/systemd/active"))?;
        Ok(())
    }

    /// Starts a machine again: systemd starts what is enabled.
    pub fn power_on(&self, name: &NodeName) -> Result<()> {
        let machine = self.machine(name)?;
        for entry in fs::read_dir(machine.at("etc/systemd/system/multi-user.target.wants"))? {
            let unit = entry?.file_name().to_string_lossy().into_owned();
            if unit != "other.service" {
                let systemctl = Command::new(machine.at("usr/bin/systemctl"))
                    .args(["start", &unit])
                    .output()?;
                ensure!(
                    systemctl.status.success(),
                    "{unit} of {name} did not start: {systemctl:?}"
                );
            }
        }
        self.0.world.set_off(name, false);
        Ok(())
    }

    /// Returns a machine.
    pub fn machine(&self, name: &NodeName) -> Result<&Machine> {
        self.0.machines.get(name).with_context(|| format!("no machine {name}"))
    }

    /// Returns all names.
    pub fn names(&self) -> Vec<NodeName> {
        self.0.machines.keys().cloned().collect()
    }

    /// Returns everything on every machine.
    pub fn trees(&self) -> Result<BTreeMap<NodeName, Tree>> {
        self.0
            .machines
            .iter()
            .map(|(n, m)| Ok((n.clone(), m.tree()?)))
            .collect()
    }

    /// Ends the connection to a machine's agent once so many bytes were sent to its agents in all. Happens once; each call adds a cut.
    pub fn cut_after(&self, name: &NodeName, bytes: u64) {
        self.traffic_of(name, |traffic| _ = traffic.cuts.insert(bytes));
    }

    /// Says whether a cut of [`Self::cut_after`] is still to come.
    pub fn is_to_be_cut(&self, name: &NodeName) -> bool {
        self.traffic_of(name, |traffic| !traffic.cuts.is_empty())
    }

    /// Changes a bit of the byte before which so many were sent to a machine's agents in all. Happens once; each call adds one.
    pub fn flip_at(&self, name: &NodeName, bytes: u64) {
        self.traffic_of(name, |traffic| _ = traffic.flips.insert(bytes));
    }

    /// Says whether a change of [`Self::flip_at`] is still to come.
    pub fn is_to_be_flipped(&self, name: &NodeName) -> bool {
        self.traffic_of(name, |traffic| !traffic.flips.is_empty())
    }

    /// Returns how many bytes were sent to a machine's agents, over all connections.
    pub fn bytes_sent(&self, name: &NodeName) -> u64 {
        self.traffic_of(name, |traffic| traffic.sent)
    }

    /// Returns how many requests of a kind were sent to a machine's agents, by its name on the wire.
    pub fn requests(&self, name: &NodeName, kind: &str) -> usize {
        self.traffic_of(name, |traffic| traffic.requests.get(kind).copied().unwrap_or_default())
    }

    /// Returns how many bytes had been sent to a machine's agents at the end of each write.
    pub fn ends_of_writes(&self, name: &NodeName) -> Vec<u64> {
        self.traffic_of(name, |traffic| traffic.ends.clone())
    }

    fn traffic_of<T>(&self, name: &NodeName, ask: impl FnOnce(&mut Traffic) -> T) -> T {
        ask(&mut lock(&self.0.traffic[name]))
    }

    /// Lets the kernel kill agents that start from now on when they write a file beyond so many bytes; the write is torn there. The
    /// journal is the longest file of an agent.
    pub fn limit_files(&self, name: &NodeName, bytes: Option<u64>) {
        self.limit(name, bytes, false);
    }

    /// Lets writes of agents that start from now on fail when a file would get longer than so many bytes, as on a full disk.
    pub fn fill_disk(&self, name: &NodeName, bytes: Option<u64>) {
        self.limit(name, bytes, true);
    }

    fn limit(&self, name: &NodeName, bytes: Option<u64>, full_disk: bool) {
        let mut limits = lock(&self.0.limits);
        match bytes {
            Some(bytes) => limits.insert(name.clone(), FileLimit { bytes, full_disk }),
            None => limits.remove(name),
        };
    }

    /// Makes a machine unreachable, or reachable again.
    pub fn set_unreachable(&self, name: &NodeName, unreachable: bool) {
        let mut set = lock(&self.0.unreachable);
        if unreachable {
            set.insert(name.clone());
        } else {
            set.remove(name);
        }
    }

    /// Makes a machine slow: whatever is sent to it from now on arrives so much later. `None` makes it as fast as the others again.
    pub fn set_slow(&self, name: &NodeName, delay: Option<Duration>) {
        let mut delays = lock(&self.0.delays);
        match delay {
            Some(delay) => delays.insert(name.clone(), delay),
            None => delays.remove(name),
        };
    }

    /// Sets a machine's clock back, for the agents that are started from now on. `None` sets it right again.
    pub fn set_clock_behind(&self, name: &NodeName, behind: Option<Duration>) {
        let mut clocks = lock(&self.0.clocks_behind);
        match behind {
            Some(behind) => clocks.insert(name.clone(), behind),
            None => clocks.remove(name),
        };
    }

    /// Kills the agents of a machine at once.
    pub fn kill(&self, name: &NodeName) {
        self.end(name, |agent| {
            // An agent that has exited already is no error. All are waited for, because the next agent would find one that still runs.
            let _ = agent.child.kill();
            let _ = agent.child.wait();
        });
    }

    /// Ends the connections to a machine without a message, as if the operator had died; the agent keeps running and notices.
    pub fn cut(&self, name: &NodeName) {
        self.end(name, |agent| drop(lock(&agent.line).take()));
    }

    fn end(&self, name: &NodeName, how: impl Fn(&mut Agent)) {
        lock(&self.0.agents)
            .iter_mut()
            .filter(|a| &a.name == name)
            .for_each(how);
    }

    /// Waits until no agent runs any more.
    pub fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        for mut agent in std::mem::take(&mut *lock(&self.0.agents)) {
            while agent.child.try_wait()?.is_none() {
                if Instant::now() >= deadline {
                    let _ = agent.child.kill();
                    let _ = agent.child.wait();
                    anyhow::bail!("the agent of {} did not end", agent.name);
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }

    /// Returns the context of a run.
    pub fn run_context(&self, run: &str, owner: &str, sink: Arc<dyn EventSink>) -> Result<RunContext> {
        Ok(RunContext {
            connector: Arc::clone(&self.0) as Arc<dyn Connector>,
            sink,
            cancel: CancelToken::default(),
            agent_program: Arc::new(AgentProgram::open(&self.0.home.path().join("agent"))?),
            local_prober: |_| vec![],
            owner: owner.to_owned(),
            run: run.parse()?,
            new_uid: uid_of(run),
            at_ms: 1_795_300_000_000,
            clock: now_ms,
            report_dir: None,
            limit: Limit::default(),
        })
    }

    /// Says how each machine differs from what is wanted; machines that do not differ are left out.
    pub fn differences(&self, wanted: &BTreeMap<NodeName, Tree>, besides: &[&str]) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        ensure!(wanted.len() == self.0.machines.len(), "another fleet was compared");
        for (name, tree) in self.trees()? {
            let wanted = wanted.get(&name).with_context(|| format!("no tree of {name}"))?;
            let differences = tree.without(besides).differences(&wanted.without(besides));
            lines.extend(differences.iter().map(|line| format!("{name}: {line}")));
        }
        Ok(lines)
    }
}

/// The machines of a fleet have this machine's clock.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How much of a journal is on disk for certain. Records that allow an act are put there before it, and that a slow step is done at once
/// (`durability_of_done` in `installer/agent/src/interpret`); of records at the end that only say what was done, a power cut may take all.
fn on_disk(journal: &[u8]) -> usize {
    let mut slow: BTreeSet<StepId> = BTreeSet::new();
    let (mut kept, mut at) = (0, 0);
    for line in journal.split_inclusive(|b| *b == b'\n') {
        at += line.len();
        let Ok(records) = parse_journal(line) else { continue };
        let is_put_there = records.iter().all(|record| match record {
            Record::Intent { step, undo, .. } => {
                if matches!(
                    undo,
                    Undo::RemoveClaims { .. } | Undo::RemoveImages { .. } | Undo::RestoreUnit { .. }
                ) {
                    slow.insert(step.clone());
                }
                true
            }
            Record::Done { step, .. } => slow.contains(step),
            Record::Failed { .. } | Record::Undone { .. } => false,
            _ => true,
        });
        if is_put_there {
            kept = at;
        }
    }
    kept
}

impl Drop for Inner {
    fn drop(&mut self) {
        for agent in lock(&self.agents).iter_mut() {
            let _ = agent.child.kill();
            let _ = agent.child.wait();
        }
    }
}

impl Connector for Inner {
    fn connect(&self, node: &Node) -> Result<Box<dyn Transport>, Diagnosis> {
        let machine = self.machines.get(&node.name);
        let lost = lock(&self.unreachable).contains(&node.name) || self.world.is_off(&node.name);
        let Some(machine) = machine.filter(|_| !lost) else {
            return Err(Diagnosis::new(Code::Unreachable, "the machine does not answer"));
        };
        let way = Way {
            limit: lock(&self.limits).get(&node.name).copied(),
            clock_behind: lock(&self.clocks_behind).get(&node.name).copied().unwrap_or_default(),
            delay: lock(&self.delays).get(&node.name).copied().unwrap_or_default(),
            traffic: Arc::clone(&self.traffic[&node.name]),
        };
        Ok(Box::new(Pipes::new(&node.name, machine.root(), way, &self.agents)))
    }
}

/// Returns the identity that a run gives a cluster which it founds: another one for each run.
fn uid_of(run: &str) -> ClusterUid {
    let mut bytes = [0; 16];
    let digest = Digest::of(run.as_bytes());
    for (byte, from) in bytes.iter_mut().zip(digest.hex().bytes()) {
        *byte = from;
    }
    ClusterUid::from_random(bytes)
}

/// Returns what the programs of unfinished steps have made, by a journal: what their intents claim was not there before. etcd puts its data on
/// disk itself.
fn unfinished(journal: &[u8]) -> Result<Vec<String>> {
    let own = replay(&parse_journal(journal)?)?;
    let entries = own.entries.iter().filter(|entry| entry.state == EntryState::Intended);
    let claimed = entries.flat_map(|entry| match &entry.undo {
        Undo::RemoveClaims { claims, .. } => claims.paths.as_slice(),
        _ => &[],
    });
    let paths = claimed.map(|path| path.to_string_lossy().trim_end_matches("/*").to_owned());
    Ok(paths.filter(|path| !path.starts_with(layout::ETCD_DIR)).collect())
}

/// Empties a file, or all files below a directory.
fn empty_files(path: &Path) -> Result<()> {
    let Ok(meta) = path.symlink_metadata() else {
        return Ok(());
    };
    if meta.is_file() {
        return Ok(File::options().write(true).open(path)?.set_len(0)?);
    }
    let entries = if meta.is_dir() { Some(fs::read_dir(path)?) } else { None };
    entries
        .into_iter()
        .flatten()
        .try_for_each(|entry| empty_files(&entry?.path()))
}
