//! Plans an undo: removes what the runs made in a cluster that stays, and undoes the journal entries of each node, newest first.
//!
//! Exceptions from that order on a node: a directory is removed after everything in it, and a unit that was active before is started again
//! after its file is restored.

use super::key::{StepKind, is_membership};
use super::{Plan, Stage, Step};
use crate::action::{Action, Undo};
use crate::cluster_record::ClusterRecord;
use crate::journal::{Entry, EntryState, Ownership};
use crate::layout;
use crate::name::{NodeName, RunId, StepId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Seconds for undoing one entry: the longest unmounts, deletes hundreds of megabytes and waits for daemons to end.
const TAKE_BACK_S: u64 = 600;

/// The entries to undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UndoScope {
    /// All entries, and with them the cluster.
    Everything,
    /// The entries of these runs.
    Runs(BTreeSet<RunId>),
}

impl UndoScope {
    fn holds(&self, entry: &Entry) -> bool {
        match self {
            Self::Everything => true,
            Self::Runs(runs) => runs.contains(&entry.run),
        }
    }

    /// Says whether the cluster itself stays: it was founded by an entry that is not undone, or stood before the first of the undone runs.
    pub fn cluster_stays(&self, owned: &BTreeMap<NodeName, Ownership>) -> bool {
        let founding = |e: &Entry| StepKind::Init.is_kind_of(&e.step) && !self.holds(e);
        let founded = || owned.values().any(|own| own.entries.iter().any(founding));
        let stood = || self.record_before(owned).is_some_and(|record| record.formed);
        *self != Self::Everything && (founded() || stood())
    }

    /// Returns the newest record from before the undone runs. `None` when one of them is of journal version 1, whose runs have no numbers.
    pub fn record_before<'a>(&self, owned: &'a BTreeMap<NodeName, Ownership>) -> Option<&'a ClusterRecord> {
        let Self::Runs(runs) = self else { return None };
        let started = owned.values().flat_map(|own| &own.runs).map(|run| &run.start);
        let numbers: Option<Vec<u64>> = started
            .filter(|start| runs.contains(&start.run))
            .map(|start| start.number)
            .collect();
        let oldest = numbers?.into_iter().min()?;
        let earlier = owned.values().filter_map(|own| own.record_before(oldest));
        earlier.max_by_key(|record| record.sequence)
    }

    /// Names a control plane of the cluster that stays: what is undone in the cluster is undone through it.
    pub fn staying_control_plane<'a>(&self, owned: &'a BTreeMap<NodeName, Ownership>) -> Option<&'a NodeName> {
        let stays = |e: &Entry| {
            let kinds = [StepKind::Init, StepKind::JoinControlPlane];
            e.state == EntryState::Owned && !self.holds(e) && kinds.iter().any(|kind| kind.is_kind_of(&e.step))
        };
        let found = owned.iter().find(|(_, own)| own.entries.iter().any(stays));
        found.map(|(name, _)| name)
    }

    /// Says whether the cluster may stay although no journal here says so: no founding is recorded here, and the record names a founder that is
    /// absent, which may have founded the cluster before the undone runs.
    pub fn founder_may_stay(&self, owned: &BTreeMap<NodeName, Ownership>, record: &ClusterRecord) -> bool {
        let is_founding = |e: &Entry| StepKind::Init.is_kind_of(&e.step);
        let has_founding = owned.values().any(|own| own.entries.iter().any(is_founding));
        *self != Self::Everything && !has_founding && record.founders().any(|founder| !owned.contains_key(founder))
    }

    /// Names the nodes whose membership is undone.
    pub fn leaving_nodes(&self, owned: &BTreeMap<NodeName, Ownership>) -> Vec<NodeName> {
        let joins = |e: &Entry| self.holds(e) && is_membership(&e.step);
        let leaving = owned.iter().filter(|(_, own)| own.entries.iter().any(joins));
        leaving.map(|(name, _)| name.clone()).collect()
    }
}

/// The moves of an undo. Nodes without an entry in the scope get no step. A failed step stops only the steps that need it.
pub(super) struct UndoMoves<'a> {
    owned: &'a BTreeMap<NodeName, Ownership>,
    scope: &'a UndoScope,
    plan: &'a mut Plan,
}

impl<'a> UndoMoves<'a> {
    pub(super) fn of(owned: &'a BTreeMap<NodeName, Ownership>, scope: &'a UndoScope, plan: &'a mut Plan) -> Self {
        Self { owned, scope, plan }
    }

    /// Plans every step.
    pub(super) fn add_all(mut self) {
        self.plan.keep_going = true;
        let cluster = if self.scope.cluster_stays(self.owned) {
            self.leave_cluster()
        } else {
            None
        };
        for (node, own) in self.owned {
            self.take_back(node, own, cluster.as_ref());
        }
    }

    fn add<'b>(
        &mut self,
        id: StepId,
        node: &NodeName,
        needs: impl IntoIterator<Item = &'b StepId>,
        action: Action,
    ) -> StepId {
        let step = Step::new(id, Stage::Undo, node.clone(), TAKE_BACK_S, action);
        self.plan.add(step.after(needs.into_iter().cloned().collect()))
    }

    /// Plans the undo in a cluster that stays: objects are restored, etcd members and Nodes removed. Returns the last step. Cluster steps are
    /// journalled on every control plane, and are undone once. A control plane that stays restores objects: one that leaves may be gone
    /// halfway when an undo that was cut off goes on.
    fn leave_cluster(&mut self) -> Option<StepId> {
        let (owned, scope) = (self.owned, self.scope);
        let staying = scope.staying_control_plane(owned);
        let marks = self.mark();
        let mut last: Option<StepId> = None;
        let mut seen: BTreeSet<(&RunId, &StepId)> = BTreeSet::new();
        let mut n = 0;
        for (node, entry) in cluster_entries(owned, scope) {
            let (kind, on, action) = match &entry.undo {
                Undo::RestoreObjects { prior, absent } if seen.insert((&entry.run, &entry.step)) => {
                    let (prior, absent) = (prior.clone(), absent.clone());
                    let on = staying.unwrap_or(node);
                    (StepKind::RestoreObjects, on, Action::RestoreObjects { prior, absent })
                }
                Undo::RemoveClaims { effects, .. } => {
                    let effects = effects.clone();
                    (StepKind::LeaveCluster, node, Action::LeaveCluster { effects })
                }
                _ => continue,
            };
            n += 1;
            let id = kind.part_of_cluster(&format!("{n}/{}", entry.step));
            let needs = last.as_ref().map_or(marks.as_slice(), std::slice::from_ref);
            last = Some(self.add(id, on, needs, action));
        }
        last
    }

    /// Has every node mark its entries that have a share of the cluster: the journals say what goes before the cluster is changed.
    fn mark(&mut self) -> Vec<StepId> {
        let mut steps: BTreeMap<&NodeName, Vec<StepId>> = BTreeMap::new();
        for (node, entry) in cluster_entries(self.owned, self.scope) {
            let of_node = steps.entry(node).or_default();
            if !of_node.contains(&entry.step) {
                of_node.push(entry.step.clone());
            }
        }
        let marked = steps.into_iter().map(|(node, steps)| {
            let action = Action::MarkUndo { steps };
            self.add(StepKind::MarkUndo.on(node), node, None, action)
        });
        marked.collect()
    }

    /// Undoes a node's entries, after a step in the cluster.
    fn take_back(&mut self, node: &NodeName, own: &Ownership, after: Option<&StepId>) {
        let entries = in_order(newest_first(own, self.scope));
        if entries.is_empty() {
            return;
        }
        let mut marked = BTreeSet::new();
        let steps = entries
            .iter()
            .map(|e| e.step.clone())
            .filter(|s| marked.insert(s.clone()));
        let begin = Action::BeginUndo { steps: steps.collect() };
        let mut last = self.add(StepKind::BeginUndo.on(node), node, after, begin);
        let superseded = superseded_units(&entries);
        let (restarted, gone): (Vec<&Entry>, Vec<&Entry>) = entries
            .iter()
            .partition(|e| starts_again(e) && !superseded.contains(&(&e.run, &e.step)));
        let mut n = 0;
        let mut take_back = |planner: &mut Self, last: &StepId, entry: &Entry| {
            n += 1;
            let id = StepKind::TakeBack.part_on(&format!("{n}/{}", entry.step), node);
            let action = Action::TakeBack {
                step: entry.step.clone(),
                superseded: superseded.contains(&(&entry.run, &entry.step)),
            };
            planner.add(id, node, Some(last), action)
        };
        for entry in gone {
            last = take_back(self, &last, entry);
        }
        let units: Vec<String> = entries.iter().filter_map(|e| unit_file(&e.undo)).collect();
        let modules: BTreeSet<String> = entries.iter().flat_map(|e| modules_of(&e.undo)).cloned().collect();
        if !units.is_empty() || !modules.is_empty() {
            let modules = modules.into_iter().collect();
            let finish = Action::FinishUndo { units, modules };
            last = self.add(StepKind::FinishUndo.on(node), node, Some(&last), finish);
        }
        for entry in restarted {
            last = take_back(self, &last, entry);
        }
    }
}

/// Returns the entries in the scope that have a share of the cluster, with their nodes; those of a node newest first.
fn cluster_entries<'a>(
    owned: &'a BTreeMap<NodeName, Ownership>,
    scope: &UndoScope,
) -> impl Iterator<Item = (&'a NodeName, &'a Entry)> {
    let has_share = |e: &Entry| match &e.undo {
        Undo::RestoreObjects { .. } => true,
        Undo::RemoveClaims { effects, .. } => !effects.is_empty(),
        _ => false,
    };
    let entries = owned
        .iter()
        .flat_map(|(node, own)| own.entries.iter().rev().map(move |e| (node, e)));
    entries.filter(move |(_, e)| scope.holds(e) && has_share(e))
}

/// Returns the entries in the scope, newest first. An entry is left out when a newer entry of the same step stays.
fn newest_first<'a>(own: &'a Ownership, scope: &UndoScope) -> Vec<&'a Entry> {
    let mut kept: BTreeSet<&StepId> = BTreeSet::new();
    let mut entries = Vec::new();
    for entry in own.entries.iter().rev() {
        if !scope.holds(entry) {
            kept.insert(&entry.step);
        } else if !kept.contains(&entry.step) {
            entries.push(entry);
        }
    }
    entries
}

/// Moves each directory behind the last entry whose undo removes something from it.
fn in_order(entries: Vec<&Entry>) -> Vec<&Entry> {
    let mut placed: Vec<(usize, usize, &Entry)> = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let place = match &entry.undo {
            Undo::RemoveDirectory { paths } => {
                let fills = |other: &Entry| paths.iter().any(|path| touches(&other.undo, path));
                let last = entries.iter().enumerate().skip(at + 1).rfind(|(_, other)| fills(other));
                last.map_or(at, |(index, _)| index)
            }
            _ => at,
        };
        placed.push((place, at, entry));
    }
    // An entry comes before the directories that wait for it; the directories keep their own order.
    placed.sort_by_key(|(place, at, entry)| {
        (
            *place,
            matches!(entry.undo, Undo::RemoveDirectory { .. }) && place != at,
            *at,
        )
    });
    placed.into_iter().map(|(_, _, entry)| entry).collect()
}

/// Says whether an undo may remove something from a directory.
fn touches(undo: &Undo, directory: &Path) -> bool {
    let near = |path: &Path| path.starts_with(directory) || directory.starts_with(path);
    match undo {
        Undo::RestorePath { path, .. } => near(path),
        Undo::RemoveDirectory { paths } => paths
            .iter()
            .any(|path| path.starts_with(directory) && path != directory),
        Undo::RemoveClaims { claims, .. } => claims.paths.iter().any(|path| near(path)),
        _ => false,
    }
}

/// Says whether the entry's undo starts a unit again, which must find its earlier file.
fn starts_again(entry: &Entry) -> bool {
    matches!(&entry.undo, Undo::RestoreUnit { was_active: true, .. })
}

/// Leaves only the oldest of several entries of a unit to restore its state: a newer one would start the unit only to stop it again.
fn superseded_units<'a>(newest_first: &[&'a Entry]) -> BTreeSet<(&'a RunId, &'a StepId)> {
    let unit = |entry: &Entry| match &entry.undo {
        Undo::RestoreUnit { name, .. } => Some(name.clone()),
        _ => None,
    };
    let has_older = |at: usize, name: &String| newest_first.iter().skip(at + 1).any(|e| unit(e).as_ref() == Some(name));
    let superseded = newest_first
        .iter()
        .enumerate()
        .filter(|(at, e)| unit(e).is_some_and(|name| has_older(*at, &name)));
    superseded.map(|(_, e)| (&e.run, &e.step)).collect()
}

fn modules_of(undo: &Undo) -> &[String] {
    match undo {
        Undo::UnloadModules { modules } => modules,
        Undo::RemoveClaims { claims, .. } => &claims.modules,
        _ => &[],
    }
}

fn unit_file(undo: &Undo) -> Option<String> {
    match undo {
        Undo::RestorePath { path, .. } if path.starts_with(layout::UNIT_DIR) => {
            Some(path.file_name()?.to_str()?.to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{Claims, ClusterEffect, Prior};
    use crate::name::Digest;
    use crate::plan::{Goal, plan};

    fn entry(run: &str, step: &str, undo: Undo) -> Entry {
        Entry {
            run: run.parse().unwrap(),
            step: step.parse().unwrap(),
            action: Digest::of(step.as_bytes()),
            undo,
            state: EntryState::Owned,
            stamp: None,
            wanted: None,
        }
    }

    fn file(path: &str) -> Undo {
        Undo::RestorePath {
            path: path.into(),
            prior: Prior::Absent,
        }
    }

    fn directory(path: &str) -> Undo {
        Undo::RemoveDirectory {
            paths: vec![path.into()],
        }
    }

    fn claims(path: &str, effects: Vec<ClusterEffect>) -> Undo {
        Undo::RemoveClaims {
            claims: Claims {
                paths: vec![path.into()],
                ..Claims::default()
            },
            sysctls: vec![],
            set: vec![],
            absent_bases: vec![],
            absent_parents: vec![],
            effects,
        }
    }

    fn unit(name: &str, was_active: bool) -> Undo {
        Undo::RestoreUnit {
            name: name.to_owned(),
            was_enabled: was_active,
            was_active,
        }
    }

    fn node(entries: Vec<Entry>) -> Ownership {
        Ownership {
            entries,
            ..Ownership::default()
        }
    }

    fn fleet(nodes: Vec<(&str, Ownership)>) -> BTreeMap<NodeName, Ownership> {
        nodes
            .into_iter()
            .map(|(name, own)| (name.parse().unwrap(), own))
            .collect()
    }

    fn plan_undo(owned: &BTreeMap<NodeName, Ownership>, scope: &UndoScope) -> Plan {
        plan(&Goal::Undone { owned, scope }).unwrap()
    }

    fn taken(plan: &Plan, name: &str) -> Vec<String> {
        let of_node = plan.steps.iter().filter(|s| s.node.as_str() == name);
        of_node
            .map(|s| match &s.action {
                Action::TakeBack { step, .. } => step.to_string(),
                other => other.text(),
            })
            .collect()
    }

    #[test]
    fn directories_are_removed_after_their_content_and_units_start_after_their_files() {
        let own = node(vec![
            entry("r1", "claim/a", claims("/etc/kubernetes", vec![])),
            entry("r1", "dir-config/a", directory("/etc/landfall")),
            entry("r1", "dir-kubernetes/a", directory("/etc/kubernetes")),
            entry("r1", "containerd-config/a", file("/etc/landfall/containerd.toml")),
            entry(
                "r1",
                "unit-file/containerd/a",
                file("/etc/systemd/system/containerd.service"),
            ),
            entry("r1", "unit/containerd/a", unit("containerd.service", true)),
        ]);
        let plan = plan_undo(&fleet(vec![("a", own)]), &UndoScope::Everything);
        assert!(plan.keep_going);
        assert_eq!(
            taken(&plan, "a"),
            [
                "stop the daemons of 6 steps to undo",
                "unit-file/containerd/a",
                "containerd-config/a",
                "dir-config/a",
                "claim/a",
                "dir-kubernetes/a",
                "reload systemd's units (containerd.service), and unload the unused ones of 0 modules",
                "unit/containerd/a",
            ]
        );
    }

    #[test]
    fn a_control_plane_that_stays_restores_objects() {
        let objects = Undo::RestoreObjects {
            prior: vec![],
            absent: vec![],
        };
        let leaving = |name: &str| {
            node(vec![
                entry(
                    "r2",
                    &format!("join-control-plane/{name}"),
                    claims("/var/lib/etcd", vec![]),
                ),
                entry("r2", "apply-sample", objects.clone()),
            ])
        };
        // The entry of the one that stays was undone already, by the undo that was cut off.
        let stays = node(vec![entry("r1", "init/cp-2", claims("/var/lib/etcd", vec![]))]);
        let owned = fleet(vec![
            ("cp-1", leaving("cp-1")),
            ("cp-2", stays),
            ("cp-3", leaving("cp-3")),
        ]);
        let plan = plan_undo(&owned, &UndoScope::Runs(BTreeSet::from(["r2".parse().unwrap()])));
        let is_restore = |s: &&Step| matches!(s.action, Action::RestoreObjects { .. });
        let restores = plan.steps.iter().filter(is_restore);
        let on: Vec<&str> = restores.map(|s| s.node.as_str()).collect();
        assert_eq!(on, ["cp-2"]);
    }

    #[test]
    fn undoing_a_join_removes_the_node_from_a_cluster_that_stays() {
        let objects = |name: &str| Undo::RestoreObjects {
            prior: vec![],
            absent: vec![serde_json::json!({ "metadata": { "name": name } })],
        };
        let joined = ClusterEffect::Node {
            name: "w-1".parse().unwrap(),
        };
        let control_plane = |name: &str| {
            node(vec![
                entry("r1", &format!("init/{name}"), claims("/var/lib/etcd", vec![])),
                entry("r2", "apply-sample", objects("sample")),
            ])
        };
        let owned = fleet(vec![
            ("cp-1", control_plane("cp-1")),
            ("cp-2", control_plane("cp-2")),
            (
                "w-1",
                node(vec![entry(
                    "r2",
                    "join-worker/w-1",
                    claims("/var/lib/kubelet", vec![joined]),
                )]),
            ),
        ]);
        let second = UndoScope::Runs(BTreeSet::from(["r2".parse().unwrap()]));
        assert!(second.cluster_stays(&owned));
        assert_eq!(second.leaving_nodes(&owned), ["w-1".parse().unwrap()]);
        let plan = plan_undo(&owned, &second);
        let restores = plan
            .steps
            .iter()
            .filter(|s| matches!(s.action, Action::RestoreObjects { .. }));
        assert_eq!(
            restores.count(),
            1,
            "both control planes journal it, it is restored once"
        );
        assert_eq!(
            taken(&plan, "cp-2"),
            [
                "mark 1 steps as being undone",
                "stop the daemons of 1 steps to undo",
                "apply-sample"
            ]
        );
        assert!(!plan.steps.iter().any(|s| s.id.as_str().contains("init")));
        let whole = plan_undo(&owned, &UndoScope::Everything);
        assert!(
            !whole.steps.iter().any(|s| s.action.runs_in_cluster()),
            "the cluster goes as a whole"
        );
    }

    #[test]
    fn an_entry_with_a_newer_one_that_stays_is_not_undone() {
        let own = node(vec![
            entry("r1", "hosts/a", Undo::Nothing),
            entry("r2", "hosts/a", Undo::Nothing),
        ]);
        let first = UndoScope::Runs(BTreeSet::from(["r1".parse().unwrap()]));
        assert_eq!(plan_undo(&fleet(vec![("a", own)]), &first).steps, []);
    }
}
