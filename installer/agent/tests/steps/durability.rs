//! What is on disk when: a name that a step made, replaced or removed is put on disk before the journal says that the step is done, and the content of a file before its
//! name. The steps run in this test program under strace, whose record of system calls is read.

use super::{Machine, steps};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set in the program that strace watches.
const TRACED: &str = "LANDFALL_TRACED";
const TEST: &str = "durability::names_are_on_disk_before_the_journal_says_done";
const CALLS: &str = "openat,write,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,symlink,symlinkat,link,linkat";

#[test]
fn names_are_on_disk_before_the_journal_says_done() {
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
    assert!(disk.done > 10 && disk.renamed > 5 && disk.synced > 10, "{disk:?}");
}

/// Does every step, and takes all back.
fn play() {
    let machine = Machine::new();
    for step in steps(&machine) {
        machine.run(&step);
    }
    machine.undo_all();
}

/// What the trace said so far.
#[derive(Debug, Default)]
struct Disk {
    /// Files that were opened for writing and not put on disk since.
    written: BTreeSet<PathBuf>,
    /// Directories in which names were changed and which were not put on disk since.
    renamed_in: BTreeSet<PathBuf>,
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
            "rename" | "renameat" | "renameat2" | "link" | "linkat" => self.rename(arguments),
            "unlink" | "unlinkat" | "mkdir" | "mkdirat" | "symlink" | "symlinkat" => {
                self.change(quoted(arguments).pop())
            }
            "write" if arguments.contains("/var/lib/landfall/journal.jsonl>") => self.journal(arguments),
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
        let parent = path
            .filter(|path| is_kept(path))
            .and_then(|path| path.parent().map(Path::to_owned));
        self.renamed_in.extend(parent);
    }

    fn journal(&mut self, arguments: &str) {
        if arguments.contains(r#"\"record\":\"run-started\""#) {
            // What the test itself made before.
            self.renamed_in.clear();
        }
        if !arguments.contains(r#"\"record\":\"done\""#) {
            return;
        }
        self.done += 1;
        for directory in std::mem::take(&mut self.renamed_in) {
            let end = arguments.find("\\\"step\\\"").map_or("", |at| &arguments[at..]);
            let step: String = end.chars().take(60).collect();
            self.faults.push(format!(
                "{} is not on disk when the journal says done: {step}",
                directory.display()
            ));
        }
    }
}

/// What outlasts a power cut. Temporary files may go, and what lies in memory does.
fn is_kept(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let parts = ["/etc/", "/opt/", "/usr/", "/var/lib/landfall/prior"];
    parts.iter().any(|part| text.contains(part)) && text.starts_with("/tmp/")
}

/// Returns the quoted arguments of a call.
fn quoted(arguments: &str) -> Vec<PathBuf> {
    let parts: Vec<&str> = arguments.split('"').collect();
    parts.iter().skip(1).step_by(2).map(PathBuf::from).collect()
}
