//! Opaque programs, usually kubeadm's phases. kubeadm waits for the kubelet that it has started, in silence: why that does not come up is said by the
//! kubelet's own log.

use super::{Work, unit_health};
use crate::agent::Agent;
use crate::child::Job;
use crate::error::{AgentError, Result};
use crate::files::{self, Meta};
use landfall_core::event::EventKind;
use std::path::Path;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Lines of output become events at most this often, so that they can be read.
const SAY_EVERY: Duration = Duration::from_millis(250);
/// How often the kubelet is looked at while kubeadm runs: systemd starts one that ends every 2 s.
const LOOK_AT_KUBELET_EVERY: Duration = Duration::from_secs(15);

/// How often the join of an etcd member is tried, and the pause between two tries. kubeadm gives some of its calls of etcd one try of a few
/// seconds (app/util/etcd, 1.37), which etcd does not keep on a busy disk (seen 2026-11-28). Its phases may be repeated: a member that is
/// announced already is not announced again, and files that are there are taken.
const ETCD_JOIN_TRIES: usize = 3;
const ETCD_JOIN_PAUSE: Duration = Duration::from_secs(3);

/// Runs the phases that make a control plane; again when etcd did not answer in time. Blocks until the step's deadline at most.
pub fn join_etcd(work: &Work, argv: &[String]) -> Result<()> {
    for _ in 1..ETCD_JOIN_TRIES {
        let ended = run(work, argv, &[], None);
        let Err(AgentError::Program { tail, .. }) = &ended else {
            return ended;
        };
        let Some(why) = tail.iter().find(|line| is_of_etcd(line)) else {
            return ended;
        };
        (work.emit)(EventKind::StepWaiting {
            step: work.step.id.clone(),
            text: format!("kubeadm is run again: {why}"),
        });
        thread::sleep(ETCD_JOIN_PAUSE);
    }
    run(work, argv, &[], None)
}

/// Whether a line says that a phase of kubeadm failed at etcd.
fn is_of_etcd(line: &str) -> bool {
    ["etcd-join", "check-etcd"]
        .iter()
        .any(|phase| line.contains(&format!("error execution phase {phase}:")))
}

/// Runs a program until its deadline at most; its lines become events and are kept in the state directory. Standard output goes to a
/// secret file if that is asked for, and then nowhere else.
pub fn run(work: &Work, argv: &[String], env: &[(String, String)], stdout: Option<&Path>) -> Result<()> {
    let host = &work.agent.host;
    let said = Mutex::new((None::<Instant>, String::new()));
    let on_line = |line: &str| {
        let mut said = said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        said.1.push_str(line);
        said.1.push('\n');
        if !line.trim().is_empty() && said.0.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            said.0 = Some(Instant::now());
            (work.emit)(EventKind::StepWaiting {
                step: work.step.id.clone(),
                text: line.trim().to_owned(),
            });
        }
    };
    let job = Job {
        argv: argv.to_vec(),
        env,
        deadline: work.deadline,
        on_line: Some(&on_line),
        secret_stdout: stdout.is_some(),
        ..Job::quick(&[], 0)
    };
    let awaits_kubelet = argv.first().is_some_and(|program| program == "kubeadm");
    let mut result = with_kubelet_watched(work, awaits_kubelet, || work.agent.children.run(host, job));
    if let (true, Err(AgentError::Program { tail: lines, .. } | AgentError::Deadline { seen: lines, .. })) =
        (awaits_kubelet, &mut result)
    {
        lines.extend(kubelet_trouble(work.agent));
    }
    let text = std::mem::take(&mut said.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1);
    keep_log(work, &text);
    let output = result?;
    match stdout {
        Some(path) => files::write_bytes(&host.at(path), Meta::mode(0o600), &output.stdout),
        None => Ok(()),
    }
}

/// Does something while the kubelet, when that is asked for, is looked at now and then; what is wrong with it becomes an event.
fn with_kubelet_watched<T>(work: &Work, is_watched: bool, act: impl FnOnce() -> T) -> T {
    if !is_watched {
        return act();
    }
    thread::scope(|scope| {
        let (end, ended) = mpsc::channel::<()>();
        scope.spawn(move || {
            let mut said = String::new();
            while ended.recv_timeout(LOOK_AT_KUBELET_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                let Some(text) = kubelet_trouble(work.agent).filter(|text| *text != said) else {
                    continue;
                };
                said.clone_from(&text);
                let step = work.step.id.clone();
                (work.emit)(EventKind::StepWaiting { step, text });
            }
        });
        let result = act();
        drop(end);
        result
    })
}

/// Says what is wrong with the kubelet, when it was started and does not run well.
fn kubelet_trouble(agent: &Agent) -> Option<String> {
    let health = unit_health::of_units(agent, &["kubelet.service"]).ok()?.pop()?;
    // Before kubeadm starts it, it is inactive and has never been started again.
    let was_started = health.state != "inactive" || health.restarts > 0;
    (health.is_failing && was_started).then(|| health.text())
}

/// Keeps a program's output for the report's logs. A log that cannot be written does not fail the step.
fn keep_log(work: &Work, text: &str) {
    let directory = work.agent.host.state("logs");
    let name = format!("{}.log", work.step.id.as_str().replace('/', "_"));
    if files::make_private_dir(&directory).is_ok() {
        let _ = std::fs::write(directory.join(name), text);
    }
}
