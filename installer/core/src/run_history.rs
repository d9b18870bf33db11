//! The order of a cluster's runs, from the journals of its nodes: which run is the newest, whether it has finished, and what a rollback
//! undoes.
//!
//! INVARIANT: numbers order runs, never clocks. Runs of journals of version 1 have no number: they come before all that have one, in
//! the order of the journals' lines.

use crate::journal::{JournalRun, Ownership, ROLLBACK, ROLLED_BACK, RunStart, UNINSTALL};
use crate::name::{NodeName, RunId};
use std::collections::{BTreeMap, BTreeSet};

/// One run of the cluster, combined from all journals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetRun {
    /// How it began. The number is set, also for runs of journals of version 1.
    pub start: RunStart,
    /// Its number.
    pub number: u64,
    /// How it ended, when at least one journal says so.
    pub outcome: Option<String>,
    /// How many of its entries each node holds; nodes without one are left out.
    pub steps: BTreeMap<NodeName, usize>,
}

/// All runs of a cluster, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunHistory {
    runs: Vec<FleetRun>,
    // Runs of version 1 that have no order; everything that depends on it is refused.
    unordered: BTreeSet<RunId>,
}

/// Why the runs of the journals have no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Two runs have one number.
    #[error("the runs {} and {} both have the number {number}", runs[0], runs[1])]
    SameNumber {
        /// The number.
        number: u64,
        /// The two runs.
        runs: [RunId; 2],
        /// Nodes whose journals name one of them.
        nodes: Vec<NodeName>,
    },
    /// Journals of version 1 have the runs in opposite orders.
    #[error("the nodes' journals name their runs in opposite orders: {}", runs.iter().map(RunId::as_str).collect::<Vec<_>>().join(", "))]
    OppositeOrders {
        /// The runs.
        runs: Vec<RunId>,
    },
    /// The order of the newest runs is not known.
    #[error("which run is the newest cannot be told from the journals: {}", runs.iter().map(RunId::as_str).collect::<Vec<_>>().join(", "))]
    Unordered {
        /// The runs.
        runs: Vec<RunId>,
    },
}

/// What `rollback` has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RollbackTarget {
    /// Nothing: no run has changed anything, or the newest was undone already.
    Nothing,
    /// The entries of these runs, newest run first.
    Runs(Vec<FleetRun>),
    /// An uninstall has begun, and only it can end.
    Uninstalling(Box<FleetRun>),
}

impl RunHistory {
    /// Puts the runs of all journals in order.
    pub fn of(owned: &BTreeMap<NodeName, Ownership>) -> Result<Self, HistoryError> {
        let mut numbered: BTreeMap<u64, FleetRun> = BTreeMap::new();
        let mut old: BTreeMap<RunId, FleetRun> = BTreeMap::new();
        for run in owned.values().flat_map(|own| &own.runs) {
            match run.start.number {
                Some(number) => match numbered.get_mut(&number) {
                    Some(known) if known.start.run != run.start.run => {
                        return Err(HistoryError::SameNumber {
                            number,
                            runs: [known.start.run.clone(), run.start.run.clone()],
                            nodes: nodes_with_number(owned, number),
                        });
                    }
                    Some(known) => known.join(run),
                    None => {
                        numbered.insert(number, FleetRun::new(run, number));
                    }
                },
                None => match old.get_mut(&run.start.run) {
                    Some(known) => known.join(run),
                    None => {
                        old.insert(run.start.run.clone(), FleetRun::new(run, 0));
                    }
                },
            }
        }
        let (order, unordered) = order_of_lines(owned, old.keys().cloned().collect())?;
        let mut runs: Vec<FleetRun> = order.into_iter().filter_map(|id| old.remove(&id)).collect();
        // Numbers of version 2 begin behind all older runs, because each is the greatest seen plus one.
        for (n, run) in (1..).zip(&mut runs) {
            run.number = n;
            run.start.number = Some(n);
        }
        runs.extend(numbered.into_values());
        for run in &mut runs {
            for (node, own) in owned {
                let count = own.entries.iter().filter(|e| e.run == run.start.run).count();
                if count > 0 {
                    run.steps.insert(node.clone(), count);
                }
            }
        }
        Ok(Self { runs, unordered })
    }

    /// Returns all runs, oldest first.
    pub fn runs(&self) -> &[FleetRun] {
        &self.runs
    }

    /// Returns the number of the next run.
    pub fn next_number(&self) -> u64 {
        self.runs.last().map_or(1, |run| run.number + 1)
    }

    /// Returns all runs without an order, for journals that contradict each other: an uninstall needs only a number above all others.
    pub fn without_order(owned: &BTreeMap<NodeName, Ownership>) -> Self {
        let runs = owned.values().flat_map(|own| &own.runs);
        let mut runs: Vec<FleetRun> = runs
            .map(|run| FleetRun::new(run, run.start.number.unwrap_or(0)))
            .collect();
        runs.sort_by_key(|run| run.number);
        let unordered = runs.iter().map(|run| run.start.run.clone()).collect();
        Self { runs, unordered }
    }

    /// Returns the newest run.
    pub fn newest(&self) -> Option<&FleetRun> {
        self.runs.last()
    }

    /// Returns the unfinished run, if there is one. It is the newest, not counting runs that were rolled back by themselves: such a run, and
    /// those that it continued and of which no entry is left, such as attempts that ended with a lost connection.
    pub fn unfinished(&self) -> Option<&FleetRun> {
        let mut continued: BTreeSet<u64> = BTreeSet::new();
        for run in self.runs.iter().rev() {
            let is_taken_back = run.outcome.as_deref() == Some(ROLLED_BACK)
                || run.outcome.is_none() && run.step_count() == 0 && continued.contains(&run.number);
            if !is_taken_back {
                return run.outcome.is_none().then_some(run);
            }
            continued.extend(run.start.continues);
        }
        None
    }

    /// Returns what a rollback undoes: the newest run, with the unfinished runs that it continued. An interrupted rollback continues with its own runs; a
    /// second rollback after a finished one undoes nothing.
    pub fn rollback_target(&self) -> Result<RollbackTarget, HistoryError> {
        // After a run that was rolled back by itself only an unfinished run is undone: a finished one was not changed by the failed run.
        let Some(newest) = self.unfinished().or(self.newest()) else {
            return Ok(RollbackTarget::Nothing);
        };
        if newest.outcome.as_deref() == Some(ROLLED_BACK) {
            return Ok(RollbackTarget::Nothing);
        }
        if self.unordered.contains(&newest.start.run) {
            return Err(HistoryError::Unordered {
                runs: self.unordered.iter().cloned().collect(),
            });
        }
        match newest.start.command.as_str() {
            UNINSTALL if newest.outcome.is_none() => Ok(RollbackTarget::Uninstalling(Box::new(newest.clone()))),
            ROLLBACK | UNINSTALL if newest.outcome.is_some() => Ok(RollbackTarget::Nothing),
            ROLLBACK => {
                let numbers = &newest.start.takes_back;
                let runs = self.runs.iter().rev().filter(|r| numbers.contains(&r.number));
                Ok(RollbackTarget::Runs(runs.cloned().collect()))
            }
            _ => Ok(RollbackTarget::Runs(self.chain(newest))),
        }
    }

    /// Returns a run and those that it continued, newest first.
    fn chain(&self, newest: &FleetRun) -> Vec<FleetRun> {
        let mut chain = vec![newest.clone()];
        let mut next = newest.start.continues;
        while let Some(run) = next.and_then(|number| self.runs.iter().find(|r| r.number == number)) {
            // A run continues only older ones; another number is a damaged record and ends the chain.
            next = run.start.continues.filter(|earlier| *earlier < run.number);
            chain.push(run.clone());
        }
        chain
    }
}

impl FleetRun {
    fn new(run: &JournalRun, number: u64) -> Self {
        Self {
            start: run.start.clone(),
            number,
            outcome: run.outcome.clone(),
            steps: BTreeMap::new(),
        }
    }

    /// Says whether the run has finished, by at least one journal.
    fn join(&mut self, run: &JournalRun) {
        if self.outcome.is_none() {
            self.outcome.clone_from(&run.outcome);
        }
    }

    /// Returns the number of its entries on all nodes.
    pub fn step_count(&self) -> usize {
        self.steps.values().sum()
    }
}

fn nodes_with_number(owned: &BTreeMap<NodeName, Ownership>, number: u64) -> Vec<NodeName> {
    let names = |own: &Ownership| own.runs.iter().any(|r| r.start.number == Some(number));
    owned
        .iter()
        .filter(|(_, own)| names(own))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Orders runs without numbers by the order of lines in all journals. The second result holds the runs that have no order against all others.
fn order_of_lines(
    owned: &BTreeMap<NodeName, Ownership>,
    mut left: BTreeSet<RunId>,
) -> Result<(Vec<RunId>, BTreeSet<RunId>), HistoryError> {
    let mut before: BTreeSet<(&RunId, &RunId)> = BTreeSet::new();
    for own in owned.values() {
        let lines: Vec<&RunId> = own
            .runs
            .iter()
            .filter(|r| r.start.number.is_none())
            .map(|r| &r.start.run)
            .collect();
        before.extend(lines.windows(2).filter(|w| w[0] != w[1]).map(|w| (w[0], w[1])));
    }
    let (mut order, mut unordered) = (Vec::new(), BTreeSet::new());
    while !left.is_empty() {
        let waits = |run: &RunId| before.iter().any(|(a, b)| *b == run && left.contains(*a));
        let ready: Vec<RunId> = left.iter().filter(|run| !waits(run)).cloned().collect();
        if ready.is_empty() {
            return Err(HistoryError::OppositeOrders {
                runs: left.into_iter().collect(),
            });
        }
        if ready.len() > 1 {
            unordered.extend(ready.iter().cloned());
        }
        for run in ready {
            left.remove(&run);
            order.push(run);
        }
    }
    Ok((order, unordered))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::INSTALL;

    fn start(run: &str, number: Option<u64>, command: &str, continues: Option<u64>) -> RunStart {
        RunStart {
            number,
            continues,
            ..RunStart::new(run.parse().unwrap(), 0, command, "ship")
        }
    }

    fn journal(runs: &[(RunStart, bool)]) -> Ownership {
        let run = |(start, finished): &(RunStart, bool)| JournalRun {
            start: start.clone(),
            outcome: finished.then(|| "done".to_owned()),
        };
        Ownership {
            runs: runs.iter().map(run).collect(),
            ..Ownership::default()
        }
    }

    fn fleet(journals: Vec<Ownership>) -> BTreeMap<NodeName, Ownership> {
        let name = |n: usize| format!("n-{n}").parse().unwrap();
        journals.into_iter().enumerate().map(|(n, j)| (name(n), j)).collect()
    }

    fn numbers(target: RollbackTarget) -> Vec<u64> {
        match target {
            RollbackTarget::Runs(runs) => runs.iter().map(|r| r.number).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_order_runs_and_clocks_do_not() {
        let monday = start("1795300000-a", Some(1), INSTALL, None);
        let friday = start("1795200000-b", Some(2), INSTALL, None);
        let history = RunHistory::of(&fleet(vec![journal(&[(monday, true), (friday, true)])])).unwrap();
        assert_eq!(history.newest().unwrap().start.run.as_str(), "1795200000-b");
        assert_eq!(numbers(history.rollback_target().unwrap()), [2]);
        assert_eq!(history.next_number(), 3);
    }

    #[test]
    fn a_rollback_undoes_the_chain_of_unfinished_runs_and_no_finished_one_before() {
        let runs = [
            (start("a", Some(1), INSTALL, None), true),
            (start("b", Some(2), INSTALL, None), false),
            (start("c", Some(3), INSTALL, Some(2)), false),
            (start("d", Some(4), INSTALL, Some(3)), true),
        ];
        let history = RunHistory::of(&fleet(vec![journal(&runs)])).unwrap();
        assert_eq!(numbers(history.rollback_target().unwrap()), [4, 3, 2]);
    }

    #[test]
    fn attempts_of_a_run_that_rolled_itself_back_are_not_unfinished_unless_something_is_left_of_them() {
        let runs = [
            (start("a", Some(1), INSTALL, None), true),
            (start("b", Some(2), INSTALL, None), false),
            (start("b-again1", Some(3), INSTALL, Some(2)), false),
            (start("b-again2", Some(4), INSTALL, Some(3)), false),
        ];
        let mut own = journal(&runs);
        own.runs[3].outcome = Some(ROLLED_BACK.to_owned());
        let history = |own: &Ownership| RunHistory::of(&fleet(vec![own.clone()])).unwrap();
        assert_eq!(history(&own).unfinished(), None);
        assert_eq!(history(&own).rollback_target().unwrap(), RollbackTarget::Nothing);
        let entry = crate::journal::Entry {
            run: "b".parse().unwrap(),
            step: "hosts/a".parse().unwrap(),
            action: crate::name::Digest::of(b"x"),
            undo: crate::action::Undo::Nothing,
            state: crate::journal::EntryState::Owned,
            stamp: None,
            wanted: None,
        };
        own.entries.push(entry);
        assert_eq!(history(&own).unfinished().map(|run| run.number), Some(2));
        assert_eq!(numbers(history(&own).rollback_target().unwrap()), [2]);
    }

    #[test]
    fn a_run_has_finished_when_one_journal_says_so() {
        let run = start("a", Some(1), INSTALL, None);
        let history = RunHistory::of(&fleet(vec![journal(&[(run.clone(), false)]), journal(&[(run, true)])])).unwrap();
        assert!(history.unfinished().is_none());
    }

    #[test]
    fn a_second_rollback_undoes_nothing_and_an_interrupted_one_continues() {
        let rollback = RunStart {
            takes_back: vec![2],
            ..start("c", Some(3), ROLLBACK, None)
        };
        let runs = |finished| {
            let first = (start("a", Some(1), INSTALL, None), true);
            let second = (start("b", Some(2), INSTALL, None), true);
            fleet(vec![journal(&[first, second, (rollback.clone(), finished)])])
        };
        let target = |finished| RunHistory::of(&runs(finished)).unwrap().rollback_target().unwrap();
        assert_eq!(target(true), RollbackTarget::Nothing);
        assert_eq!(numbers(target(false)), [2]);
        let uninstalling = [
            (start("a", Some(1), INSTALL, None), true),
            (start("b", Some(2), UNINSTALL, None), false),
        ];
        let history = RunHistory::of(&fleet(vec![journal(&uninstalling)])).unwrap();
        assert!(matches!(
            history.rollback_target().unwrap(),
            RollbackTarget::Uninstalling(_)
        ));
    }

    #[test]
    fn after_a_self_rolled_back_run_only_an_unfinished_one_is_undone() {
        let mut own = journal(&[
            (start("a", Some(1), INSTALL, None), true),
            (start("b", Some(2), INSTALL, None), true),
        ]);
        own.runs[1].outcome = Some(ROLLED_BACK.to_owned());
        let target = |own: &Ownership| {
            RunHistory::of(&fleet(vec![own.clone()]))
                .unwrap()
                .rollback_target()
                .unwrap()
        };
        assert_eq!(target(&own), RollbackTarget::Nothing, "run 1 is not what failed");
        own.runs[0].outcome = None;
        assert_eq!(numbers(target(&own)), [1]);
    }

    #[test]
    fn one_number_of_two_runs_is_refused() {
        let (a, b) = (start("a", Some(2), INSTALL, None), start("b", Some(2), INSTALL, None));
        let journals = fleet(vec![journal(&[(a, true)]), journal(&[(b, true)])]);
        let error = RunHistory::of(&journals).unwrap_err();
        assert!(matches!(error, HistoryError::SameNumber { number: 2, .. }), "{error:?}");
        let history = RunHistory::without_order(&journals);
        assert_eq!(
            history.next_number(),
            3,
            "an uninstall has a number that every journal takes"
        );
        assert!(history.rollback_target().is_err());
    }

    #[test]
    fn runs_without_numbers_are_ordered_by_lines_and_come_first() {
        let old = |run: &str| start(run, None, INSTALL, None);
        let new = start("z", Some(3), INSTALL, None);
        let journals = vec![
            journal(&[(old("900-x"), true), (old("100-y"), true), (new, true)]),
            journal(&[(old("900-x"), true)]),
        ];
        let history = RunHistory::of(&fleet(journals)).unwrap();
        let order: Vec<_> = history
            .runs()
            .iter()
            .map(|r| (r.number, r.start.run.as_str()))
            .collect();
        assert_eq!(order, [(1, "900-x"), (2, "100-y"), (3, "z")]);
        let unclear = fleet(vec![journal(&[(old("a"), true)]), journal(&[(old("b"), true)])]);
        let error = RunHistory::of(&unclear).unwrap().rollback_target().unwrap_err();
        assert!(matches!(error, HistoryError::Unordered { .. }));
        let opposite = fleet(vec![
            journal(&[(old("a"), true), (old("b"), true)]),
            journal(&[(old("b"), true), (old("a"), true)]),
        ]);
        assert!(matches!(
            RunHistory::of(&opposite),
            Err(HistoryError::OppositeOrders { .. })
        ));
    }
}
