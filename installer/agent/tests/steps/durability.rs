//! What is on disk when: the intent of a step before anything changes; the content of a file before its name; and a name that a step made, replaced or removed before the
//! journal says that the step is done; and what other programs wrote for it. The steps run in this test program under strace, whose record of system calls is read.

use super::{Machine, step, steps};
use landfall_agent::request::finish_run;
use landfall_core::action::{Action, BootstrapGoal, Claims};
use landfall_core::bundle_index::{Image, OCI_MANIFEST};
use landfall_core::journal::UNDONE;
use landfall_core::name::Digest;
use landfall_core::plan::Step;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set in the program that strace watches.
const TRACED: &str = "LANDFALL_TRACED";
const TEST: &str = "durability::intents_come_before_changes_and_changes_before_done";
const JOURNAL: &str = "/var/lib/landfall/journal.jsonl";
const PRIOR: &str = "/var/lib/landfall/prior";
const CALLS: &str = "openat,write,fsync,fdatasync,syncfs,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,symlink,symlinkat,link,linkat";

#[test]
fn intents_come_before_changes_and_changes_before_done() {
    if std::env::var_os(TRACED).is_some() {
        return play();
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "4096", "-e", &format!("trace={CALLS}"), "-o"]);
    strace
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args([TEST, "--exact"]);
    let output = strace.env(TRACED, "1").output().expect("strace is installed");
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(&trace).unwrap();
    let mut disk = Disk::default();
    text.lines().for_each(|line| disk.see(line));
    assert!(disk.faults.is_empty(), "{:#?}", disk.faults);
    // A trace of which nothing was understood has no faults.
    assert!(
        disk.done > 10 && disk.renamed > 5 && disk.synced > 10 && disk.has_finished,
        "{disk:?}"
    );
}

/// systemd with one unit, which is enabled by a link as systemd's own program makes it.
const SYSTEMCTL: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
wants=${0%/usr/bin/systemctl}/etc/systemd/system/multi-user.target.wants
case "$*" in
*show*) file=disabled; [ -L "$wants/x.service" ] && file=enabled
    printf 'Id=x.service\nLoadState=loaded\nActiveState=inactive\nUnitFileState=%s\nNeedDaemonReload=no\n\n' $file ;;
*enable*) ln -s ../x.service "$wants/x.service" ;;
*disable*) rm -f "$wants/x.service" ;;
esac
"#;
/// containerd's client: an import unpacks into one file.
const CTR: &str = r#"#!/bin/sh
unpacked=${0%/usr/local/bin/ctr}/var/lib/containerd/unpacked
case "$*" in
*import*) while read -r line; do :; done; echo layer > "$unpacked" ;;
*list*) [ -e "$unpacked" ] && echo registry.k8s.io/pause:3.10 ;;
esac
exit 0
"#;

/// Does every step, and those whose programs write without putting it on disk: kubeadm, systemctl, containerd's client. Then takes all back.
fn play() {
    let machine = Machine::new();
    for (path, text) in [
        ("/usr/bin/systemctl", SYSTEMCTL),
        ("/usr/local/bin/ctr", CTR),
        ("/run/containerd/containerd.sock", ""),
        ("/var/lib/containerd/meta.db", ""),
        ("/var/lib/kubelet/config.yaml", ""),
        ("/etc/kubernetes/pki/sa.pub", ""),
        ("/etc/systemd/system/multi-user.target.wants/other.service", ""),
    ] {
        fs::create_dir_all(machine.at(path).parent().unwrap()).unwrap();
        fs::write(machine.at(path), text).unwrap();
        fs::set_permissions(machine.at(path), fs::Permissions::from_mode(0o755)).unwrap();
    }
    machine.begin("run-2");
    for step in steps(&machine).iter().chain(&steps_of_programs(&machine)) {
        assert!(machine.run(step), "{}", step.id);
    }
    machine.undo_all();
    finish_run(&machine.agent, UNDONE).unwrap();
}

fn steps_of_programs(machine: &Machine) -> Vec<Step> {
    let file = |path: &str| machine.at(path).display().to_string();
    let script = format!(
        "echo key > {}; echo password > {}; /bin/mkdir {}; echo pem > {}",
        file("/etc/kubernetes/kubelet.conf"),
        file("/var/lib/kubelet/flags.env"),
        file("/var/lib/kubelet/pki"),
        file("/var/lib/kubelet/pki/client.pem"),
    );
    let node = Action::Bootstrap {
        goal: BootstrapGoal::Node,
        argv: vec!["sh".into(), "-c".into(), script],
        creates: vec!["/etc/kubernetes/kubelet.conf".into()],
        claims: Claims::default(),
        effects: vec![],
    };
    let unit = Action::Unit {
        name: "x.service".into(),
        start: false,
        restart_on: Digest::of(b"x"),
    };
    let images = Action::Images {
        images: vec![Image {
            reference: "registry.k8s.io/pause:3.10".parse().unwrap(),
            manifest: Digest::of(b"manifest"),
            media_type: OCI_MANIFEST.to_owned(),
            manifest_size_bytes: 8,
            blobs: vec![],
            roles: [].into(),
        }],
    };
    let stop = Action::StopUnit {
        name: "x.service".into(),
    };
    vec![
        step("node", node),
        step("unit", unit),
        step("stop", stop),
        step("images", images),
    ]
}

/// What the trace said so far.
#[derive(Debug, Default)]
struct Disk {
    /// Files that were opened for writing and not put on disk since.
    written: BTreeSet<PathBuf>,
    /// Directories in which names were changed and which were not put on disk since.
    renamed_in: BTreeSet<PathBuf>,
    /// Steps whose intent, or the start of whose undo, was written into the journal and is not on disk yet.
    said: BTreeSet<String>,
    /// Steps that may act: the same, on disk.
    intended: BTreeSet<String>,
    /// Whether the run has begun.
    begun: bool,
    /// Whether its end was recorded.
    has_finished: bool,
    faults: Vec<String>,
    done: usize,
    renamed: usize,
    synced: usize,
}

impl Disk {
    /// Reads a line: process, call, arguments, result. Calls that failed changed nothing.
    fn see(&mut self, line: &str) {
        let Some((_, call)) = line.split_once(' ') else { return };
        let Some((name, arguments)) = call.trim_start().split_once('(') else {
            return;
        };
        if arguments.contains(") = -1 ") {
            return;
        }
        match name {
            "openat" if arguments.contains("O_CREAT") => self.written.extend(quoted(arguments).pop()),
            "fsync" | "fdatasync" => self.sync(arguments),
            // All of it is on one file system.
            "syncfs" => {
                self.written.clear();
                self.renamed_in.clear();
            }
            "rename" | "renameat" | "renameat2" | "link" | "linkat" => self.rename(arguments),
            "unlink" | "unlinkat" | "mkdir" | "mkdirat" | "symlink" | "symlinkat" => {
                self.change(quoted(arguments).pop())
            }
            "write" if arguments.contains(&format!("{JOURNAL}>")) => self.journal(arguments),
            _ => {}
        }
    }

    fn sync(&mut self, arguments: &str) {
        let Some((_, rest)) = arguments.split_once('<') else {
            return;
        };
        let Some((path, _)) = rest.split_once('>') else { return };
        self.synced += 1;
        self.written.remove(Path::new(path));
        self.renamed_in.remove(Path::new(path));
        if path.ends_with(JOURNAL) {
            self.intended.append(&mut self.said);
        }
    }

    fn rename(&mut self, arguments: &str) {
        let paths = quoted(arguments);
        let [from, to] = paths.as_slice() else { return };
        if is_kept(to) {
            self.renamed += 1;
            if self.written.remove(from) {
                self.faults
                    .push(format!("{} gets its name before its content is on disk", to.display()));
            }
        }
        self.change(Some(to.clone()));
    }

    fn change(&mut self, path: Option<PathBuf>) {
        let Some(path) = path.filter(|path| is_kept(path)) else {
            return;
        };
        // What a step replaces is kept before its intent, which names it.
        let is_copy = path.to_string_lossy().contains(PRIOR);
        if self.begun && self.intended.is_empty() && !is_copy {
            self.faults
                .push(format!("{} changes before an intent is on disk", path.display()));
        }
        self.renamed_in.extend(path.parent().map(Path::to_owned));
    }

    fn journal(&mut self, arguments: &str) {
        for record in arguments.split(r#"{\"record\":\""#).skip(1) {
            let (kind, rest) = record.split_once('\\').unwrap_or_default();
            let step = rest
                .split_once(r#"\"step\":\""#)
                .and_then(|(_, rest)| rest.split_once('\\'));
            let step = step.map(|(step, _)| step.to_owned());
            match kind {
                // What the test itself made before does not count.
                "run-started" => {
                    self.begun = true;
                    self.renamed_in.clear();
                    self.written.clear();
                    self.faults.clear();
                }
                "intent" | "undo-started" => self.said.extend(step),
                "done" => {
                    self.done += 1;
                    let step = step.unwrap_or_default();
                    self.intended.remove(&step);
                    self.expect_on_disk(&format!("{step} is done"));
                }
                "run-finished" => {
                    self.has_finished = true;
                    self.expect_on_disk("the run has ended");
                }
                "undone" => drop(self.intended.remove(&step.unwrap_or_default())),
                _ => {}
            }
        }
    }

    /// Nothing may be left to write when the journal says this.
    fn expect_on_disk(&mut self, said: &str) {
        for file in self.written.iter().filter(|file| is_kept(file)) {
            self.faults.push(format!(
                "{} has no content on disk when the journal says that {said}",
                file.display()
            ));
        }
        for directory in std::mem::take(&mut self.renamed_in) {
            self.faults.push(format!(
                "{} is not on disk when the journal says that {said}",
                directory.display()
            ));
        }
    }
}

/// What outlasts a power cut. Temporary files may go, and what lies in memory does.
fn is_kept(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let parts = [
        "/etc/",
        "/opt/",
        "/usr/",
        "/var/lib/kubelet/",
        "/var/lib/containerd/",
        PRIOR,
    ];
    parts.iter().any(|part| text.contains(part)) && path.starts_with(std::env::temp_dir())
}

/// Returns the quoted arguments of a call.
fn quoted(arguments: &str) -> Vec<PathBuf> {
    let parts: Vec<&str> = arguments.split('"').collect();
    parts.iter().skip(1).step_by(2).map(PathBuf::from).collect()
}
