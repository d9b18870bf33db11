//! Kubernetes objects, and what is awaited before the work counts as done.

use super::{ApplyWhen, KUBEADM_S, Planner, step_of};
use crate::action::{Action, ClusterCondition};
use crate::inventory::Role;
use crate::name::StepId;
use crate::plan::Stage;
use std::collections::BTreeMap;

impl Planner<'_> {
    pub(super) fn objects(&mut self) {
        let input = self.input;
        let first = &input.members[0];
        let init = self.on_first("init");
        let kubelets = input.members[1..].iter().map(|m| match m.role() {
            Role::ControlPlane => step_of("join-kubelet", m),
            _ => step_of("join-worker", m),
        });
        let all_joined: Vec<_> = std::iter::once(init.clone()).chain(kubelets).collect();
        let further = input.members[1..].iter().filter(|m| m.role() == Role::ControlPlane);
        let mut all_finished = all_joined.clone();
        all_finished.extend(further.map(|m| step_of("finish-control-plane", m)));
        let condition = ClusterCondition::NodesReady(input.members.iter().map(|m| m.name.clone()).collect());
        let ready = Action::Await { condition };
        let ready = self.add("nodes-ready", first, Stage::Network, &all_joined, KUBEADM_S, ready);
        let mut awaited: BTreeMap<StepId, Vec<ClusterCondition>> = BTreeMap::new();
        for group in &input.groups {
            let needs = match group.when {
                ApplyWhen::FirstApiServer => vec![init.clone()],
                ApplyWhen::AllReady => vec![ready.clone()],
            };
            let action = Action::Apply {
                objects: group.objects.clone(),
            };
            let applied = self.add(
                &format!("apply-{}", group.name),
                first,
                group.stage,
                &needs,
                KUBEADM_S,
                action,
            );
            awaited.insert(applied, rollouts(&group.objects));
        }
        for (applied, conditions) in awaited {
            for condition in conditions {
                let ClusterCondition::RolledOut { name, .. } = &condition else {
                    continue;
                };
                let mut needs = all_finished.clone();
                needs.push(applied.clone());
                let what = format!("rolled-out/{name}");
                self.add(
                    &what,
                    first,
                    Stage::Sample,
                    &needs,
                    KUBEADM_S,
                    Action::Await { condition },
                );
            }
        }
    }
}

/// Lists the workloads among objects.
fn rollouts(objects: &[serde_json::Value]) -> Vec<ClusterCondition> {
    objects
        .iter()
        .filter_map(|object| {
            let kind = object["kind"].as_str()?;
            let text = |key: &str| object["metadata"][key].as_str().unwrap_or("default").to_owned();
            matches!(kind, "Deployment" | "DaemonSet").then(|| ClusterCondition::RolledOut {
                kind: kind.to_owned(),
                namespace: text("namespace"),
                name: text("name"),
            })
        })
        .collect()
}
