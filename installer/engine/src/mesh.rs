//! The wire between nodes: their agents listen and try each other, all pairs at the same time, before anything is changed.

use crate::fleet::{self, Sessions};
use crate::random;
use landfall_core::explain::Diagnosis;
use landfall_core::finding::{Check, Finding};
use landfall_core::mesh::{MeshListening, MeshSeen};
use landfall_core::name::NodeName;
use landfall_core::preflight::mesh::{self, MeshInput, MeshPlan};
use landfall_core::wire::Request;
use landfall_core::wire::mux::Stream;
use std::collections::BTreeMap;

/// Random bytes of the token that listeners answer to.
const TOKEN_BYTES: usize = 16;

/// Has all nodes try each other, and judges what they saw. Blocks about 10 s at most where nothing answers.
pub fn look(input: &MeshInput, sessions: &Sessions) -> Vec<Finding> {
    let token = match random::hex::<TOKEN_BYTES>() {
        Ok(token) => token,
        Err(error) => return vec![not_tried("no random bytes can be had", &error.to_string())],
    };
    let mut plan = mesh::plan(input, &token);
    let (listeners, mut findings) = listen(sessions, &mut plan);
    let (seen, failed) = attempt(sessions, &plan);
    drop(listeners);
    findings.extend(failed);
    findings.extend(mesh::judge(input, &seen));
    findings
}

/// Opens the listeners of all nodes, takes out of the plan what could not be opened, and says what that was. The listeners close when the
/// streams are dropped.
fn listen(sessions: &Sessions, plan: &mut MeshPlan) -> (Vec<Stream>, Vec<Finding>) {
    let asked: Vec<_> = plan
        .listens
        .iter()
        .filter_map(|(name, listen)| Some((sessions.get(name)?, Request::MeshListen(listen.clone()))))
        .collect();
    let opened = fleet::each(&asked, |(session, request)| session.hold::<MeshListening>(request));
    let names: Vec<NodeName> = asked.iter().map(|(session, _)| session.name().clone()).collect();
    let (mut streams, mut findings) = (Vec::new(), Vec::new());
    for (name, result) in names.into_iter().zip(opened) {
        match result {
            Ok((listening, stream)) => {
                let failed = plan.without_failed(&name, &listening);
                if !failed.is_empty() {
                    findings.push(not_tried("no listener", &failed.join("; ")).on([&name]));
                }
                streams.push(stream);
            }
            Err(diagnosis) => {
                plan.leave_out(&name);
                findings.push(not_asked(&diagnosis).on([&name]));
            }
        }
    }
    (streams, findings)
}

fn attempt(sessions: &Sessions, plan: &MeshPlan) -> (BTreeMap<NodeName, Vec<MeshSeen>>, Vec<Finding>) {
    let asked: Vec<_> = plan
        .tries
        .iter()
        .filter_map(|(name, tries)| Some((name, sessions.get(name)?, Request::MeshTry(tries.clone()))))
        .collect();
    let came = fleet::each(&asked, |(_, session, request)| session.ask::<Vec<MeshSeen>>(request));
    let (mut seen, mut findings) = (BTreeMap::new(), Vec::new());
    for ((name, ..), result) in asked.iter().zip(came) {
        match result {
            Ok(of_node) => drop(seen.insert((*name).clone(), of_node)),
            Err(diagnosis) => findings.push(not_asked(&diagnosis).on([*name])),
        }
    }
    (seen, findings)
}

/// An agent that does not answer: the run ends by that as soon as it needs the agent.
fn not_asked(diagnosis: &Diagnosis) -> Finding {
    not_tried("the agent did not answer", &diagnosis.to_string())
}

fn not_tried(why: &str, saw: &str) -> Finding {
    let what = format!("{} was not checked: {why}", Check::PeerPort);
    Finding::new(Check::NotDetermined, what, saw, "try again: `landfall preflight`")
}
