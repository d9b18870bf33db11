//! Opaque programs, usually kubeadm's phases.

use super::Work;
use crate::child::Job;
use crate::error::Result;
use crate::files::{self, Meta};
use landfall_core::event::EventKind;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lines of output become events at most this often, so that they can be read.
const SAY_EVERY: Duration = Duration::from_millis(250);

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
    let result = work.agent.children.run(host, job);
    let text = std::mem::take(&mut said.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1);
    keep_log(work, &text);
    let output = result?;
    match stdout {
        Some(path) => files::write_bytes(&host.at(path), Meta::mode(0o600), &output.stdout),
        None => Ok(()),
    }
}

/// Keeps a program's output for the report's logs. A log that cannot be written does not fail the step.
fn keep_log(work: &Work, text: &str) {
    let directory = work.agent.host.state("logs");
    let name = format!("{}.log", work.step.id.as_str().replace('/', "_"));
    if files::make_private_dir(&directory).is_ok() {
        let _ = std::fs::write(directory.join(name), text);
    }
}
