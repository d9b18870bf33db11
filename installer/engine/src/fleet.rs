//! All nodes of a run: connections, leases and requests to all of them in parallel.

use crate::context::{Connector, RunContext};
use crate::emitter::EventEmitter;
use crate::session::{AgentPlace, ContactClock, NodeSession};
use landfall_bundle::own_parts::AgentProgram;
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::journal::Ownership;
use landfall_core::name::NodeName;
use landfall_core::wire::{PROTOCOL_VERSION, Request, Welcome};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// Sessions by node name.
pub type Sessions = BTreeMap<NodeName, Arc<NodeSession>>;

/// Connects to all machines in parallel. Returns the open sessions, and the errors of the others. Blocks for [`Connector::contact_limit`] at most in each
/// step of the first contact, and for uploads of the agent over slow lines.
pub fn connect(
    nodes: &[&Node],
    place: AgentPlace,
    ctx: &RunContext,
    emitter: &EventEmitter,
) -> (Sessions, Vec<Diagnosis>) {
    let results = each(nodes, |node| {
        let session = contact(node, place, &ctx.connector, &ctx.agent_program)?;
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

/// Connects to a machine and starts its agent. Blocks for [`Connector::contact_limit`] at most in each step ([`ContactClock`]); a session that opens
/// later is closed.
fn contact(
    node: &Node,
    place: AgentPlace,
    connector: &Arc<dyn Connector>,
    program: &Arc<AgentProgram>,
) -> Result<Arc<NodeSession>, Diagnosis> {
    let limit = connector.contact_limit();
    // The channel has no buffer: the session is either received, or the send fails and this thread closes it.
    let (sender, receiver) = mpsc::sync_channel(0);
    let clock = Arc::new(ContactClock::default());
    let start = {
        let (node, connector, program) = (node.clone(), Arc::clone(connector), Arc::clone(program));
        let clock = Arc::clone(&clock);
        move || {
            let transport = connector.connect(&node).map_err(|d| d.on(&node.name))?;
            NodeSession::start(&node, transport, &program, place, &clock)
        }
    };
    thread::spawn(move || {
        if let Err(mpsc::SendError(Ok(session))) = sender.send(start()) {
            session.close();
        }
    });
    receive(&receiver, || clock.left(limit)).unwrap_or_else(|error| {
        Err(match error {
            RecvTimeoutError::Timeout => {
                let (step, took) = clock.present();
                let what = format!("no agent runs on the machine: {step} has taken {} s and has not ended", took.as_secs());
                Diagnosis::new(Code::Unreachable, what).on(&node.name).next(
                    "log in by hand and look how long that takes; --connect-timeout SECONDS gives each step that and 30 s more",
                )
            }
            RecvTimeoutError::Disconnected => {
                Diagnosis::new(Code::Internal, "the thread that connects broke off").on(&node.name)
            }
        })
    })
}

/// Receives what a thread sends. Blocks while there is time left, which may become more meanwhile.
fn receive<T>(receiver: &mpsc::Receiver<T>, left: impl Fn() -> Duration) -> Result<T, RecvTimeoutError> {
    loop {
        let left = left();
        match receiver.recv_timeout(left) {
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
            received => return received,
        }
    }
}

/// Runs `work` for every item on a thread of its own and returns the results in order. Blocks until the slowest is done.
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

/// How long a node is waited for that a run of the same operator still holds. An agent notices the end of its connection at once, but a busy
/// machine takes some seconds for that, and the command after a killed one is typed in one.
const SAME_OWNER_LIMIT: Duration = Duration::from_secs(15);
/// Pause between two tries.
const SAME_OWNER_PAUSE: Duration = Duration::from_millis(250);

/// Acquires the lease of every node, or returns the errors. A node that another operator holds is refused at once; one that an earlier run of
/// the same operator holds is waited for, for [`SAME_OWNER_LIMIT`] at most.
pub fn lease(
    sessions: &Sessions,
    command: &str,
    cluster: &str,
    ctx: &RunContext,
    emitter: &EventEmitter,
) -> Result<(), Vec<Diagnosis>> {
    let request = lease_request(command, cluster, ctx);
    all_answers(ask_each(sessions, |session| lease_of(session, &request, ctx, emitter))).map(drop)
}

/// Does the same for a run that goes on without members that are absent: a node that does not answer in time becomes one of them.
pub fn lease_present(
    sessions: &mut Sessions,
    absent: &mut Vec<Diagnosis>,
    command: &str,
    cluster: &str,
    ctx: &RunContext,
    emitter: &EventEmitter,
) -> Result<(), Vec<Diagnosis>> {
    let request = lease_request(command, cluster, ctx);
    ask_present(sessions, absent, |session| lease_of(session, &request, ctx, emitter)).map(drop)
}

/// Reads the journals of all nodes; one that does not answer in time becomes an absent member. Blocks for the request's deadline at most.
pub fn journals_present(
    sessions: &mut Sessions,
    absent: &mut Vec<Diagnosis>,
) -> Result<BTreeMap<NodeName, Ownership>, Vec<Diagnosis>> {
    ask_present(sessions, absent, |session| session.ask(&Request::Ownership))
}

/// Asks every node and returns the answers, or all errors. When the only errors are of nodes that did not answer in time, their sessions are closed, and
/// the errors are more of `absent`; when no node is left, they are the error.
fn ask_present<T: Send>(
    sessions: &mut Sessions,
    absent: &mut Vec<Diagnosis>,
    ask: impl Fn(&NodeSession) -> Result<T, Diagnosis> + Sync,
) -> Result<BTreeMap<NodeName, T>, Vec<Diagnosis>> {
    let (answers, silent) = all_but_silent(ask_each(sessions, ask))?;
    for (name, diagnosis) in silent {
        if let Some(session) = sessions.remove(&name) {
            session.close();
        }
        absent.push(diagnosis);
    }
    if sessions.is_empty() {
        return Err(std::mem::take(absent));
    }
    Ok(answers)
}

/// What nodes answered, and the errors of the others.
type Answers<T> = (BTreeMap<NodeName, T>, Vec<(NodeName, Diagnosis)>);

/// Asks every node. Blocks until the slowest has answered or failed.
fn ask_each<T: Send>(
    sessions: &Sessions,
    ask: impl Fn(&NodeSession) -> Result<T, Diagnosis> + Sync,
) -> impl Iterator<Item = (NodeName, Result<T, Diagnosis>)> {
    let list: Vec<_> = sessions.values().collect();
    let results = each(&list, |session| ask(session));
    let names: Vec<NodeName> = list.iter().map(|session| session.name().clone()).collect();
    names.into_iter().zip(results)
}

fn divided<T>(results: impl IntoIterator<Item = (NodeName, Result<T, Diagnosis>)>) -> Answers<T> {
    let (mut answers, mut errors) = (BTreeMap::new(), Vec::new());
    for (name, result) in results {
        match result {
            Ok(answer) => {
                answers.insert(name, answer);
            }
            Err(diagnosis) => errors.push((name, diagnosis)),
        }
    }
    (answers, errors)
}

/// Returns the answers of all nodes, or all errors.
fn all_answers<T>(
    results: impl IntoIterator<Item = (NodeName, Result<T, Diagnosis>)>,
) -> Result<BTreeMap<NodeName, T>, Vec<Diagnosis>> {
    let (answers, errors) = divided(results);
    if errors.is_empty() {
        Ok(answers)
    } else {
        Err(errors.into_iter().map(|(_, diagnosis)| diagnosis).collect())
    }
}

/// Returns the answers, and the errors of nodes that did not answer in time. With any other error beside them, all errors.
fn all_but_silent<T>(
    results: impl IntoIterator<Item = (NodeName, Result<T, Diagnosis>)>,
) -> Result<Answers<T>, Vec<Diagnosis>> {
    let (answers, errors) = divided(results);
    if errors
        .iter()
        .all(|(_, diagnosis)| diagnosis.code == Code::RequestDeadline)
    {
        Ok((answers, errors))
    } else {
        Err(errors.into_iter().map(|(_, diagnosis)| diagnosis).collect())
    }
}

fn lease_request(command: &str, cluster: &str, ctx: &RunContext) -> Request {
    Request::Lease {
        run: ctx.run.clone(),
        owner: ctx.owner.clone(),
        command: command.to_owned(),
        cluster: cluster.to_owned(),
    }
}

fn lease_of(
    session: &NodeSession,
    request: &Request,
    ctx: &RunContext,
    emitter: &EventEmitter,
) -> Result<(), Diagnosis> {
    let end = Instant::now() + SAME_OWNER_LIMIT;
    let holder = format!("{} runs ", ctx.owner);
    let mut said = false;
    loop {
        let error = match session.ask::<Welcome>(request) {
            Ok(welcome) => return other_protocol(session.name(), &welcome).map_or(Ok(()), Err),
            Err(error) => error,
        };
        let is_own = error.code == Code::Locked && error.saw.iter().any(|saw| saw.starts_with(&holder));
        if !is_own || Instant::now() >= end || ctx.cancel.is_cancelled() {
            return Err(error);
        }
        if !said {
            said = true;
            let text = format!("waits for the end of another run: {}", error.saw.join("; "));
            emitter.emit(Some(session.name()), EventKind::Note { text });
        }
        ctx.cancel.sleep(SAME_OWNER_PAUSE);
    }
}

/// Returns the error of an agent that speaks another version of the protocol.
fn other_protocol(name: &NodeName, welcome: &Welcome) -> Option<Diagnosis> {
    (welcome.protocol != PROTOCOL_VERSION).then(|| {
        Diagnosis::new(Code::Protocol, "the agent speaks another protocol version")
            .on(name)
            .saw(format!("agent {}, this landfall {PROTOCOL_VERSION}", welcome.protocol))
    })
}

/// Sends every node the same request and returns the answers by name, or all errors. Blocks for the request's deadline at most.
pub fn ask_all<T: serde::de::DeserializeOwned + Send>(
    sessions: &Sessions,
    request: impl Fn(&NodeName) -> Request + Sync,
) -> Result<BTreeMap<NodeName, T>, Vec<Diagnosis>> {
    all_answers(ask_each(sessions, |session| session.ask(&request(session.name()))))
}

/// Removes landfall's state directory from nodes where landfall owns nothing. Nodes whose lease another run holds are left alone.
pub fn remove_unused_state(sessions: &Sessions) {
    let list: Vec<_> = sessions.values().collect();
    // A node whose connection is lost keeps its state directory; the next run finds and reports it.
    each(&list, |session| {
        let own = session.ask::<Ownership>(&Request::Ownership);
        if own.is_ok_and(|own| own.is_empty()) {
            let _: Result<(), Diagnosis> = session.ask(&Request::Tidy);
        }
    });
}

/// Journals the end of the run and its outcome on every node.
pub fn finish_run(sessions: &Sessions, outcome: &str) -> Result<(), Vec<Diagnosis>> {
    let finish = Request::FinishRun {
        outcome: outcome.to_owned(),
    };
    ask_all::<()>(sessions, |_| finish.clone()).map(drop)
}

/// Like [`finish_run`], and removes what only the run needed.
pub fn end_run(sessions: &Sessions, outcome: &str) -> Result<(), Vec<Diagnosis>> {
    finish_run(sessions, outcome)?;
    ask_all::<()>(sessions, |_| Request::Tidy).map(drop)
}

/// Ends all sessions.
pub fn close(sessions: &Sessions) {
    for session in sessions.values() {
        session.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_core::transport::Transport;
    use std::path::Path;
    use std::sync::Mutex;
    use std::time::Duration;

    /// A machine whose login hangs until the test ends.
    struct Hangs(Mutex<mpsc::Receiver<()>>);

    impl Connector for Hangs {
        fn connect(&self, _: &Node) -> Result<Box<dyn Transport>, Diagnosis> {
            let _ = self.0.lock().unwrap().recv();
            Err(Diagnosis::new(Code::LoginRefused, "too late"))
        }

        fn contact_limit(&self) -> Duration {
            Duration::from_millis(50)
        }
    }

    #[test]
    fn a_machine_whose_login_hangs_is_named() {
        let (end, hang) = mpsc::channel();
        let connector: Arc<dyn Connector> = Arc::new(Hangs(Mutex::new(hang)));
        let spec = "name: ship\nnodes:\n- { name: cp-1, role: control-plane, ip: 10.0.0.1 }\n";
        let desired = landfall_core::spec::parse::cluster_yaml(spec, "cluster.yaml").unwrap();
        let program = Arc::new(AgentProgram::open(Path::new("/dev/null")).unwrap());
        let node = &desired.inventory.nodes[0];
        let error = contact(node, AgentPlace::Member, &connector, &program).err().unwrap();
        assert_eq!(error.code, Code::Unreachable);
        assert!(error.what.contains("the login has taken 0 s"), "{error:?}");
        assert_eq!(error.node.as_ref(), Some(&node.name));
        drop(end);
    }

    #[test]
    fn a_limit_that_grows_while_it_is_waited_for_counts() {
        let (sender, receiver) = mpsc::sync_channel(0);
        let short = Duration::from_millis(50);
        let began = Instant::now();
        let of_short = || short.saturating_sub(began.elapsed());
        assert_eq!(receive(&receiver, of_short), Err(RecvTimeoutError::Timeout));
        let late = thread::spawn(move || {
            thread::sleep(4 * short);
            sender.send(7).unwrap();
        });
        let asked = std::cell::Cell::new(0);
        let grows = || {
            asked.set(asked.get() + 1);
            if asked.get() == 1 {
                short
            } else {
                Duration::from_secs(20)
            }
        };
        assert_eq!(receive(&receiver, grows), Ok(7));
        late.join().unwrap();
    }

    #[test]
    fn an_agent_of_a_newer_protocol_is_refused_with_what_to_do() {
        let node = "cp-1".parse().unwrap();
        let welcome = |protocol| Welcome {
            protocol,
            version: "9.0.0".to_owned(),
        };
        assert_eq!(other_protocol(&node, &welcome(PROTOCOL_VERSION)), None);
        let error = other_protocol(&node, &welcome(PROTOCOL_VERSION + 1)).unwrap();
        assert_eq!((error.code, error.node.as_ref()), (Code::Protocol, Some(&node)));
        assert_eq!(error.saw, ["agent 3, this landfall 2"]);
        assert!(error.next[0].contains("the same version of landfall"), "{error:?}");
    }

    #[test]
    fn a_node_that_does_not_answer_in_time_is_set_aside_and_any_other_error_ends_the_run() {
        let name = |text: &str| text.parse::<NodeName>().unwrap();
        let failed = |code| Err(Diagnosis::new(code, "x"));
        let (answers, silent) = all_but_silent([
            (name("cp-1"), Ok(1)),
            (name("cp-2"), failed(Code::RequestDeadline)),
            (name("w-1"), Ok(3)),
        ])
        .unwrap();
        assert_eq!(answers, [(name("cp-1"), 1), (name("w-1"), 3)].into());
        let silent: Vec<_> = silent.into_iter().map(|(name, error)| (name, error.code)).collect();
        assert_eq!(silent, [(name("cp-2"), Code::RequestDeadline)]);
        let errors = all_but_silent([
            (name("cp-1"), failed(Code::Locked)),
            (name("cp-2"), failed(Code::RequestDeadline)),
            (name("w-1"), Ok(3)),
        ])
        .unwrap_err();
        let codes: Vec<_> = errors.iter().map(|error| error.code).collect();
        assert_eq!(codes, [Code::Locked, Code::RequestDeadline], "all problems are shown");
    }
}
