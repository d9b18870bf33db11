//! What of a plan is left to do once it is known which steps are satisfied: waits without cause go, steps that serve one run alone are
//! made only for steps that need them and withdrawn at the end, a founding that was interrupted is taken back whole, and a second
//! founding or join is refused.

use super::key::StepKind;
use super::{Plan, PlanError, Stage, Step};
use crate::action::{Action, BootstrapGoal};
use crate::cluster_record::ClusterRecord;
use crate::journal::{EntryState, Ownership};
use crate::name::{NodeName, StepId};
use std::collections::{BTreeMap, BTreeSet};

/// Seconds for undoing one file.
const WITHDRAW_S: u64 = 60;

/// Completes a plan: adds what withdraws steps that serve this run alone, and adds to `satisfied` what need not be done.
/// Refuses a plan that would found a formed cluster again, or let a member join again.
pub fn settle(
    plan: &mut Plan,
    satisfied: &mut BTreeSet<StepId>,
    record: &ClusterRecord,
    owned: &BTreeMap<NodeName, Ownership>,
) -> Result<(), PlanError> {
    refuse_second_bootstrap(plan, satisfied, record, owned)?;
    take_back_founding(plan, satisfied, owned);
    look_behind_makers(plan, satisfied);
    settle_ephemeral(plan, satisfied, owned);
    pass_waits(plan, satisfied);
    plan.check()
}

/// INVARIANT: a cluster that is formed is never founded again, its authorities are never made again, and what joined it as a whole never joins
/// again: kubeadm refuses a Node that is Ready, and the attempt after that would take the member for a join that was interrupted.
fn refuse_second_bootstrap(
    plan: &Plan,
    satisfied: &BTreeSet<StepId>,
    record: &ClusterRecord,
    owned: &BTreeMap<NodeName, Ownership>,
) -> Result<(), PlanError> {
    if !record.formed {
        return Ok(());
    }
    let founds = |step: &Step| reaches(step, BootstrapGoal::Founder) || reaches(step, BootstrapGoal::Authorities);
    let was_done = |step: &Step| {
        let entries = owned.get(&step.node).into_iter().flat_map(|own| &own.entries);
        entries
            .filter(|entry| entry.step == step.id)
            .any(|entry| entry.state == EntryState::Owned)
    };
    let again = |step: &&Step| {
        let bootstraps = matches!(step.action, Action::Bootstrap { .. });
        bootstraps && !satisfied.contains(&step.id) && (founds(step) || was_done(step))
    };
    match plan.steps.iter().find(again) {
        Some(step) => Err(PlanError::BootstrapAgain {
            node: step.node.clone(),
            step: step.id.clone(),
        }),
        None => Ok(()),
    }
}

fn reaches(step: &Step, wanted: BootstrapGoal) -> bool {
    matches!(&step.action, Action::Bootstrap { goal, .. } if *goal == wanted)
}

/// INVARIANT: etcd's members are bootstrapped together or not at all. A founding that is not whole is taken back on every founder,
/// also on those that had done their part, before any of them founds again. (In a cluster that is formed all parts are satisfied, or
/// the plan was refused.)
fn take_back_founding(plan: &mut Plan, satisfied: &mut BTreeSet<StepId>, owned: &BTreeMap<NodeName, Ownership>) {
    let founding: Vec<Step> = plan
        .steps
        .iter()
        .filter(|s| reaches(s, BootstrapGoal::Founder))
        .cloned()
        .collect();
    let is_begun = |step: &&Step| owned.get(&step.node).is_some_and(|own| own.newest(&step.id).is_some());
    if founding.iter().all(|step| satisfied.contains(&step.id)) || !founding.iter().any(|step| is_begun(&step)) {
        return;
    }
    let ephemeral: BTreeSet<StepId> = plan
        .steps
        .iter()
        .filter(|s| s.ephemeral)
        .map(|s| s.id.clone())
        .collect();
    let take_back = |step: &Step| {
        let undo = undo_step(
            StepKind::TakeBack,
            step.stage,
            step.node.clone(),
            &step.id,
            step.deadline_s,
        );
        // What the undo stops and removes may be used by the steps before the founding, which are repaired first.
        undo.after(
            step.needs
                .iter()
                .filter(|need| !ephemeral.contains(*need))
                .cloned()
                .collect(),
        )
    };
    let undone: Vec<Step> = founding.iter().filter(is_begun).map(take_back).collect();
    for step in plan.steps.iter_mut().filter(|s| reaches(s, BootstrapGoal::Founder)) {
        step.needs.extend(undone.iter().map(|undo| undo.id.clone()));
        satisfied.remove(&step.id);
    }
    plan.steps.extend(undone);
}

/// What a kubeconfig names is known once the step that makes the file is done; until then its absence says nothing.
fn look_behind_makers(plan: &Plan, satisfied: &mut BTreeSet<StepId>) {
    let reads = |step: &&Step| matches!(step.action, Action::KubeconfigServer { .. });
    for step in plan.steps.iter().filter(reads) {
        if step.needs.iter().any(|need| !satisfied.contains(need)) {
            satisfied.remove(&step.id);
        }
    }
}

/// Makes the step that undoes another step of the same node; `kind` is [`StepKind::TakeBack`] or [`StepKind::Withdraw`].
pub fn undo_step(kind: StepKind, stage: Stage, node: NodeName, step: &StepId, deadline_s: u64) -> Step {
    let action = Action::TakeBack {
        step: step.clone(),
        superseded: false,
    };
    Step::new(kind.part_of_cluster(step.as_str()), stage, node, deadline_s, action)
}

fn settle_ephemeral(plan: &mut Plan, satisfied: &mut BTreeSet<StepId>, owned: &BTreeMap<NodeName, Ownership>) {
    let ephemeral: Vec<Step> = plan.steps.iter().filter(|s| s.ephemeral).cloned().collect();
    for step in ephemeral {
        let users = users_of(plan, &step.id, satisfied);
        let left_over = owned.get(&step.node).is_some_and(|own| own.newest(&step.id).is_some());
        let undo = |kind| undo_step(kind, Stage::Finish, step.node.clone(), &step.id, WITHDRAW_S);
        if left_over {
            let earlier = undo(StepKind::TakeBack);
            if let Some(found) = plan.steps.iter_mut().find(|s| s.id == step.id) {
                found.needs.push(earlier.id.clone());
            }
            plan.steps.push(earlier);
        }
        if users.is_empty() {
            satisfied.insert(step.id.clone());
        } else {
            satisfied.remove(&step.id);
            plan.steps.push(undo(StepKind::Withdraw).after(users));
        }
    }
}

/// Returns the steps to be done that need `step`, directly or through others, and do not themselves serve this run alone.
fn users_of(plan: &Plan, step: &StepId, satisfied: &BTreeSet<StepId>) -> Vec<StepId> {
    let mut reached: BTreeSet<&StepId> = BTreeSet::from([step]);
    loop {
        let more: Vec<&StepId> = plan
            .steps
            .iter()
            .filter(|s| !reached.contains(&s.id) && s.needs.iter().any(|n| reached.contains(n)))
            // Behind a step of the cluster the credential is of no use any more; behind a satisfied one neither.
            .filter(|s| s.ephemeral || !satisfied.contains(&s.id) && !s.action.runs_in_cluster())
            .map(|s| &s.id)
            .collect();
        if more.is_empty() {
            break;
        }
        reached.extend(more);
    }
    let users = plan.steps.iter().filter(|s| !s.ephemeral && reached.contains(&s.id));
    users.map(|s| s.id.clone()).collect()
}

/// A wait behind nothing new has nothing to wait for.
pub fn pass_waits(plan: &Plan, satisfied: &mut BTreeSet<StepId>) {
    loop {
        let waits: Vec<StepId> = plan
            .steps
            .iter()
            .filter(|s| !s.action.changes_something() && !satisfied.contains(&s.id))
            .filter(|s| s.needs.iter().all(|need| satisfied.contains(need)))
            .map(|s| s.id.clone())
            .collect();
        if waits.is_empty() {
            return;
        }
        satisfied.extend(waits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Undo;
    use crate::cluster_record::tests::record;
    use crate::journal::Entry;
    use crate::name::Digest;

    fn step(id: &str, needs: &[&str], action: Action) -> Step {
        Step::new(id.parse().unwrap(), Stage::Prepare, "cp-1".parse().unwrap(), 10, action)
            .after(needs.iter().map(|n| n.parse().unwrap()).collect())
    }

    fn directory() -> Action {
        Action::Directory {
            path: "/opt/x".into(),
            mode: 0o755,
        }
    }

    fn credential() -> Step {
        Step {
            ephemeral: true,
            ..step("join-credential/cp-1", &[], directory())
        }
    }

    fn ids(texts: &[&str]) -> BTreeSet<StepId> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    fn owns(id: &str) -> BTreeMap<NodeName, Ownership> {
        let entry = Entry {
            run: "r1".parse().unwrap(),
            step: id.parse().unwrap(),
            action: Digest::of(b"x"),
            undo: Undo::Nothing,
            state: EntryState::Owned,
            stamp: None,
            wanted: None,
        };
        let own = Ownership {
            entries: vec![entry],
            ..Ownership::default()
        };
        [("cp-1".parse().unwrap(), own)].into_iter().collect()
    }

    fn pending(plan: &Plan, satisfied: &BTreeSet<StepId>) -> Vec<String> {
        let steps = plan.steps.iter().filter(|s| !satisfied.contains(&s.id));
        steps.map(|s| s.id.to_string()).collect()
    }

    fn settled(steps: Vec<Step>, satisfied: &[&str], owned: &BTreeMap<NodeName, Ownership>) -> Vec<String> {
        let mut plan = Plan {
            steps,
            ..Plan::default()
        };
        let mut satisfied = ids(satisfied);
        settle(&mut plan, &mut satisfied, &record(1, 1, 0), owned).unwrap();
        pending(&plan, &satisfied)
    }

    #[test]
    fn a_credential_is_made_for_a_join_and_withdrawn_behind_it() {
        let steps = || {
            vec![
                credential(),
                step("join-worker/w-1", &["join-credential/cp-1"], directory()),
            ]
        };
        let none = BTreeMap::new();
        assert_eq!(
            settled(steps(), &[], &none),
            [
                "join-credential/cp-1",
                "join-worker/w-1",
                "withdraw/join-credential/cp-1"
            ]
        );
        assert_eq!(settled(steps(), &["join-worker/w-1"], &none), [""; 0]);
    }

    #[test]
    fn a_credential_of_an_earlier_run_is_undone_first_or_alone() {
        let steps = || {
            vec![
                credential(),
                step("join-worker/w-1", &["join-credential/cp-1"], directory()),
            ]
        };
        let left = owns("join-credential/cp-1");
        assert_eq!(
            settled(steps(), &["join-worker/w-1"], &left),
            ["take-back/join-credential/cp-1"]
        );
        assert_eq!(
            settled(steps(), &[], &left),
            [
                "join-credential/cp-1",
                "join-worker/w-1",
                "take-back/join-credential/cp-1",
                "withdraw/join-credential/cp-1"
            ]
        );
    }

    fn founding(node: &str) -> Step {
        let action = Action::Bootstrap {
            goal: BootstrapGoal::Founder,
            argv: vec![],
            creates: vec![],
            claims: Default::default(),
            effects: vec![],
        };
        let needs = ["images/cp-1", "etcd-patch/cp-1"];
        let step = step(&format!("init/{node}"), &needs, action);
        Step {
            node: node.parse().unwrap(),
            ..step
        }
    }

    #[test]
    fn a_founding_that_is_not_whole_is_taken_back_on_every_founder_that_began() {
        let patch = Step {
            ephemeral: true,
            ..step("etcd-patch/cp-1", &[], directory())
        };
        let steps = vec![
            step("images/cp-1", &[], directory()),
            patch,
            founding("cp-1"),
            founding("cp-2"),
            founding("cp-3"),
            step("join-worker/w-1", &["init/cp-1", "init/cp-2", "init/cp-3"], directory()),
        ];
        let mut owned = owns("init/cp-1");
        let mut interrupted = owns("init/cp-2").remove(&"cp-1".parse().unwrap()).unwrap();
        interrupted.entries[0].state = EntryState::Intended;
        owned.insert("cp-2".parse().unwrap(), interrupted);
        let mut forming = record(1, 1, 0);
        forming.formed = false;
        let plan_with = |satisfied: &[&str]| {
            let mut plan = Plan {
                steps: steps.clone(),
                ..Plan::default()
            };
            let mut satisfied = ids(satisfied);
            settle(&mut plan, &mut satisfied, &forming, &owned).unwrap();
            let pending = pending(&plan, &satisfied);
            (plan, pending)
        };
        let (plan, pending) = plan_with(&["images/cp-1", "init/cp-1"]);
        assert_eq!(
            pending,
            [
                "etcd-patch/cp-1",
                "init/cp-1",
                "init/cp-2",
                "init/cp-3",
                "join-worker/w-1",
                "take-back/init/cp-1",
                "take-back/init/cp-2",
                "withdraw/etcd-patch/cp-1",
            ]
        );
        let needs = |id: &str| &plan.steps.iter().find(|s| s.id.as_str() == id).unwrap().needs;
        for node in ["cp-1", "cp-2", "cp-3"] {
            let needs: Vec<&str> = needs(&format!("init/{node}")).iter().map(StepId::as_str).collect();
            assert_eq!(needs[2..], ["take-back/init/cp-1", "take-back/init/cp-2"], "{node}");
        }
        assert_eq!(*needs("take-back/init/cp-2"), ["images/cp-1".parse().unwrap()]);
        let whole = plan_with(&["images/cp-1", "init/cp-1", "init/cp-2", "init/cp-3"]).1;
        assert_eq!(whole, ["join-worker/w-1"]);
    }

    #[test]
    fn a_founding_that_nobody_has_begun_has_nothing_to_take_back() {
        let steps = vec![
            step("images/cp-1", &[], directory()),
            step("etcd-patch/cp-1", &[], directory()),
            founding("cp-1"),
        ];
        let mut plan = Plan {
            steps,
            ..Plan::default()
        };
        let mut satisfied = ids(&["images/cp-1"]);
        let mut forming = record(1, 1, 0);
        forming.formed = false;
        settle(&mut plan, &mut satisfied, &forming, &BTreeMap::new()).unwrap();
        assert_eq!(pending(&plan, &satisfied), ["etcd-patch/cp-1", "init/cp-1"]);
    }

    /// Settles a plan whose one step, a one-shot one, is pending; the journal of its node has entries in these states.
    fn bootstrapped_again(formed: bool, goal: BootstrapGoal, states: &[EntryState]) -> Result<(), PlanError> {
        let action = Action::Bootstrap {
            goal,
            argv: vec![],
            creates: vec![],
            claims: Default::default(),
            effects: vec![],
        };
        let mut plan = Plan {
            steps: vec![step("join-kubelet/cp-1", &[], action)],
            ..Plan::default()
        };
        let mut owned = owns("join-kubelet/cp-1");
        for own in owned.values_mut() {
            let entry = own.entries.remove(0);
            let with = |state: &EntryState| Entry {
                state: *state,
                ..entry.clone()
            };
            own.entries.extend(states.iter().map(with));
        }
        let mut record = record(1, 1, 0);
        record.formed = formed;
        settle(&mut plan, &mut ids(&[]), &record, &owned)
    }

    #[test]
    fn a_formed_cluster_is_not_founded_again() {
        for goal in [BootstrapGoal::Founder, BootstrapGoal::Authorities] {
            let formed = bootstrapped_again(true, goal, &[]);
            assert!(matches!(formed, Err(PlanError::BootstrapAgain { .. })), "{formed:?}");
            assert_eq!(bootstrapped_again(false, goal, &[]), Ok(()));
        }
        assert_eq!(bootstrapped_again(true, BootstrapGoal::Node, &[]), Ok(()));
    }

    #[test]
    fn a_member_that_lost_what_its_join_made_does_not_join_again() {
        use EntryState::{Intended, Owned, Undoing};
        let goals = [
            BootstrapGoal::Node,
            BootstrapGoal::ControlPlane,
            BootstrapGoal::AnnouncedControlPlane,
        ];
        for goal in goals {
            for done in [&[Owned][..], &[Owned, Intended]] {
                let again = bootstrapped_again(true, goal, done);
                assert!(matches!(again, Err(PlanError::BootstrapAgain { .. })), "{again:?}");
            }
            for interrupted in [Intended, Undoing] {
                assert_eq!(bootstrapped_again(true, goal, &[interrupted]), Ok(()));
            }
        }
    }
}
