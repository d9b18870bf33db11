//! A fleet of [`Machine`]s behind the engine's own seam. Each session runs a real agent in a process of its own, over pipes, so that it
//! can be killed as a real one can be: without a word, in the middle of a write.

use crate::machine::{Machine, memory_dir, write_program};
use crate::pipes::{Agent, Agents, Pipes, lock};
use crate::tree::Tree;
use anyhow::{Context, Result, ensure};
use landfall_core::cluster_record::ClusterUid;
use landfall_core::event::EventSink;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::layout;
use landfall_core::name::NodeName;
use landfall_core::transport::Transport;
use landfall_engine::run::{CancelToken, Connector, Surroundings};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// An agent whose operator is gone ends within its own grace of 5 s; a busy test machine gets more.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// A fleet. Cloning gives a second handle to the same machines.
#[derive(Debug, Clone)]
pub struct Fleet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    machines: BTreeMap<NodeName, Machine>,
    // What the engine puts on nodes as its agent: a script that becomes the node program.
    home: TempDir,
    agents: Agents,
    limits: Mutex<BTreeMap<NodeName, u64>>,
    unreachable: Mutex<BTreeSet<NodeName>>,
}

impl Fleet {
    /// Makes a machine for every name. `node_program` is run as agent, with the machine's directory as its only argument.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a NodeName>, node_program: &Path) -> Result<Self> {
        let machines = names.into_iter().map(|n| Ok((n.clone(), Machine::new(n.as_str())?)));
        let home = memory_dir()?;
        let script = format!(
            "#!/bin/sh\nexec '{}' \"${{0%{}/bin/landfall}}\"\n",
            node_program.display(),
            layout::STATE_DIR
        );
        write_program(&home.path().join("agent"), &script, 0o755)?;
        Ok(Self(Arc::new(Inner {
            machines: machines.collect::<Result<_>>()?,
            home,
            agents: Agents::default(),
            limits: Mutex::default(),
            unreachable: Mutex::default(),
        })))
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

    /// Lets the kernel kill agents that start from now on when they write a file beyond so many bytes; the write is torn there. The
    /// journal is the longest file of an agent.
    pub fn limit_files(&self, name: &NodeName, bytes: Option<u64>) {
        let mut limits = lock(&self.0.limits);
        match bytes {
            Some(bytes) => limits.insert(name.clone(), bytes),
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

    /// Kills the agents of a machine at once.
    pub fn kill(&self, name: &NodeName) {
        self.end(name, |agent| {
            // One that has ended already is what is wanted. It is waited for: one that was not is still there for the next agent.
            let _ = agent.child.kill();
            let _ = agent.child.wait();
        });
    }

    /// Ends the connections to a machine without a word, as if the operator were gone; the agent itself lives on and notices.
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

    /// Returns what a run needs from its surroundings.
    pub fn surroundings(&self, run: &str, owner: &str, sink: Arc<dyn EventSink>) -> Result<Surroundings> {
        Ok(Surroundings {
            connector: Arc::clone(&self.0) as Arc<dyn Connector>,
            sink,
            cancel: CancelToken::default(),
            agent_program: self.0.home.path().join("agent"),
            local_prober: |_| vec![],
            owner: owner.to_owned(),
            run: run.parse()?,
            new_uid: ClusterUid::from_random([1; 16]),
            at_ms: 1_795_300_000_000,
            report_dir: None,
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
        let Some(machine) = machine.filter(|_| !lock(&self.unreachable).contains(&node.name)) else {
            return Err(Diagnosis::new(Code::Unreachable, "the machine does not answer"));
        };
        let limit = lock(&self.limits).get(&node.name).copied();
        Ok(Box::new(Pipes::new(&node.name, machine.root(), limit, &self.agents)))
    }
}
