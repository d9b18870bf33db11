//! Units that change while they run: forwards, back by a rollback, and away by an uninstall.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use landfall_agent::agent::Agent;
use landfall_agent::host::Host;
use landfall_agent::interpret;
use landfall_agent::lease::Holder;
use landfall_core::action::{Action, Content};
use landfall_core::journal::RunStart;
use landfall_core::name::Digest;
use landfall_core::plan::undo::UndoScope;
use landfall_core::plan::{Goal, Stage, Step, plan};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// systemd as far as the agent asks it: a unit is a file, enabled is a link, and `/run/units/NAME` holds the text of the unit's file and of
/// `/etc/daemon.conf` as they were when it was started.
const SYSTEMCTL: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
root=${0%/usr/bin/systemctl}
units=$root/etc/systemd/system
running=$root/run/units
verb= names=
for word; do
    case $word in
    -*) ;;
    *) if [ -z "$verb" ]; then verb=$word; else names="$names $word"; fi ;;
    esac
done
mkdir -p "$running"
echo "$verb$names" >>"$running/log"
case $verb in
daemon-reload) rm -rf "$running/loaded"; cp -r "$units" "$running/loaded" ;;
show)
    for name in $names; do
        load=not-found file= state=inactive reload=no
        if [ -e "$running/loaded/$name" ]; then load=loaded file=disabled; fi
        if [ -L "$units/wants/$name" ]; then file=enabled; fi
        if [ -e "$running/$name" ]; then state=active; fi
        cmp -s "$running/loaded/$name" "$units/$name" || reload=yes
        printf 'Id=%s\nLoadState=%s\nActiveState=%s\nUnitFileState=%s\nNeedDaemonReload=%s\n\n' $name $load $state "$file" $reload
    done
    ;;
enable) for name in $names; do mkdir -p "$units/wants"; ln -sf ../$name "$units/wants/$name"; done ;;
disable) for name in $names; do rm -f "$units/wants/$name"; rmdir "$units/wants"; done ;;
start | restart) for name in $names; do cat "$running/loaded/$name" "$root/etc/daemon.conf" >"$running/$name"; done ;;
stop) for name in $names; do rm -f "$running/$name"; done ;;
esac
exit 0
"#;

/// A machine with systemd and a daemon's directories.
struct Machine {
    root: tempfile::TempDir,
    agent: Agent,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let machine = Self {
            agent: Agent::new(Host::under(root.path())),
            root,
        };
        for dir in ["/usr/bin", "/etc/systemd/system", "/run/units/loaded"] {
            fs::create_dir_all(machine.at(dir)).unwrap();
        }
        let program = machine.at("/usr/bin/systemctl");
        fs::write(&program, SYSTEMCTL).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        machine
    }

    fn lease(&self, run: &str) {
        let holder = Holder {
            run: run.parse().unwrap(),
            command: "install".into(),
            cluster: "ship".into(),
        };
        self.agent.take_lease("ann@desk", holder).unwrap();
        let own = self.agent.ownership().unwrap();
        let number = own.runs.iter().filter_map(|r| r.start.number).max().unwrap_or(0) + 1;
        let start = RunStart::new(run.parse().unwrap(), number, "install", "ship");
        self.agent.start_run(&start, None).unwrap();
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn run(&self, id: &str, action: Action) {
        let step = Step::new(id.parse().unwrap(), Stage::Prepare, "cp-1".parse().unwrap(), 30, action);
        assert!(
            interpret::run_step(&self.agent, &step, &|_| {}).unwrap().changed,
            "{id}"
        );
    }

    /// The steps of one run: a unit's file, what it reads, and the unit.
    fn install_unit(&self, run: &str, version: &str, start: bool) {
        self.lease(run);
        let file = |path: &str, text: String| Action::File {
            path: path.into(),
            mode: 0o644,
            content: Content::Text(text),
        };
        self.run(
            "unit-file",
            file("/etc/systemd/system/x.service", format!("unit {version}\n")),
        );
        self.run("conf", file("/etc/daemon.conf", format!("conf {version}\n")));
        let unit = Action::Unit {
            name: "x.service".into(),
            start,
            restart_on: Digest::of(version.as_bytes()),
        };
        self.run("unit", unit);
    }

    fn runs_with(&self) -> Option<String> {
        fs::read_to_string(self.at("/run/units/x.service")).ok()
    }

    fn undo(&self, run: Option<&str>) {
        let scope = match run {
            Some(run) => UndoScope::Runs([run.parse().unwrap()].into()),
            None => UndoScope::Everything,
        };
        let own = self.agent.ownership().unwrap();
        let owned = &[("cp-1".parse().unwrap(), own)].into();
        let plan = plan(&Goal::Undone { owned, scope: &scope }).unwrap();
        for step in &plan.steps {
            let outcome = interpret::run_step(&self.agent, step, &|_| {}).unwrap();
            assert_eq!(outcome.residue, Vec::<String>::new());
        }
    }
}

#[test]
fn a_unit_that_was_changed_runs_with_the_restored_files_after_a_rollback() {
    let machine = Machine::new();
    machine.install_unit("run-1", "1", true);
    machine.install_unit("run-2", "2", true);
    assert_eq!(machine.runs_with().as_deref(), Some("unit 2\nconf 2\n"));
    machine.undo(Some("run-2"));
    assert_eq!(machine.runs_with().as_deref(), Some("unit 1\nconf 1\n"));
    machine.undo(Some("run-1"));
    assert_eq!(machine.runs_with(), None);
    assert!(!machine.at("/etc/systemd/system/x.service").exists());
}

#[test]
fn an_uninstall_starts_no_unit_that_it_removes() {
    let machine = Machine::new();
    machine.install_unit("run-1", "1", true);
    machine.install_unit("run-2", "2", true);
    let log = || fs::read_to_string(machine.at("/run/units/log")).unwrap();
    let starts = |log: &str| {
        log.lines()
            .filter(|l| l.starts_with("restart") || l.starts_with("start"))
            .count()
    };
    let until = starts(&log());
    machine.undo(None);
    assert_eq!(starts(&log()), until);
    assert_eq!(machine.runs_with(), None);
    let units = machine.at("/etc/systemd/system");
    assert_eq!(fs::read_dir(units).unwrap().count(), 0);
    assert!(!machine.at("/etc/daemon.conf").exists() && machine.agent.ownership().unwrap().is_empty());
}

/// A later version does otherwise what a unit did.
#[test]
fn a_unit_that_is_wanted_no_more_stops_and_comes_back_with_a_rollback() {
    let machine = Machine::new();
    machine.install_unit("run-1", "1", true);
    let is_on = || {
        let action = Action::StopUnit {
            name: "x.service".into(),
        };
        let step = Step::new(
            "stop".parse().unwrap(),
            Stage::Prepare,
            "cp-1".parse().unwrap(),
            30,
            action,
        );
        !interpret::check(&machine.agent, &step).unwrap().is_satisfied()
    };
    let stop = |run: &str| {
        machine.lease(run);
        machine.run(
            "stop",
            Action::StopUnit {
                name: "x.service".into(),
            },
        );
        assert_eq!(machine.runs_with(), None);
        assert!(!is_on() && machine.at("/etc/systemd/system/x.service").exists());
    };
    stop("run-2");
    machine.undo(Some("run-2"));
    assert_eq!(machine.runs_with().as_deref(), Some("unit 1\nconf 1\n"));
    assert!(is_on());
    stop("run-3");
    machine.undo(None);
    assert_eq!(machine.runs_with(), None);
    assert!(!machine.at("/etc/systemd/system/x.service").exists() && machine.agent.ownership().unwrap().is_empty());
}

#[test]
fn a_unit_that_others_start_is_restarted_when_it_runs_and_its_files_change() {
    let machine = Machine::new();
    machine.install_unit("run-1", "1", false);
    assert_eq!(machine.runs_with(), None, "kubeadm starts the kubelet");
    fs::write(machine.at("/run/units/x.service"), "unit 1\nconf 1\n").unwrap();
    machine.install_unit("run-2", "2", false);
    assert_eq!(machine.runs_with().as_deref(), Some("unit 2\nconf 2\n"));
    machine.undo(Some("run-2"));
    assert_eq!(machine.runs_with().as_deref(), Some("unit 1\nconf 1\n"));
}
