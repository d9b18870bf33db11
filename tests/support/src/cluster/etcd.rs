//! etcd: members, quorum, and `etcdctl` as far as it is asked.

use super::ask::Answer;
use super::{ETCD_DATA, ETCD_MANIFEST, ETCD_STOPPED, Law, State, World};
use landfall_core::name::NodeName;
use landfall_core::plan::key::StepKind;
use serde_json::json;
use std::net::IpAddr;

/// An entry of etcd's membership.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) peer_url: String,
    /// One that was added and not promoted yet.
    pub(super) learner: bool,
}

/// With what an etcd is bootstrapped: members that have the same list and token make one cluster, as far as their certificates are of
/// one authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bootstrap {
    /// Name and peer URL of each member.
    pub(super) list: Vec<(String, String)>,
    pub(super) token: Option<String>,
}

impl Bootstrap {
    /// Reads it off the manifest of a static pod. Without a list it is kubeadm's own: the member alone.
    pub(super) fn of(manifest: &str, node: &NodeName, address: IpAddr) -> Self {
        let flag = |name: &str| {
            manifest
                .lines()
                .rev()
                .find_map(|l| l.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let named = |entry: &str| {
            entry
                .split_once('=')
                .map(|(name, url)| (name.to_owned(), url.to_owned()))
        };
        let list = flag("--initial-cluster").map(|list| list.split(',').filter_map(named).collect());
        Self {
            list: list.unwrap_or_else(|| vec![(node.to_string(), peer_url(address))]),
            token: flag("--initial-cluster-token").map(str::to_owned),
        }
    }
}

/// Where a member answers its peers.
fn peer_url(address: IpAddr) -> String {
    format!("https://{address}:2380")
}

impl World {
    /// Runs `etcdctl` in a machine's etcd container. Returns whether it succeeded, its standard output and its standard error.
    pub fn etcdctl(&self, node: &NodeName, args: &[&str]) -> (bool, String, String) {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        let Answer { status, stdout, stderr } = self.state().etcdctl(node, &args);
        (status == 0, stdout, stderr)
    }
}

impl State {
    /// Says whether a machine's etcd container runs.
    pub(super) fn runs_etcd(&self, node: &NodeName) -> bool {
        let machine = self.machine(node);
        self.runs(node, "kubelet.service")
            && machine.is_some_and(|m| !m.text(ETCD_MANIFEST).is_empty() && m.has(ETCD_DATA) && !m.has(ETCD_STOPPED))
    }

    pub(super) fn is_healthy(&self, member: &Member) -> bool {
        self.named(&member.name).is_some_and(|(node, machine)| {
            self.runs_etcd(node) && machine.text(ETCD_DATA).trim() == member.id.to_string()
        })
    }

    pub(super) fn has_quorum(&self, at: usize) -> bool {
        let voters: Vec<_> = self.clusters[at].members.iter().filter(|m| !m.learner).collect();
        let healthy = voters.iter().filter(|m| self.is_healthy(m)).count();
        healthy * 2 > voters.len()
    }

    /// Adds a member that does not vote yet, as kubeadm does.
    pub(super) fn add_member(&mut self, node: &NodeName) -> Answer {
        self.must_be_intended(node, "a join of etcd", &[StepKind::JoinControlPlane]);
        let Some(at) = self.cluster_of(node).filter(|at| self.has_quorum(*at)) else {
            return Answer::failed("error execution phase etcd-join: etcdserver: request timed out");
        };
        let pending = self.clusters[at].members.iter().find(|m| m.learner).cloned();
        if let Some(pending) = pending {
            let what = format!("{node} joins while {} has not joined yet", pending.name);
            self.violate(Law::Joins, what);
            return Answer::failed("etcdserver: too many learner members in cluster");
        }
        if let Some(sick) = self.clusters[at].members.iter().find(|m| !self.is_healthy(m)) {
            let text = format!(
                "error execution phase check-etcd: etcd member {} is not healthy",
                sick.name
            );
            return Answer::failed(&text);
        }
        let Some(address) = self.machine(node).map(|m| m.address) else {
            return Answer::failed("no such machine");
        };
        let id = self.number();
        self.clusters[at].members.push(Member {
            id,
            name: node.to_string(),
            peer_url: peer_url(address),
            learner: true,
        });
        Answer::said(format!("{id}\n"))
    }

    /// Lets the new member vote, once it runs.
    pub(super) fn promote(&mut self, node: &NodeName) -> Answer {
        let Some(at) = self.cluster_of(node).filter(|at| self.has_quorum(*at)) else {
            return Answer::failed("etcdserver: request timed out");
        };
        let healthy = |m: &Member| m.name == node.as_str() && self.is_healthy(m);
        let Some(index) = self.clusters[at].members.iter().position(healthy) else {
            return Answer::failed("etcdserver: can only promote a learner member which is in sync with leader");
        };
        self.clusters[at].members[index].learner = false;
        Answer::said(String::new())
    }

    /// Answers `etcdctl` in a machine's own etcd container.
    pub(super) fn etcdctl(&mut self, node: &NodeName, args: &[String]) -> Answer {
        let words: Vec<&str> = args
            .iter()
            .map(String::as_str)
            .filter(|w| !w.starts_with("--"))
            .collect();
        let late = || Answer::failed("{\"level\":\"warn\"}\nError: context deadline exceeded");
        let Some(at) = self.cluster_of(node) else { return late() };
        if !self.has_quorum(at) {
            return late();
        }
        match words.as_slice() {
            ["endpoint", "health"] => Answer::said("127.0.0.1:2379 is healthy\n".to_owned()),
            ["endpoint", "health", ..] => {
                let started = self.clusters[at].members.iter().filter(|m| !m.learner);
                let health: Vec<(String, bool)> = started.map(|m| (client_url(m), self.is_healthy(m))).collect();
                // etcdctl prints all of them, and fails when one is not healthy.
                let status = u8::from(health.iter().any(|(_, is_healthy)| !is_healthy));
                let lines = health
                    .iter()
                    .map(|(endpoint, is_healthy)| json!({ "endpoint": endpoint, "health": is_healthy }));
                Answer {
                    status,
                    stdout: json!(lines.collect::<Vec<_>>()).to_string(),
                    stderr: String::new(),
                }
            }
            ["member", "list", ..] => {
                let list = self.clusters[at].members.iter().map(|m| {
                    let mut member =
                        json!({ "ID": m.id, "name": m.name, "peerURLs": [m.peer_url], "clientURLs": [client_url(m)] });
                    if m.learner {
                        member["isLearner"] = json!(true);
                        // etcd does not know the name of a member that has never started.
                        if !self.is_healthy(m) {
                            member["name"] = json!("");
                            member["clientURLs"] = json!([]);
                        }
                    }
                    member
                });
                let list: Vec<_> = list.collect();
                Answer::said(json!({ "header": {}, "members": list }).to_string())
            }
            ["member", "remove", id] => self.remove_member(at, id),
            other => Answer::failed(&format!("etcdctl: unknown command {other:?}")),
        }
    }

    fn remove_member(&mut self, at: usize, id: &str) -> Answer {
        let id = u64::from_str_radix(id, 16).unwrap_or(0);
        let Some(index) = self.clusters[at].members.iter().position(|m| m.id == id) else {
            return Answer::failed("Error: etcdserver: member not found");
        };
        let member = self.clusters[at].members[index].clone();
        let voters = self.clusters[at].members.iter().filter(|m| !m.learner && m.id != id);
        let (mut left, mut healthy) = (0, 0);
        for voter in voters {
            left += 1;
            healthy += usize::from(self.is_healthy(voter));
        }
        if healthy * 2 <= left {
            // What etcd's strict reconfiguration check says.
            return Answer::failed("Error: etcdserver: unhealthy cluster");
        }
        self.must_be_intended_somewhere("an etcd member was removed");
        let interrupted = self
            .named(&member.name)
            .is_some_and(|(node, _)| self.is_under_way(node));
        if self.is_healthy(&member) && !interrupted && !self.leaving.contains(&member.name) {
            let what = format!("the healthy etcd member {} was removed", member.name);
            self.violate(Law::Ours, what);
        }
        self.clusters[at].members.remove(index);
        Answer::said(format!("Member {id:x} removed from cluster\n"))
    }
}

/// Where a member answers clients.
fn client_url(member: &Member) -> String {
    member.peer_url.replace(":2380", ":2379")
}
