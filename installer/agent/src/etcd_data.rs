//! The check before the kubelet starts: a control plane whose etcd member has lost its data stays off.
//!
//! etcd's static pod carries the flags of its founding, so that a member without data may begin anew under its old name and vote without what
//! it has promised: with its peers away it founds a second cluster. The data is missing when its disk is not mounted at a boot, or was
//! replaced. While landfall founds, joins or takes back, no whole member is in the journal, and the kubelet starts.

use crate::files;
use crate::host::Host;
use crate::journal_store;
use landfall_core::health::undo_is_open;
use landfall_core::layout;
use landfall_core::plan::key::has_etcd_member;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// How long data is waited for: a disk that is mounted late. systemd starts the kubelet again after that, and the landfall that starts it
/// waits 60 s.
pub const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The flag of etcd that names the directory of its data.
const DATA_FLAG: &str = "--data-dir=";

/// Returns when the kubelet may start, and an error when the data of this node's etcd member is gone. Blocks for `patience` at most. A
/// journal that cannot be read stops nothing.
pub fn check(host: &Host, patience: Duration) -> io::Result<()> {
    let end = Instant::now() + patience;
    loop {
        let Some(missing) = missing_data(host) else {
            return Ok(());
        };
        if Instant::now() >= end {
            return Err(io::Error::other(format!(
                "error: the data of this node's etcd member is gone: {} does not exist. The kubelet is not started, because etcd would begin anew \
                 without it. Mount the disk that holds it, or put a copy back",
                missing.display()
            )));
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Returns the directory of the member's log, when the member is whole by the journal and the directory is not there or empty.
fn missing_data(host: &Host) -> Option<PathBuf> {
    let manifest = files::text(host.at(format!("{}/manifests/etcd.yaml", layout::KUBERNETES_DIR)));
    let data = manifest
        .lines()
        .find_map(|line| line.trim().strip_prefix("- ")?.strip_prefix(DATA_FLAG))?;
    let log = PathBuf::from(data.trim()).join("member/wal");
    let has_files = std::fs::read_dir(host.at(&log)).is_ok_and(|mut files| files.next().is_some());
    if has_files {
        return None;
    }
    let (own, _) = journal_store::read_as_found(&host.state("journal.jsonl")).ok()?;
    (has_etcd_member(&own) && !undo_is_open(&own)).then_some(log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_core::action::Undo;
    use landfall_core::journal::{Record, render_line};
    use landfall_core::name::Digest;
    use std::fs;
    use std::path::Path;

    const MANIFEST: &str =
        "spec:\n  containers:\n  - command:\n    - etcd\n    - --data-dir=/var/lib/etcd\n    - --name=cp-1\n";

    fn write(root: &Path, path: &str, text: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn journal(root: &Path, records: &[Record]) {
        let text: String = records.iter().map(render_line).collect();
        write(root, "var/lib/landfall/journal.jsonl", text.as_bytes());
    }

    fn intent(step: &str) -> Record {
        Record::Intent {
            run: "r1".parse().unwrap(),
            step: step.parse().unwrap(),
            action: Digest::of(b"x"),
            undo: Undo::Nothing,
            wanted: None,
        }
    }

    #[test]
    fn the_kubelet_of_a_whole_member_without_data_is_not_started() {
        let dir = tempfile::tempdir().unwrap();
        let (root, host) = (dir.path(), Host::under(dir.path()));
        let is_refused = || check(&host, Duration::ZERO).is_err();
        assert!(!is_refused(), "no member is here");
        write(root, "etc/kubernetes/manifests/etcd.yaml", MANIFEST.as_bytes());
        journal(root, &[intent("init/cp-1")]);
        assert!(!is_refused(), "the member is being founded");
        let done = Record::Done {
            step: "init/cp-1".parse().unwrap(),
            stamp: None,
        };
        journal(root, &[intent("init/cp-1"), done.clone()]);
        let refused = check(&host, Duration::ZERO).unwrap_err().to_string();
        assert!(refused.contains("/var/lib/etcd/member/wal does not exist"), "{refused}");
        write(root, "var/lib/etcd/member/wal/0.wal", b"x");
        assert!(!is_refused(), "its data is there");
        fs::remove_file(root.join("var/lib/etcd/member/wal/0.wal")).unwrap();
        assert!(is_refused(), "an empty directory holds no data");
        fs::remove_file(root.join("etc/kubernetes/manifests/etcd.yaml")).unwrap();
        assert!(!is_refused(), "no etcd would start");
        write(root, "etc/kubernetes/manifests/etcd.yaml", MANIFEST.as_bytes());
        write(root, "var/lib/landfall/journal.jsonl", &[0xff; 16]);
        assert!(!is_refused(), "a journal that cannot be read stops nothing");
    }

    #[test]
    fn data_that_comes_late_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (root, host) = (dir.path().to_owned(), Host::under(dir.path()));
        write(&root, "etc/kubernetes/manifests/etcd.yaml", MANIFEST.as_bytes());
        let done = Record::Done {
            step: "join-control-plane/cp-2".parse().unwrap(),
            stamp: None,
        };
        journal(&root, &[intent("join-control-plane/cp-2"), done]);
        assert!(check(&host, Duration::ZERO).is_err());
        let mounts = thread::spawn(move || {
            thread::sleep(Duration::from_millis(700));
            write(&root, "var/lib/etcd/member/wal/0.wal", b"x");
        });
        check(&host, Duration::from_secs(60)).unwrap();
        mounts.join().unwrap();
    }
}
