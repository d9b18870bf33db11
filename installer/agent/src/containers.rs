//! Running containers, and programs inside them, through containerd's own client.

use crate::agent::Agent;
use crate::child::{Input, Job, Output};
use crate::error::{AgentError, Result};
use crate::interpret::images::ctr;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Returns the running container with this name in its pod (Kubernetes' own label).
pub fn running_named(agent: &Agent, name: &str) -> Result<String> {
    let filter = format!("labels.\"io.kubernetes.container.name\"=={name}");
    let ids = agent
        .children
        .run(
            &agent.host,
            Job::quick(&ctr(&["containers", "list", "--quiet", &filter]), 15),
        )?
        .text();
    let tasks = agent
        .children
        .run(&agent.host, Job::quick(&ctr(&["tasks", "list"]), 15))?
        .text();
    let running: BTreeSet<&str> = tasks
        .lines()
        .filter(|line| line.split_whitespace().nth(2) == Some("RUNNING"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let found = ids
        .lines()
        .map(str::trim)
        .find(|id| running.contains(id))
        .map(str::to_owned);
    found.ok_or_else(|| AgentError::NotSatisfied(format!("no container {name} runs on this node")))
}

/// Runs a program in a container. Blocks until it ends or `limit` is over.
pub fn exec(agent: &Agent, container: &str, argv: &[&str], input: &[u8], limit: Duration) -> Result<Output> {
    let mut random = [0u8; 8];
    rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty()).map_err(|errno| {
        AgentError::Kernel {
            what: "asking for random bytes".to_owned(),
            source: errno.into(),
        }
    })?;
    let id: String = std::iter::once("landfall-".to_owned())
        .chain(random.iter().map(|b| format!("{b:02x}")))
        .collect();
    let full: Vec<&str> = [&ctr(&["tasks", "exec", "--exec-id", &id, container]), argv].concat();
    let input = if input.is_empty() {
        Input::Nothing
    } else {
        Input::Bytes(input)
    };
    let job = Job {
        deadline: Instant::now() + limit,
        input,
        ..Job::quick(&full, 0)
    };
    let mut output = agent.children.run_any(&agent.host, job)?;
    // containerd's client adds remarks of its own, for instance about an old cgroup version.
    let is_remark = |line: &str| line.starts_with("time=\"") && line.contains(" level=warning ");
    output.stderr = output
        .stderr
        .lines()
        .filter(|l| !is_remark(l))
        .map(|l| format!("{l}\n"))
        .collect();
    output.tail.retain(|line| !is_remark(line));
    Ok(output)
}
