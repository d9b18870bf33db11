//! One case of the sweep. Its seed chooses everything.

use super::reference::{Place, Reference};
use landfall_core::name::NodeName;
use landfall_engine::run::UndoCommand;
use landfall_test_support::cluster::When;
use landfall_test_support::seed::Choices;

/// A prime. Seeds are multiplied by it, so that neighbouring seeds choose distant places, and as many seeds as there are places choose all.
const STRIDE: u64 = 2_654_435_761;

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The kernel kills an agent in the write that takes its journal beyond so many bytes.
    Torn(NodeName, u64),
    /// Writes that take an agent's journal beyond so many bytes fail.
    DiskFull(NodeName, u64),
    /// An agent is killed at a named point of a long action.
    KilledAt(NodeName, String, When),
    /// An agent is killed when so many steps have begun or ended.
    Killed(NodeName, u64),
    /// All agents are killed then.
    AllKilled(u64),
    /// The connection to a node ends then, and its agent notices that.
    Cut(NodeName, u64),
    /// All connections end then: the operator is gone.
    AllCut(u64),
    /// A node loses its power then, and everything that was not synced to disk.
    PowerCut(NodeName, u64),
    /// Another operator starts an uninstall then.
    OtherOperator(u64),
}

/// The command after the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Install again.
    Again,
    /// Undo.
    Undo(UndoCommand),
}

/// A second fault, in the command after the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Second {
    /// The fault.
    pub fault: Fault,
    /// What is done after that.
    pub then: Then,
}

/// What differs from the first install in later commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// The inventory names the nodes in another order.
    Reordered,
    /// The operator's clock is a day behind.
    ClockBehind,
    /// A node's clock is a day behind. An install is refused until it is right again; what takes back does not mind.
    NodeClockBehind(NodeName),
    /// The bundle is another one of the same version; when it is installed again.
    OtherBundle,
    /// A node cannot be reached, and later can; when it is undone.
    Absent(NodeName),
    /// The inventory lacks a node, and later has it; when it is uninstalled.
    Shortened(NodeName),
    /// A node is slow in all of it, the first install too.
    Slow(NodeName),
}

/// One case: from bare machines to bare machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What chose it.
    pub seed: u64,
    /// What disturbs the install.
    pub fault: Fault,
    /// What is done then.
    pub then: Then,
    /// What disturbs that.
    pub second: Option<Second>,
    /// What is different from then on.
    pub change: Change,
    /// Whether the first install makes connections again.
    pub reconnects: bool,
}

impl Fault {
    /// Says whether a connection that the fault ends can be retried at once.
    fn is_lost_connection(&self) -> bool {
        matches!(
            self,
            Self::KilledAt(..) | Self::Killed(..) | Self::AllKilled(_) | Self::Cut(..) | Self::AllCut(_)
        )
    }
}

impl Reference {
    /// Returns how many cases there are: each place with each command afterwards.
    pub fn cases(&self) -> u64 {
        self.places.len() as u64 * 3
    }

    /// Returns the case of a seed. Twice as many seeds in a row as there are cases, of which each second is of this reference, come to
    /// every place with every command afterwards.
    pub fn case(&self, seed: u64) -> Case {
        let mut choices = Choices::new(seed, "case");
        let number = (seed / 2 % self.cases()).wrapping_mul(STRIDE) % self.cases();
        let then = [
            Then::Again,
            Then::Undo(UndoCommand::Rollback),
            Then::Undo(UndoCommand::Uninstall),
        ][number as usize % 3];
        let fault = self.fault(&self.places[number as usize / 3], &mut choices);
        let second = (choices.below(4) == 0).then(|| self.second(then, &mut choices));
        let change = self.change(then, second.is_some(), &mut choices);
        let reconnects = fault.is_lost_connection() && choices.below(4) == 0;
        Case {
            seed,
            fault,
            then,
            second,
            change,
            reconnects,
        }
    }

    fn node(&self, choices: &mut Choices) -> NodeName {
        let nodes: Vec<&NodeName> = self.lengths.keys().collect();
        (*choices.one_of(&nodes).unwrap()).clone()
    }

    fn fault(&self, place: &Place, choices: &mut Choices) -> Fault {
        match place {
            Place::Record { node, start, end } => {
                let inside = [0, 1, choices.below(end - start)];
                Fault::Torn(node.clone(), start + choices.one_of(&inside).unwrap())
            }
            Place::Point { node, word, when } => Fault::KilledAt(node.clone(), word.clone(), *when),
            Place::StepEvent(at) => self.at_step(*at, choices),
        }
    }

    fn at_step(&self, at: u64, choices: &mut Choices) -> Fault {
        let node = self.node(choices);
        match choices.below(7) {
            0 => Fault::Killed(node, at),
            1 => Fault::AllKilled(at),
            2 => Fault::Cut(node, at),
            3 => Fault::AllCut(at),
            4 => Fault::PowerCut(node, at),
            5 => Fault::OtherOperator(at),
            _ => {
                let bytes = choices.below(self.lengths[&node]);
                Fault::DiskFull(node, bytes)
            }
        }
    }

    fn second(&self, first: Then, choices: &mut Choices) -> Second {
        let node = self.node(choices);
        let length = self.lengths[&node];
        // Only an uninstall ends an uninstall, and a rollback is not undone by an install.
        let (bytes, then) = match first {
            Then::Again => {
                let ways = [Then::Again, Then::Undo(UndoCommand::Rollback)];
                (choices.below(length), *choices.one_of(&ways).unwrap())
            }
            Then::Undo(UndoCommand::Rollback) => {
                let ways = [UndoCommand::Rollback, UndoCommand::Uninstall];
                (
                    length / 2 + choices.below(length),
                    Then::Undo(*choices.one_of(&ways).unwrap()),
                )
            }
            Then::Undo(UndoCommand::Uninstall) => (length / 2 + choices.below(length), first),
        };
        let at = choices.below(self.step_events / 2);
        let fault = match choices.below(4) {
            0 => Fault::AllKilled(at),
            1 => Fault::Killed(node, at),
            2 => Fault::AllCut(at),
            _ => Fault::Torn(node, bytes),
        };
        Second { fault, then }
    }

    fn change(&self, then: Then, has_second: bool, choices: &mut Choices) -> Change {
        let node = self.node(choices);
        match (choices.below(9), then) {
            (0, _) => Change::Reordered,
            (1, _) => Change::ClockBehind,
            (2, Then::Again) => Change::OtherBundle,
            (2, Then::Undo(_)) => Change::Absent(node),
            (3, Then::Undo(UndoCommand::Uninstall)) => Change::Shortened(node),
            (4, _) => Change::Slow(node),
            // A second install would be refused before it can be disturbed.
            (5, _) if !has_second => Change::NodeClockBehind(node),
            _ => Change::None,
        }
    }
}
