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

/// Collects the ends of logs. A log that cannot be read is replaced by the reason.
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
            Ok(output) => Redactor::tail(&output.text()),
            Err(error) => error.to_string(),
        };
        files.push((format!("{unit}.log"), text));
    }
    for (name, path) in list(&agent.host.state("logs")) {
        files.push((name, tail(&path)));
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
        files.push((name, tail(&path)));
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

/// Returns the end of a file without its secrets: whole lines, and none of a key whose beginning is further up.
fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let skipped = file.metadata()?.len().saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(skipped))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        if skipped == 0 {
            return Ok(Redactor::text(&text));
        }
        let whole_lines = text.split_once('\n').map_or("", |(_, rest)| rest);
        Ok(Redactor::tail(whole_lines))
    };
    match read() {
        Ok(text) => text,
        Err(error) => format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_that_begins_inside_a_key_shows_nothing_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let key = "MIIEowIBAAKCAQEAsecretsecretsecretsecretsecretsecretsecretsecr";
        for prefix in ["", "2026-11-28T05:00:00+0000 cp-1 kubelet[1]: "] {
            let body: String = (0..30).map(|_| format!("{prefix}{key}\n")).collect();
            let end = format!("{prefix}-----END RSA PRIVATE KEY-----\n");
            // The last 64 KiB begin at every place within the block's first lines.
            for shift in (0..2 * (prefix.len() + key.len() + 1)).step_by(7) {
                let after = "I1128 all is well again\n".repeat(3000);
                let fits = TAIL_BYTES as usize - end.len() - body.len() + shift;
                let text = format!(
                    "{prefix}-----BEGIN RSA PRIVATE KEY-----\n{body}{end}{}",
                    &after[after.len() - fits..]
                );
                std::fs::write(&path, text).unwrap();
                let shown = tail(&path);
                assert!(!shown.contains("secret"), "shift {shift}: {}", &shown[..200]);
                assert!(shown.ends_with("all is well again"), "shift {shift}");
            }
        }
        std::fs::write(&path, "short: whole\nlog\n").unwrap();
        assert_eq!(tail(&path), "short: whole\nlog");
    }
}
