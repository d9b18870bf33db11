//! Saves the logs of nodes that failed beside the report.

use crate::context::RunContext;
use crate::emitter::EventEmitter;
use crate::fleet::Sessions;
use crate::outcome::Outcome;
use crate::session::NodeSession;
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::NodeName;
use landfall_core::wire::{NodeLogs, Request};
use std::collections::BTreeSet;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Saves the ends of kubeadm's, kubelet's and containerd's logs of the nodes that failed, when a report is wanted.
pub(super) fn save(ctx: &RunContext, emitter: &EventEmitter, sessions: &Sessions, outcome: &Outcome) {
    let Some(report) = &ctx.report_dir else { return };
    let nodes: BTreeSet<&NodeName> = outcome.errors.iter().filter_map(|e| e.node.as_ref()).collect();
    for node in nodes {
        let Some(session) = sessions.get(node) else { continue };
        let text = match save_one(session, report) {
            Ok(directory) => format!("logs of {node} are in {}", directory.display()),
            Err(error) => format!("logs of {node} could not be saved: {error}"),
        };
        emitter.emit(Some(node), EventKind::Note { text });
    }
}

/// Returns the directory with the node's logs.
fn save_one(session: &NodeSession, report: &Path) -> Result<PathBuf, Diagnosis> {
    let logs: NodeLogs = session.ask(&Request::Logs)?;
    let directory = report.join("logs").join(session.name().as_str());
    write(&directory, &logs)
        .map_err(|e| Diagnosis::new(Code::FileUnreadable, "the node's logs could not be saved").because(&e))?;
    Ok(directory)
}

fn write(directory: &Path, logs: &NodeLogs) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    logs.files.iter().try_for_each(|(name, text)| {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(directory.join(name.replace('/', "_")))?;
        file.write_all(text.as_bytes())
    })
}
