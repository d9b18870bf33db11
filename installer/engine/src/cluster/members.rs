//! Removes members of the cluster: etcd members and Node objects that an interrupted or undone join left behind.
//!
//! Each reachable node is asked until one answers. "No such member" is an answer: there is nothing to do then. When no node answers,
//! that is an error once the cluster has been formed: a member that is left behind would count in etcd's quorum for good.
//! [`landfall_core::quorum`] decides whether a member may be removed.

use super::Cluster;
use super::client::{api_error, is_not_found};
use crate::emitter::EventEmitter;
use crate::fleet::Sessions;
use crate::session::NodeSession;
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use landfall_core::action::ClusterEffect;
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::journal::Ownership;
use landfall_core::membership::is_formed;
use landfall_core::name::NodeName;
use landfall_core::quorum::{MemberId, may_remove};
use landfall_core::wire::{CommandOutput, Request};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whether the cluster was ever founded, by the journals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Formed {
    /// No founding is recorded as done: nothing can be left behind in a cluster.
    No,
    /// The founding is recorded as done.
    Yes,
}

impl Formed {
    /// Reads that from the journals of all nodes.
    pub fn from_journals(owned: &BTreeMap<NodeName, Ownership>) -> Self {
        if is_formed(owned) { Self::Yes } else { Self::No }
    }
}

impl Cluster {
    /// Removes what an interrupted or undone step of `node` made in the cluster: its etcd member and its Node object. Asks the other nodes
    /// whether these exist. An etcd member whose removal would cost etcd its quorum is an error. Blocks for the requests.
    pub fn remove_effects(
        &self,
        sessions: &Sessions,
        node: &NodeName,
        effects: &[ClusterEffect],
        formed: Formed,
        emitter: &EventEmitter,
    ) -> Result<(), Diagnosis> {
        let others: Vec<_> = sessions.values().filter(|s| s.name() != node && !s.is_lost()).collect();
        for effect in effects {
            let removed = match effect {
                ClusterEffect::EtcdMember { name, peer_url } => {
                    let what = format!("the etcd member {name}");
                    match ask_any(&others, formed, &what, |session| EtcdMembers::ask(session))? {
                        Some((session, members)) => remove_member(session, &members, name, peer_url)?,
                        None => None,
                    }
                }
                ClusterEffect::Node { name } => {
                    let what = format!("the Node object {name}");
                    match ask_any(&others, formed, &what, |session| self.has_node(session, name))? {
                        Some((session, true)) => Some(self.remove_node(session, name)?),
                        _ => None,
                    }
                }
            };
            if let Some(text) = removed {
                emitter.emit(Some(node), EventKind::Note { text });
            }
        }
        Ok(())
    }

    fn has_node(&self, session: &Arc<NodeSession>, name: &NodeName) -> Result<bool, Diagnosis> {
        self.with_client(session, |client| async move {
            let found = Api::<Node>::all(client).get_opt(name.as_str()).await;
            found
                .map(|node| node.is_some())
                .map_err(|error| api_error("the Node object could not be read", &error))
        })
    }

    fn remove_node(&self, session: &Arc<NodeSession>, name: &NodeName) -> Result<String, Diagnosis> {
        self.with_client(session, |client| async move {
            let nodes = Api::<Node>::all(client);
            match nodes.delete(name.as_str(), &Default::default()).await {
                Err(error) if !is_not_found(&error) => {
                    Err(api_error("the Node object could not be removed", &error).next("landfall status"))
                }
                _ => Ok(format!(
                    "removed the Node object {name} of a join that is not there any more"
                )),
            }
        })
    }
}

/// Returns the first answer and the node that gave it. When no node answers, returns `None` if no cluster was ever founded, else an error
/// with all reasons.
fn ask_any<'a, S, T>(
    sessions: &[&'a S],
    formed: Formed,
    what: &str,
    ask: impl Fn(&'a S) -> Result<T, Diagnosis>,
) -> Result<Option<(&'a S, T)>, Diagnosis> {
    let mut unanswered = Vec::new();
    for session in sessions {
        match ask(session) {
            Ok(answer) => return Ok(Some((*session, answer))),
            Err(diagnosis) => unanswered.push(diagnosis),
        }
    }
    if formed == Formed::No {
        return Ok(None);
    }
    let what = format!("no other node could be asked whether the cluster still has {what}, so nothing was removed");
    let mut diagnosis = Diagnosis::new(Code::ClusterApi, what);
    for error in unanswered {
        let node = error.node.as_ref().map_or("a node", NodeName::as_str);
        let reason = error
            .causes
            .last()
            .or(error.saw.last())
            .map_or(String::new(), |r| format!(": {r}"));
        diagnosis = diagnosis.saw(format!("{node}: {}{reason}", error.what));
    }
    Err(diagnosis
        .next("landfall status: on a control plane, etcd and the API server must answer")
        .next("then run the same command again"))
}

/// etcd's members as one of them lists them.
#[derive(Debug, Default, PartialEq, Eq)]
struct EtcdMembers {
    members: Vec<EtcdMember>,
    healthy: BTreeSet<MemberId>,
}

/// A member in the answer of `etcdctl member list -w json` (etcd 3.7, api/etcdserverpb: empty fields are left out).
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct EtcdMember {
    #[serde(rename = "ID")]
    id: MemberId,
    /// Empty until the member has started.
    #[serde(default)]
    name: String,
    #[serde(default, rename = "peerURLs")]
    peer_urls: Vec<String>,
    /// Empty until the member has started.
    #[serde(default, rename = "clientURLs")]
    client_urls: Vec<String>,
    #[serde(default, rename = "isLearner")]
    is_learner: bool,
}

#[derive(Deserialize)]
struct MemberList {
    members: Vec<EtcdMember>,
}

/// One line of `etcdctl endpoint health -w json` (etcdctl 3.7, ep_command.go).
#[derive(Deserialize)]
struct EndpointHealth {
    endpoint: String,
    health: bool,
}

impl EtcdMembers {
    fn ask(session: &NodeSession) -> Result<Self, Diagnosis> {
        let list = etcdctl(session, &["member", "list", "-w", "json"])?;
        // etcdctl ends with an error when one endpoint is not healthy, and still prints all of them on its standard output.
        let health = etcdctl(session, &["endpoint", "health", "--cluster", "-w", "json"])?;
        Self::read(&list.stdout, &health.stdout).map_err(|error| {
            let output =
                [list.stderr.trim(), health.stderr.trim()].map(|s| s.lines().last().unwrap_or_default().to_owned());
            let diagnosis = Diagnosis::new(Code::ClusterApi, "etcd's members could not be listed").on(session.name());
            let diagnosis = output
                .into_iter()
                .filter(|line| !line.is_empty())
                .fold(diagnosis, Diagnosis::saw);
            diagnosis.because(&error)
        })
    }

    fn read(list: &str, health: &str) -> Result<Self, serde_json::Error> {
        let MemberList { members } = serde_json::from_str(list)?;
        let health: Vec<EndpointHealth> = serde_json::from_str(health)?;
        let answers = |url: &String| health.iter().any(|h| h.health && h.endpoint == *url);
        let healthy = members.iter().filter(|m| m.client_urls.iter().any(answers));
        Ok(Self {
            healthy: healthy.map(|m| m.id).collect(),
            members,
        })
    }

    fn find(&self, name: &str, peer_url: &str) -> Option<&EtcdMember> {
        let is_it = |m: &&EtcdMember| m.name == name || m.peer_urls.iter().any(|url| url == peer_url);
        self.members.iter().find(is_it)
    }

    fn voters(&self) -> BTreeSet<MemberId> {
        self.members.iter().filter(|m| !m.is_learner).map(|m| m.id).collect()
    }
}

/// Returns the ids of etcd's members by name, as the first of these control planes lists them; nothing when none answers.
pub fn member_ids(control_planes: &[Arc<NodeSession>]) -> BTreeMap<String, MemberId> {
    let list = |session: &Arc<NodeSession>| {
        let output = etcdctl(session, &["member", "list", "-w", "json"]).ok()?;
        serde_json::from_str::<MemberList>(&output.stdout).ok()
    };
    let found = control_planes.iter().find_map(list);
    let members = found.into_iter().flat_map(|list| list.members);
    members.map(|member| (member.name, member.id)).collect()
}

fn etcdctl(session: &NodeSession, args: &[&str]) -> Result<CommandOutput, Diagnosis> {
    session.ask(&Request::Etcdctl {
        node: session.name().clone(),
        args: args.iter().map(|a| (*a).to_owned()).collect(),
    })
}

/// Removes a member by name or peer URL, if it is there and the others keep their quorum. Returns what was done.
fn remove_member(
    session: &NodeSession,
    etcd: &EtcdMembers,
    name: &str,
    peer_url: &str,
) -> Result<Option<String>, Diagnosis> {
    let Some(member) = etcd.find(name, peer_url) else {
        return Ok(None);
    };
    may_remove(&etcd.voters(), &etcd.healthy, member.id).map_err(|risk| {
        Diagnosis::new(
            Code::ClusterApi,
            format!("the etcd member {name} cannot be removed without losing etcd's quorum"),
        )
        .on(session.name())
        .because(&risk)
        .next("bring the other control planes up again (landfall status shows them), then run the same command again")
    })?;
    let removed = etcdctl(session, &["member", "remove", &member.id.to_string()])?;
    if removed.status == Some(0) {
        return Ok(Some(format!(
            "removed the etcd member {name} ({}) of a join that is not there any more",
            member.id
        )));
    }
    Err(
        Diagnosis::new(Code::ClusterApi, format!("etcd refused to remove the member {name}"))
            .on(session.name())
            .saw(removed.stderr.trim())
            .next("landfall status"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_core::action::Undo;
    use landfall_core::journal::{Entry, EntryState};
    use landfall_core::name::Digest;

    fn refused(node: &&str) -> Result<u8, Diagnosis> {
        let node = node.parse().unwrap();
        Err(Diagnosis::new(Code::StepFailed, "no container etcd runs").on(&node))
    }

    #[test]
    fn no_answer_is_an_error_once_a_cluster_was_formed() {
        let nodes = ["cp-1", "w-1"];
        let list: Vec<&&str> = nodes.iter().collect();
        let error = ask_any(&list, Formed::Yes, "the etcd member cp-2", refused).unwrap_err();
        assert!(
            error.what.contains("no other node could be asked") && error.what.contains("cp-2"),
            "{error:?}"
        );
        assert_eq!(
            error.saw,
            ["cp-1: no container etcd runs", "w-1: no container etcd runs"]
        );
        assert!(!error.next.is_empty());
        assert_eq!(ask_any(&list, Formed::No, "x", refused).unwrap(), None);
        assert!(
            ask_any::<&str, u8>(&[], Formed::Yes, "x", refused).is_err(),
            "there is no node to ask"
        );
    }

    #[test]
    fn one_answer_is_enough() {
        let nodes = ["w-1", "cp-1"];
        let list: Vec<&&str> = nodes.iter().collect();
        let ask = |node: &&str| if *node == "cp-1" { Ok(7) } else { refused(node) };
        assert_eq!(ask_any(&list, Formed::Yes, "x", ask).unwrap(), Some((&"cp-1", 7)));
    }

    #[test]
    fn a_cluster_is_founded_only_when_the_founding_is_done() {
        let own = |step: &str, state| Ownership {
            entries: vec![Entry {
                run: "r".parse().unwrap(),
                step: step.parse().unwrap(),
                action: Digest::of(b""),
                undo: Undo::Nothing,
                wanted: None,
                state,
                stamp: None,
            }],
            ..Ownership::default()
        };
        let formed = |step, state| Formed::from_journals(&[("cp-1".parse().unwrap(), own(step, state))].into());
        assert_eq!(formed("init/cp-1", EntryState::Owned), Formed::Yes);
        assert_eq!(formed("init/cp-1", EntryState::Intended), Formed::No);
        assert_eq!(formed("join-kubelet/cp-1", EntryState::Owned), Formed::No);
    }

    /// As etcdctl 3.7 prints it: two that run, one that was added and has not started, one learner.
    const LIST: &str = r#"{"header":{"cluster_id":1,"member_id":2,"raft_term":3},"members":[
        {"ID":9372538179322589801,"name":"cp-1","peerURLs":["https://10.0.0.1:2380"],"clientURLs":["https://10.0.0.1:2379"]},
        {"ID":2,"name":"cp-2","peerURLs":["https://10.0.0.2:2380"],"clientURLs":["https://10.0.0.2:2379"]},
        {"ID":3,"peerURLs":["https://10.0.0.3:2380"]},
        {"ID":4,"name":"cp-4","peerURLs":["https://10.0.0.4:2380"],"clientURLs":["https://10.0.0.4:2379"],"isLearner":true}]}"#;
    const HEALTH: &str = r#"[{"endpoint":"https://10.0.0.1:2379","health":true,"took":"2ms"},
        {"endpoint":"https://10.0.0.2:2379","health":false,"took":"5s","error":"context deadline exceeded"}]"#;

    #[test]
    fn members_and_their_health_are_read() {
        let etcd = EtcdMembers::read(LIST, HEALTH).unwrap();
        let first = MemberId(9_372_538_179_322_589_801);
        assert_eq!(etcd.healthy, [first].into());
        assert_eq!(etcd.voters(), [MemberId(2), MemberId(3), first].into());
        assert_eq!(etcd.find("cp-2", "").unwrap().id, MemberId(2));
        // A member that has not started has no name yet: its peer URL tells it.
        assert_eq!(etcd.find("cp-3", "https://10.0.0.3:2380").unwrap().id, MemberId(3));
        assert_eq!(etcd.find("cp-5", "https://10.0.0.5:2380"), None);
        assert!(may_remove(&etcd.voters(), &etcd.healthy, MemberId(3)).is_err());
        assert!(EtcdMembers::read("", HEALTH).is_err() && EtcdMembers::read(LIST, "").is_err());
    }
}
