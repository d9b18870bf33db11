//! All nodes of a run: connected side by side, asked side by side.

use crate::context::RunContext;
use crate::emitter::EventEmitter;
use crate::session::{AgentPlace, AgentProgram, NodeSession};
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::journal::Ownership;
use landfall_core::name::NodeName;
use landfall_core::wire::{PROTOCOL_VERSION, Request, Welcome};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

/// Sessions by node name.
pub type Sessions = BTreeMap<NodeName, Arc<NodeSession>>;

/// Connects to all machines at once. Returns the sessions that stand and what went wrong with the others.
pub fn connect(
    nodes: &[&Node],
    place: AgentPlace,
    ctx: &RunContext,
    emitter: &EventEmitter,
) -> (Sessions, Vec<Diagnosis>) {
    let program = match AgentProgram::read(&ctx.agent_program) {
        Ok(program) => program,
        Err(diagnosis) => return (Sessions::new(), vec![diagnosis]),
    };
    let results = each(nodes, |node| {
        let transport = ctx.connector.connect(node).map_err(|d| d.on(&node.name))?;
        let session = NodeSession::start(node, transport, &program, place)?;
        emitter.emit(Some(&node.name), EventKind::Connected);
        Ok(session)
    });
    let mut sessions = Sessions::new();
    let mut errors = Vec::new();
    for (node, result) in nodes.iter().zip(results) {
        match result {
            Ok(session) => {
                sessions.insert(node.name.clone(), session);
            }
            Err(diagnosis) => errors.push(diagnosis),
        }
    }
    (sessions, errors)
}

/// Runs `work` for every item on a thread of its own and returns the results in order.
pub fn each<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let handles: Vec<_> = items.iter().map(|item| scope.spawn(move || work(item))).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Takes the lease of every node, or says why not.
pub fn lease(sessions: &Sessions, command: &str, cluster: &str, ctx: &RunContext) -> Result<(), Vec<Diagnosis>> {
    let request = Request::Lease {
        run: ctx.run.clone(),
        owner: ctx.owner.clone(),
        command: command.to_owned(),
        cluster: cluster.to_owned(),
    };
    let welcomes: BTreeMap<NodeName, Welcome> = ask_all(sessions, |_| request.clone())?;
    let other = |(name, welcome): (NodeName, Welcome)| {
        (welcome.protocol != PROTOCOL_VERSION).then(|| {
            Diagnosis::new(Code::Protocol, "the agent speaks another protocol version")
                .on(&name)
                .saw(format!("agent {}, this landfall {PROTOCOL_VERSION}", welcome.protocol))
        })
    };
    let errors: Vec<Diagnosis> = welcomes.into_iter().filter_map(other).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Asks every node the same and returns the answers by name, or all errors.
pub fn ask_all<T: serde::de::DeserializeOwned + Send>(
    sessions: &Sessions,
    request: impl Fn(&NodeName) -> Request + Sync,
) -> Result<BTreeMap<NodeName, T>, Vec<Diagnosis>> {
    let list: Vec<_> = sessions.values().collect();
    let results = each(&list, |session| session.ask::<T>(&request(session.name())));
    let mut answers = BTreeMap::new();
    let mut errors = Vec::new();
    for (session, result) in list.iter().zip(results) {
        match result {
            Ok(answer) => {
                answers.insert(session.name().clone(), answer);
            }
            Err(diagnosis) => errors.push(diagnosis),
        }
    }
    if errors.is_empty() { Ok(answers) } else { Err(errors) }
}

/// Takes landfall's state away again from nodes where nothing is ours. Nodes that another run holds are left alone.
pub fn leave_nothing(sessions: &Sessions) {
    let list: Vec<_> = sessions.values().collect();
    // A node that is lost by now keeps its state directory: the next run finds and reports it.
    each(&list, |session| {
        let own = session.ask::<Ownership>(&Request::Ownership);
        if own.is_ok_and(|own| own.is_empty()) {
            let _: Result<(), Diagnosis> = session.ask(&Request::Tidy);
        }
    });
}

/// Ends all sessions.
pub fn close(sessions: &Sessions) {
    for session in sessions.values() {
        session.close();
    }
}
