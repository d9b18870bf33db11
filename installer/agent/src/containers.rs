//! Running containers, and programs inside them, through containerd's own client.

use crate::actions::images::ctr;
use crate::agent::Agent;
use crate::child::{Input, Job, Output};
use crate::error::{AgentError, Result};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A container as the kubelet labels it. All three labels must match: any pod may choose the same container name.
#[derive(Debug, Clone, Copy)]
pub struct ContainerOf<'a> {
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Name of the pod.
    pub pod: &'a str,
    /// Name of the container in the pod.
    pub container: &'a str,
}

impl ContainerOf<'_> {
    /// The filter of containerd's client: clauses behind commas must all hold.
    fn filter(&self) -> String {
        format!(
            "labels.\"io.kubernetes.pod.namespace\"=={},labels.\"io.kubernetes.pod.name\"=={},\
             labels.\"io.kubernetes.container.name\"=={}",
            self.namespace, self.pod, self.container
        )
    }
}

/// Returns the id of the running container. Blocks 30 s at most; none that runs is an error.
pub fn running(agent: &Agent, wanted: ContainerOf) -> Result<String> {
    let found = all_running(agent, &wanted.filter())?.into_iter().next();
    found.ok_or_else(|| {
        AgentError::NotSatisfied(format!(
            "container {} of pod {}/{} does not run on this node",
            wanted.container, wanted.namespace, wanted.pod
        ))
    })
}

/// Returns the ids of running containers that fit containerd's filter.
fn all_running(agent: &Agent, filter: &str) -> Result<Vec<String>> {
    let ask = |args: &[&str]| agent.children.run(&agent.host, Job::quick(&ctr(args), 15));
    let ids = ask(&["containers", "list", "--quiet", filter])?.text();
    let tasks = ask(&["tasks", "list"])?.text();
    let running: BTreeSet<&str> = tasks
        .lines()
        .filter(|line| line.split_whitespace().nth(2) == Some("RUNNING"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let ids = ids.lines().map(str::trim).filter(|id| running.contains(id));
    Ok(ids.map(str::to_owned).collect())
}

/// Kills the running containers of this name in pods of a namespace, whatever their pods are called; the kubelet starts them again. Returns
/// how many there were. Blocks a minute at most.
pub fn end_all(agent: &Agent, namespace: &str, container: &str) -> Result<usize> {
    let filter = format!(
        "labels.\"io.kubernetes.pod.namespace\"=={namespace},labels.\"io.kubernetes.container.name\"=={container}"
    );
    let ids = all_running(agent, &filter)?;
    for id in &ids {
        let job = Job::quick(&ctr(&["tasks", "kill", "--signal", "SIGKILL", id]), 15);
        agent.children.run(&agent.host, job)?;
    }
    Ok(ids.len())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;
    use std::os::unix::fs::PermissionsExt;

    /// containerd's client with these containers, `id namespace pod container`; prints those for which every clause of the filter
    /// holds. All of them run.
    const CTR: &str = r#"#!/bin/sh
containers="evil default milvus-0 etcd
twin kube-system etcd-cp-2 etcd
good kube-system etcd-cp-1 etcd
side kube-system etcd-cp-1 sidecar"
if [ "$3 $4" = "tasks list" ]; then
    echo "TASK PID STATUS"
    echo "$containers" | while read -r id rest; do echo "$id 7 RUNNING"; done
    exit 0
fi
echo "$containers" | while read -r id namespace pod container; do
    fits=yes
    IFS=,
    for clause in $6; do
        case "$clause" in
            'labels."io.kubernetes.pod.namespace"=='"$namespace") ;;
            'labels."io.kubernetes.pod.name"=='"$pod") ;;
            'labels."io.kubernetes.container.name"=='"$container") ;;
            *) fits=no ;;
        esac
    done
    IFS=' '
    [ "$fits" = yes ] && echo "$id"
done
exit 0
"#;

    #[test]
    fn only_the_container_of_the_named_pod_is_found() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("usr/local/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(bin.join("ctr"), CTR).unwrap();
        std::fs::set_permissions(bin.join("ctr"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let agent = Agent::new(Host::under(root.path()));
        let etcd_of = |pod| ContainerOf {
            namespace: "kube-system",
            pod,
            container: "etcd",
        };
        assert_eq!(running(&agent, etcd_of("etcd-cp-1")).unwrap(), "good");
        let error = running(&agent, etcd_of("etcd-cp-3")).unwrap_err().to_string();
        assert!(error.contains("etcd of pod kube-system/etcd-cp-3"), "{error}");
    }
}
