//! Runs one case: from bare machines, through its faults, back to bare machines.

use super::case::{Case, Change, Fault, Then};
use super::reference::{Reference, is_step, with_one_control_plane};
use crate::scene::{Listener, Scene, null_sink};
use landfall_bundle::{Bundle, Verified};
use landfall_core::event::{Event, EventSink};
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_core::name::NodeName;
use landfall_engine::run::{self, OnFailure, Outcome, RunContext, UndoCommand, Until};
use landfall_test_support::fleet::Fleet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Seconds since the epoch with which run ids begin: 2026-11-22.
const NOW_S: u64 = 1_795_300_000;
const DAY_S: u64 = 86_400;
/// Delay of data that is sent to a slow node.
const SLOW: Duration = Duration::from_millis(10);
/// Longest time of a command with a fault; then it is cancelled like by ^C, because it may wait for ever.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for a command that must end by itself, on a machine that is busy with other things.
const PATIENCE_TO_THE_END: Duration = Duration::from_secs(300);

/// Runs a case; panics when an assertion fails. Returns whether the fault was injected into the first install: the last places may come after
/// its end.
pub fn play(scene: &mut Scene, reference: &Reference, case: &Case) -> bool {
    let desired = scene.desired.clone();
    if let Change::Slow(node) = &case.change {
        scene.fleet.set_slow(node, Some(SLOW));
    }
    let mut player = Player {
        scene,
        clock_s: NOW_S,
        runs: 0,
        first_bundle: None,
        reconnects: false,
        text: format!("{case:?}, grows: {}", reference.grows),
    };
    if reference.grows {
        player.install_one_control_plane();
    }
    player.reconnects = case.reconnects;
    let first = player.disturbed(Then::Again, &case.fault);
    if player.reconnects {
        player.scene.must_work(&first, &player.text);
        player.reconnects = false;
    }
    player.change(case);
    let mut then = case.then;
    let thens = [Some(then), case.second.as_ref().map(|second| second.then)];
    if reference.grows && thens.contains(&Some(Then::Undo(UndoCommand::Rollback))) {
        // Those that joined leave the cluster that stays.
        ["cp-2", "cp-3"]
            .iter()
            .for_each(|name| player.scene.fleet.world().may_leave(name));
    }
    // Whether an install of its own follows one that has finished: then a rollback undoes the later one alone.
    let mut extends = false;
    if let Some(second) = &case.second {
        let before = player.newest_run();
        player.disturbed(then, &second.fault);
        extends = then == Then::Again && first.errors.is_empty() && player.newest_run() > before;
        then = second.then;
    }
    match then {
        Then::Again => player.install_again(reference, case),
        Then::Undo(command) => player.undo(command, &case.change),
    }
    if extends && then == Then::Undo(UndoCommand::Rollback) {
        player.scene.must_be_installed_as(&reference.installed, &player.text);
        player.undo(UndoCommand::Uninstall, &case.change);
    } else if reference.grows && then == Then::Undo(UndoCommand::Rollback) {
        player.undo(UndoCommand::Uninstall, &Change::None);
    }
    player.scene.must_be_as_before(&player.text);
    if let Some(bundle) = player.first_bundle {
        scene.bundle = bundle;
    }
    scene.desired = desired;
    for node in scene.fleet.names() {
        scene.fleet.set_slow(&node, None);
        scene.fleet.set_clock_behind(&node, None);
    }
    case.reconnects || !first.errors.is_empty()
}

struct Player<'a> {
    scene: &'a mut Scene,
    /// The operator's clock.
    clock_s: u64,
    runs: u64,
    /// The bundle of the first install, once another one is installed.
    first_bundle: Option<Bundle<Verified>>,
    /// Whether installs make connections again.
    reconnects: bool,
    text: String,
}

impl Player<'_> {
    fn context(&mut self, sink: Arc<dyn EventSink>) -> RunContext {
        self.runs += 1;
        self.clock_s += 60;
        let run = format!("{}-{:08x}", self.clock_s, self.runs);
        let mut context = self.scene.fleet.run_context(&run, "ann@desk", sink).unwrap();
        context.at_ms = self.clock_s * 1000;
        context
    }

    /// Installs a cluster of one control plane, which the others join later.
    fn install_one_control_plane(&mut self) {
        let one = with_one_control_plane(&self.scene.desired);
        let all = std::mem::replace(&mut self.scene.desired, one);
        let context = self.context(null_sink());
        let outcome = self.command(Then::Again, &context);
        self.scene.must_work(&outcome, &self.text);
        self.scene.desired = all;
    }

    /// The number of the newest run that a journal holds.
    fn newest_run(&self) -> Option<u64> {
        let names = self.scene.fleet.names();
        let journals = names.iter().map(|name| self.scene.journal_as_found(name));
        journals
            .flat_map(|own| own.runs)
            .filter_map(|run| run.start.number)
            .max()
    }

    fn command(&self, then: Then, context: &RunContext) -> Outcome {
        match then {
            Then::Again if self.reconnects => self.scene.install_reconnecting(context, PATIENCE_TO_THE_END),
            Then::Again => self.scene.install_in(context, OnFailure::Keep),
            Then::Undo(command) => self.scene.undo_in(context, command),
        }
    }

    /// Runs a command with a fault, and removes the fault.
    fn disturbed(&mut self, command: Then, fault: &Fault) -> Outcome {
        let fleet = self.scene.fleet.clone();
        match fault {
            Fault::Torn(node, bytes) => fleet.limit_files(node, Some(*bytes)),
            Fault::DiskFull(node, bytes) => fleet.fill_disk(node, Some(*bytes)),
            Fault::KilledAt(node, word, when) => {
                let (other, killed) = (fleet.clone(), node.clone());
                fleet.world().at_point(node, word, *when, move || other.kill(&killed));
            }
            _ => {}
        }
        let other = Arc::new(OtherOperator::default());
        let context = self.context(self.sink(fault, &other));
        // Without any connection nothing is left to wait for.
        let is_cut_off = matches!(fault, Fault::AllCut(_) | Fault::AllKilled(_));
        let must_end = self.reconnects || is_cut_off;
        let patience = if must_end { PATIENCE_TO_THE_END } else { PATIENCE };
        let outcome = self
            .scene
            .within(&context, patience, || self.command(command, &context));
        assert!(
            !(must_end && outcome.interrupted),
            "{}: it did not end by itself",
            self.text
        );
        let refused = other.0.lock().unwrap().take();
        if let Some(refused) = refused {
            self.must_be_refused(&refused.join().unwrap());
            fleet.settle().unwrap();
            self.scene.must_work(&outcome, &self.text);
        }
        fleet.world().forget_points();
        for node in fleet.names() {
            fleet.limit_files(&node, None);
        }
        if let Fault::PowerCut(node, _) = fault {
            fleet.power_on(node).unwrap();
        }
        self.scene.must_be_lawful(&self.text);
        if !outcome.errors.is_empty() {
            let code = outcome.exit_code();
            let fits = matches!(code, ExitCode::FailedKept | ExitCode::Residue | ExitCode::Interrupted);
            assert!(fits, "{}: {code:?} {:#?}", self.text, outcome.errors);
        }
        outcome
    }

    fn sink(&self, fault: &Fault, other: &Arc<OtherOperator>) -> Arc<dyn EventSink> {
        let (fleet, names) = (self.scene.fleet.clone(), self.scene.fleet.names());
        match fault.clone() {
            Fault::Torn(..) | Fault::DiskFull(..) | Fault::KilledAt(..) => null_sink(),
            Fault::Killed(name, at) => at_event(at, move || fleet.kill(&name)),
            Fault::AllKilled(at) => at_event(at, move || names.iter().for_each(|n| fleet.kill(n))),
            Fault::Cut(name, at) => at_event(at, move || fleet.cut(&name)),
            Fault::AllCut(at) => at_event(at, move || names.iter().for_each(|n| fleet.cut(n))),
            Fault::PowerCut(name, at) => at_event(at, move || fleet.power_off(&name).unwrap()),
            Fault::OtherOperator(at) => {
                let (other, desired) = (Arc::clone(other), self.scene.desired.clone());
                at_event(at, move || other.uninstall(&fleet, &desired))
            }
        }
    }

    /// The other operator is told who is there, or, when the first run was over by then, asked before anything is undone.
    fn must_be_refused(&self, outcome: &Outcome) {
        assert_eq!(outcome.changes, 0, "{}: {outcome:#?}", self.text);
        let codes = outcome.errors.iter().map(|e| e.code);
        let refused = codes
            .into_iter()
            .all(|code| matches!(code, Code::Locked | Code::Internal));
        assert!(refused && !outcome.errors.is_empty(), "{}: {outcome:#?}", self.text);
    }

    fn change(&mut self, case: &Case) {
        match &case.change {
            Change::Reordered => self.scene.desired.inventory.nodes.rotate_left(1),
            Change::ClockBehind => self.clock_s -= DAY_S,
            Change::OtherBundle => {
                let other = self.scene.rebuilt_bundle();
                self.first_bundle = Some(std::mem::replace(&mut self.scene.bundle, other));
            }
            Change::NodeClockBehind(node) => {
                let behind = Some(Duration::from_secs(DAY_S));
                self.scene.fleet.set_clock_behind(node, behind);
            }
            Change::None | Change::Absent(_) | Change::Shortened(_) | Change::Slow(_) => {}
        }
    }

    fn install_again(&mut self, reference: &Reference, case: &Case) {
        if let Change::NodeClockBehind(node) = &case.change {
            // A refused install takes away journals that own nothing, with the run that they began.
            self.must_mind_the_clock();
            self.scene.fleet.set_clock_behind(node, None);
        }
        let names = self.scene.fleet.names();
        let journal = |scene: &Scene, name: &NodeName| scene.journal_as_found(name);
        // One journal that says that a run has finished is enough.
        let finished = |name: &NodeName| journal(self.scene, name).runs.iter().any(|run| run.outcome.is_some());
        let open =
            names.iter().any(|name| journal(self.scene, name).open_run().is_some()) && !names.iter().any(finished);
        let context = self.context(null_sink());
        let again = self.command(Then::Again, &context);
        self.scene.must_work(&again, &self.text);
        if open && case.second.is_none() {
            let continues = |name: &NodeName| {
                journal(self.scene, name)
                    .runs
                    .last()
                    .and_then(|run| run.start.continues)
            };
            let all = names.iter().all(|name| continues(name) == Some(1));
            assert!(all, "{}: the interrupted run is gone on with, and named", self.text);
        }
        // Another order may have made another node the founder; another bundle has other programs.
        if !matches!(case.change, Change::Reordered | Change::OtherBundle) {
            self.scene.must_be_installed_as(&reference.installed, &self.text);
        }
        let context = self.context(null_sink());
        let third = self.command(Then::Again, &context);
        self.scene.must_work(&third, &self.text);
        assert_eq!(
            third.changes, 0,
            "{}: nothing is left to do: {:#?}",
            self.text, third.plan
        );
        self.undo(UndoCommand::Uninstall, &case.change);
    }

    /// An install is refused while a node's clock is wrong, and nothing is done.
    fn must_mind_the_clock(&mut self) {
        let context = self.context(null_sink());
        let refused = self.command(Then::Again, &context);
        let clock = |error: &Diagnosis| error.code == Code::Preflight && error.what.contains("clock");
        assert!(refused.errors.iter().any(clock), "{}: {refused:#?}", self.text);
        assert_eq!(refused.changes, 0, "{}", self.text);
        assert_eq!(refused.exit_code(), ExitCode::PreflightRefused, "{}", self.text);
    }

    fn undo(&mut self, command: UndoCommand, change: &Change) {
        match change {
            Change::Absent(node) => {
                // All other control planes are uninstalled, so an absent one has lost its quorum.
                let names = self.scene.fleet.names();
                names
                    .iter()
                    .for_each(|name| self.scene.fleet.world().may_leave(name.as_str()));
                self.scene.fleet.set_unreachable(node, true);
                let context = self.context(null_sink());
                let without = self.command(Then::Undo(command), &context);
                self.scene.fleet.set_unreachable(node, false);
                let code = without.exit_code();
                assert_eq!(code, ExitCode::Unreachable, "{}: {:#?}", self.text, without.errors);
                self.scene.must_be_lawful(&self.text);
            }
            Change::Shortened(node) => {
                let whole = self.scene.desired.clone();
                self.scene.desired.inventory.nodes.retain(|n| &n.name != node);
                let context = self.context(null_sink());
                self.command(Then::Undo(command), &context);
                self.scene.desired = whole;
                self.scene.must_be_lawful(&self.text);
            }
            _ => {}
        }
        let context = self.context(null_sink());
        let undone = self.command(Then::Undo(command), &context);
        self.scene.must_work(&undone, &self.text);
    }
}

/// Another operator, who starts an uninstall during a run, and who would refuse to confirm it.
#[derive(Default)]
struct OtherOperator(Mutex<Option<JoinHandle<Outcome>>>);

impl OtherOperator {
    fn uninstall(&self, fleet: &Fleet, desired: &landfall_core::spec::Desired) {
        let context = fleet.run_context("9-other", "bob@laptop", null_sink()).unwrap();
        let desired = desired.clone();
        let no = |_: &run::UndoSummary| Err(Diagnosis::new(Code::Internal, "no"));
        let command = move || run::undo(&desired, UndoCommand::Uninstall, Until::Done, &no, &context);
        *self.0.lock().unwrap() = Some(std::thread::spawn(command));
    }
}

/// Calls `act` when so many steps have begun or ended.
fn at_event(number: u64, what: impl Fn() + Send + Sync + 'static) -> Arc<dyn EventSink> {
    let count = AtomicU64::new(0);
    Arc::new(Listener(move |event: &Event| {
        if is_step(event) && count.fetch_add(1, Ordering::SeqCst) == number {
            what();
        }
    }))
}
