//! Answers one request on its stream.

use crate::actions::on_disk;
use crate::agent::Agent;
use crate::child::end_orphans;
use crate::error::{AgentError, Result, io_at};
use crate::journal_store::Durability;
use crate::lease::Holder;
use crate::{blobs, certificates, containers, etcd, facts, health, interpret, logs, relay, undo};
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::journal::repair::JOURNAL_REPAIR;
use landfall_core::journal::{Ownership, ROLLED_BACK, Record, UNDONE};
use landfall_core::layout;
use landfall_core::secret::Secret;
use landfall_core::trust::{KeyId, TrustOffer};
use landfall_core::verify::{ProbeResult, ProbeSpec};
use landfall_core::wire::mux::{Limit, Stream, write_json_line};
use landfall_core::wire::{FileSize, PROTOCOL_VERSION, Reply, Request, Welcome};
use serde::Serialize;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Secrets are keys and small files.
const MAX_SECRET: u64 = 1024 * 1024;
/// How long a tunnel may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Names a request for people, without what it holds.
pub fn name(header: &[u8]) -> String {
    serde_json::from_slice::<Request>(header).map_or_else(|_| "an unknown request".to_owned(), |request| request.name())
}

/// Answers a request. Returns when the answer is out, or the other side is gone.
pub fn answer(agent: &Agent, header: &[u8], mut stream: Stream) {
    let request = match serde_json::from_slice::<Request>(header) {
        Ok(request) => request,
        Err(error) => {
            let diagnosis = Diagnosis::new(Code::Protocol, "the agent does not understand the request").because(&error);
            send(&mut stream, &Reply::Failed { diagnosis });
            return;
        }
    };
    match &request {
        Request::Tunnel { address } => return tunnel(agent, stream, address),
        Request::MeshListen(asked) => {
            let deadline = Instant::now() + Duration::from_millis(asked.limit_ms);
            return hold(stream, agent.host.network().mesh_listen(asked), Some(deadline));
        }
        Request::RelayListen(asked) => return hold(stream, relay::serve::listen(agent, asked), None),
        _ => {}
    }
    let stream = Mutex::new(stream);
    let lock = || stream.lock().unwrap_or_else(PoisonError::into_inner);
    let emit = |event: EventKind| send(&mut lock(), &Reply::Event { event });
    let result = match &request {
        Request::PutBlob {
            digest,
            size_bytes,
            from_bytes,
        } => value(blobs::put(agent, digest, *from_bytes..*size_bytes, &mut *lock())),
        Request::FetchBlob {
            digest,
            size_bytes,
            from_bytes,
            source,
        } => relay::fetch::fetch(agent, digest, *from_bytes..*size_bytes, source, &emit).map(to_value),
        Request::TrustBundle {
            size_bytes,
            signature,
            trust,
        } => value(take_index(
            agent,
            *size_bytes,
            signature.as_deref(),
            trust,
            &mut *lock(),
        )),
        Request::PutSecret { id, size_bytes } => {
            value(take_secret(agent, *size_bytes, &mut *lock()).map(|secret| agent.keep_secret(id.clone(), secret)))
        }
        Request::ReadSecret { path } => return read_secret(agent, path, &mut lock()),
        Request::RunStep { step } => interpret::run_step(agent, step, &emit).map(to_value),
        Request::UndoStep { step } => value(undo::undo_newest(agent, step, &emit)),
        other => without_events(agent, other),
    };
    let reply = match result {
        Ok(value) => Reply::Ok { value },
        Err(diagnosis) => Reply::Failed { diagnosis },
    };
    let mut stream = lock();
    send(&mut stream, &reply);
    end(&mut stream, matches!(reply, Reply::Ok { .. }));
}

/// Requests that have neither events nor bytes of their own.
fn without_events(agent: &Agent, request: &Request) -> std::result::Result<Value, Diagnosis> {
    match request {
        Request::Lease {
            run,
            owner,
            command,
            cluster,
        } => value(lease(
            agent,
            owner,
            Holder {
                run: run.clone(),
                command: command.clone(),
                cluster: cluster.clone(),
            },
        )),
        Request::StartRun { start, record } => {
            // The start of an undo must fit on a full disk.
            let room = if start.is_undo() {
                undo::make_room(agent)
            } else {
                Ok(())
            };
            value(room.and_then(|()| agent.start_run(start, record.as_deref())))
        }
        Request::WriteRecord { record } => value(agent.write_record(record)),
        Request::Facts(query) => value(facts::gather(agent, query)),
        Request::Ownership => value(agent.ownership()),
        Request::ReadJournal { runs } => value(agent.read_journal(runs)),
        Request::RepairJournal { runs } => value(agent.repair_journal(runs)),
        Request::Observe { steps } => value(interpret::observe::observe_all(agent, steps)),
        Request::HaveBlobs { digests } => Ok(to_value(blobs::have(agent, digests))),
        Request::PartialBlobs { digests } => Ok(to_value(blobs::parts(agent, digests))),
        Request::Intent { step, action, undo } => {
            value(undo::record_cluster_intent(agent, step, *action, undo.clone()))
        }
        Request::Done { step } => {
            let record = Record::Done {
                step: step.clone(),
                stamp: None,
            };
            value(agent.holder().and_then(|_| agent.record(record, Durability::OnDisk)))
        }
        Request::FinishRun { outcome } => value(finish_run(agent, outcome)),
        Request::Tidy => value(tidy(agent)),
        Request::MeshTry(asked) => Ok(to_value(agent.host.network().mesh_try(asked))),
        Request::Probe { probes } => Ok(to_value(agent.host.network().probe(probes))),
        Request::ProbeInContainer { container, probes } => value(probe_in_container(agent, container, probes)),
        Request::Etcdctl { node, args } => {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            value(etcd::etcdctl(agent, node, &args))
        }
        Request::Certificates => value(certificates::ages(agent)),
        Request::NodeHealth => value(health::look(agent)),
        Request::Logs => Ok(to_value(logs::collect(agent))),
        _ => Err(Diagnosis::new(
            Code::Internal,
            "internal error: request dispatched to the wrong handler",
        )),
    }
}

fn to_value(value: impl Serialize) -> Value {
    serde_json::to_value(value).expect("answers have string keys only, so they always serialise")
}

fn value(result: Result<impl Serialize>) -> std::result::Result<Value, Diagnosis> {
    result.map(to_value).map_err(|error| error.diagnosis())
}

fn send(stream: &mut Stream, reply: &Reply) {
    // The peer is gone; the session ends next.
    let _ = write_json_line(stream, reply);
}

/// Ends a stream. After a good answer the other side's end is awaited, because dropping a stream that is open there cuts off what is
/// still on its way.
fn end(stream: &mut Stream, await_peer: bool) {
    let _ = stream.finish();
    let mut rest = [0u8; 4096];
    while await_peer && matches!(stream.read(&mut rest), Ok(read) if read > 0) {}
}

fn lease(agent: &Agent, owner: &str, holder: Holder) -> Result<Welcome> {
    let cluster = holder.cluster.clone();
    let repairs = holder.command == JOURNAL_REPAIR;
    agent.take_lease(owner, holder)?;
    let own = match agent.ownership() {
        Err(AgentError::Journal(_)) if repairs => agent.read_journal(&[])?.own,
        own => own?,
    };
    if let Some(other) = own.cluster().filter(|c| *c != cluster && !own.is_empty()) {
        agent.release_lease();
        return Err(AgentError::OtherCluster {
            ours: cluster,
            found: other.to_owned(),
        });
    }
    let orphans = end_orphans();
    if !orphans.is_empty() {
        agent.release_lease();
        return Err(AgentError::Residue(orphans));
    }
    Ok(Welcome {
        protocol: PROTOCOL_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// Journals how the leased run ended, when this journal holds it as open; otherwise nothing. What an undo removed is put on disk before:
/// a journal whose undo has ended names nothing of it any more. Blocks until all of it is on disk.
pub fn finish_run(agent: &Agent, outcome: &str) -> Result<()> {
    let run = agent.holder()?.run;
    let is_open = |own: &Ownership| own.open_run().is_some_and(|open| open.run == run);
    if matches!(outcome, UNDONE | ROLLED_BACK) && is_open(&agent.ownership()?) {
        on_disk::put_undone(&agent.host)?;
    }
    agent.journal(|journal| {
        if !is_open(journal.own()) {
            return Ok(());
        }
        let outcome = outcome.to_owned();
        let finished = Record::RunFinished {
            run: run.clone(),
            outcome,
        };
        journal.append(&[finished], Durability::OnDisk)
    })
}

/// Without a lease of its own, the request is refused while another run holds one: tidying would remove that run's blobs.
fn tidy(agent: &Agent) -> Result<()> {
    if agent.holder().is_ok() {
        return blobs::tidy(agent);
    }
    let run = "tidy".parse().expect("a plain word is a valid run id");
    let holder = Holder {
        run,
        command: "tidy".to_owned(),
        cluster: String::new(),
    };
    match agent.take_lease("the agent", holder) {
        Ok(()) => {}
        Err(AgentError::Locked(_)) => return Ok(()),
        Err(error) => return Err(error),
    }
    let result = blobs::tidy(agent);
    agent.release_lease();
    result
}

/// Most bytes of a bundle's index: a terabyte of blobs has 20 MB of digests.
const MAX_INDEX: u64 = 64 * 1024 * 1024;

fn take_index(
    agent: &Agent,
    size_bytes: u64,
    signature: Option<&str>,
    trust: &TrustOffer,
    from: &mut impl Read,
) -> Result<Option<KeyId>> {
    let mut text = Vec::new();
    let read = from.take(size_bytes.min(MAX_INDEX)).read_to_end(&mut text);
    match read {
        Ok(read) if read as u64 == size_bytes => agent.trust_bundle(&text, signature, trust),
        _ => Err(AgentError::Refused(
            "the index of the bundle did not arrive whole".to_owned(),
        )),
    }
}

fn take_secret(agent: &Agent, size_bytes: u64, from: &mut impl Read) -> Result<Secret> {
    agent.holder()?;
    // As large as it will be: a vector that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(size_bytes.min(MAX_SECRET) as usize + 1);
    let read = from.take(size_bytes.min(MAX_SECRET)).read_to_end(&mut bytes);
    match read {
        Ok(read) if read as u64 == size_bytes => Ok(Secret::new(bytes)),
        _ => Err(AgentError::Refused("the secret did not arrive whole".to_owned())),
    }
}

fn read_secret(agent: &Agent, path: &str, stream: &mut Stream) {
    let read = || -> Result<Secret> {
        let refused = || AgentError::Refused(format!("{path} is not a file that may be read"));
        let directory = agent.host.at(layout::KUBERNETES_DIR);
        let real = agent
            .host
            .at(Path::new(path))
            .canonicalize()
            .map_err(io_at("reading", Path::new(path)))?;
        let inside = directory.canonicalize().is_ok_and(|d| real.starts_with(d));
        if !inside || !real.is_file() || std::fs::metadata(&real).map_err(io_at("reading", &real))?.len() > MAX_SECRET {
            return Err(refused());
        }
        std::fs::read(&real).map(Secret::new).map_err(io_at("reading", &real))
    };
    match read() {
        Ok(bytes) => {
            let value = to_value(FileSize {
                size_bytes: bytes.expose().len() as u64,
            });
            send(stream, &Reply::Ok { value });
            let _ = stream.write_all(bytes.expose());
            end(stream, true);
        }
        Err(error) => {
            send(
                stream,
                &Reply::Failed {
                    diagnosis: error.diagnosis(),
                },
            );
            end(stream, false);
        }
    }
}

fn probe_in_container(agent: &Agent, container: &str, probes: &[ProbeSpec]) -> Result<Vec<ProbeResult>> {
    let longest = probes.iter().map(|p| match p {
        ProbeSpec::Http { timeout_ms, .. } | ProbeSpec::Dns { timeout_ms, .. } => *timeout_ms,
    });
    let groups = probes.len().div_ceil(32) as u64;
    let limit = Duration::from_millis(longest.max().unwrap_or(0) * groups) + Duration::from_secs(10);
    let input = serde_json::to_vec(probes).expect("probes have string keys only, so they always serialise");
    let argv = [layout::PROBE_PROGRAM, "agent", "probe"];
    let output = containers::exec(agent, container, &argv, &input, limit)?;
    serde_json::from_slice(&output.stdout).map_err(|_| AgentError::Program {
        program: format!("the probe in container {container}"),
        status: format!("{}", output.status),
        tail: output.tail,
    })
}

/// Answers, and keeps listeners open until the operator ends the stream, the connection ends, or the deadline is over.
fn hold(mut stream: Stream, opened: std::io::Result<(impl Serialize, impl Send)>, deadline: Option<Instant>) {
    match opened {
        Ok((listening, listeners)) => {
            let value = to_value(listening);
            send(&mut stream, &Reply::Ok { value });
            let mut reader = stream.reader();
            reader.set_limit(deadline.map_or(Limit::Never, Limit::At));
            let mut rest = [0u8; 64];
            while matches!(reader.read(&mut rest), Ok(read) if read > 0) {}
            drop(listeners);
        }
        Err(error) => {
            let diagnosis = Diagnosis::new(Code::Internal, "no listeners can be opened for peers").because(&error);
            send(&mut stream, &Reply::Failed { diagnosis });
        }
    }
    let _ = stream.finish();
}

fn tunnel(agent: &Agent, mut stream: Stream, address: &str) {
    let failed = |what: String, error: Option<std::io::Error>| {
        let diagnosis = Diagnosis::new(Code::Unreachable, what);
        Reply::Failed {
            diagnosis: error.into_iter().fold(diagnosis, |d, e| d.because(&e)),
        }
    };
    let Ok(target) = address.parse::<SocketAddr>() else {
        return send(&mut stream, &failed(format!("{address} is no address:port"), None));
    };
    let tcp = match agent.host.network().connect(target, CONNECT_TIMEOUT) {
        Ok(tcp) => tcp,
        Err(error) => {
            return send(
                &mut stream,
                &failed(format!("the node cannot connect to {address}"), Some(error)),
            );
        }
    };
    let Ok(to_target) = tcp.try_clone() else { return };
    let _ = tcp.set_nodelay(true);
    send(&mut stream, &Reply::Ok { value: Value::Null });
    let mut from_operator = stream.reader();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (mut to_target, mut buffer) = (to_target, vec![0u8; 64 * 1024]);
            loop {
                match from_operator.read(&mut buffer) {
                    Ok(0) => {
                        let _ = to_target.shutdown(Shutdown::Write);
                        return;
                    }
                    Ok(read) if to_target.write_all(&buffer[..read]).is_ok() => {}
                    // One side no longer reads: wake the other direction.
                    _ => {
                        let _ = to_target.shutdown(Shutdown::Both);
                        return;
                    }
                }
            }
        });
        let (mut from_target, mut buffer) = (tcp, vec![0u8; 64 * 1024]);
        loop {
            match from_target.read(&mut buffer) {
                Ok(read) if read > 0 && stream.write_all(&buffer[..read]).is_ok() => {}
                _ => break,
            }
        }
        let _ = from_target.shutdown(Shutdown::Both);
        let _ = stream.finish();
    });
}
