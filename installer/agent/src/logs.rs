//! The ends of the logs that explain a failure, without their secrets.

use crate::agent::Agent;
use crate::child::Job;
use crate::redact::Redactor;
use landfall_core::wire::NodeLogs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes kept of each log: the last few hundred lines.
const TAIL_BYTES: u64 = 64 * 1024;
/// Most log files of static pods.
const MAX_POD_LOGS: usize = 24;

/// Collects the ends of logs. What cannot be read says why in its own text.
pub fn collect(agent: &Agent) -> NodeLogs {
    let mut files = Vec::new();
    for unit in ["kubelet", "containerd"] {
        let argv = [
            "journalctl",
            "--no-pager",
            "--output=short-iso",
            "--lines=400",
            "--unit",
            unit,
        ];
        let text = match agent.children.run(&agent.host, Job::quick(&argv, 20)) {
            Ok(output) => output.text(),
            Err(error) => error.to_string(),
        };
        files.push((format!("{unit}.log"), Redactor::text(&text)));
    }
    for (name, path) in list(&agent.host.state("logs")) {
        files.push((name, Redactor::text(&tail(&path))));
    }
    let mut pods = Vec::new();
    for (pod, directory) in list(&agent.host.at("/var/log/pods"))
        .into_iter()
        .filter(|(name, _)| name.starts_with("kube-system_"))
    {
        for (container, directory) in list(&directory) {
            for (file, path) in list(&directory) {
                let pod = pod.split('_').nth(1).unwrap_or(&pod);
                pods.push((format!("{pod}-{container}-{file}"), path));
            }
        }
    }
    for (name, path) in pods.into_iter().take(MAX_POD_LOGS) {
        files.push((name, Redactor::text(&tail(&path))));
    }
    NodeLogs { files }
}

fn list(directory: &Path) -> Vec<(String, std::path::PathBuf)> {
    let mut entries: Vec<_> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| (e.file_name().to_string_lossy().into_owned(), e.path()))
        .collect();
    entries.sort();
    entries
}

fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("{}: {error}", path.display()),
    }
}
